"""The command `mobilevlm convert`. Imports torch and onnx only when it runs."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilevlm_ros.checkpoint.errors import CheckpointError
from mobilevlm_ros.export.errors import ExportError

if TYPE_CHECKING:
    from mobilevlm_ros.export.convert import ProgressFactory
    from mobilevlm_ros.export.fidelity import FidelityReport
    from mobilevlm_ros.export.verify import Agreement
    from mobilevlm_ros.export.verify_trt import GraphAgreement
    from mobilevlm_ros.export.writer import Progress

_NEEDED = ("torch", "transformers", "onnx")
_EPILOG = """examples:
  mobilevlm convert v2-1.7b mobilevlm-v2-1.7b --precision fp16
  mobilevlm convert v2-1.7b mobilevlm-v2-1.7b-int4 --precision int4 --calibration my_pictures
  mobilevlm convert v2-1.7b mobilevlm-v2-1.7b-pc --precision int4 --prefill int8
  mobilevlm convert v2-1.7b mobilevlm-v2-1.7b-orin --precision int4 --backend all
  mobilevlm convert mtgv/MobileVLM_V2-3B mobilevlm-v2-3b --lora someone/their-adapter
  mobilevlm convert v2-1.7b kitchen --lora kitchen-lora --onto mobilevlm-v2-1.7b
  mobilevlm convert checkpoint package --precision fp16 --name my-model --phrasings phrasings.json
"""


def add_convert_parser(commands: Any) -> None:
    """Adds `convert` to the subparsers `commands`; sets `run` on what it parses."""
    parser = commands.add_parser(
        "convert",
        help="make a model package from a MobileVLM checkpoint",
        description="Make a model package, which is all that a run needs, from a checkpoint in the released layout. "
        "What is not on this machine yet is downloaded; 'mobilevlm models' lists the names.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="checkpoint: a folder, a name from 'mobilevlm models', or a hub id (owner/name)"
    )
    parser.add_argument("package", metavar="PACKAGE", type=Path, help="folder to write")
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8", "int4"),
        help="how weights are stored (default: fp32); int8 and int4 say what that changed",
    )
    parser.add_argument(
        "--backend",
        choices=("cpu", "trt", "trt-portable", "all"),
        default="cpu",
        help="what to write beside the graphs for the CPU: nothing (cpu), the decoder for TensorRT 10.15 and later (trt), the "
        "one for 10.3 and later (trt-portable), or both; with --precision fp16, int4 or, to look for errors, fp32 (default: cpu)",
    )
    parser.add_argument(
        "--prefill",
        choices=("same", "int8"),
        default="same",
        help="int4: what the CPU reads prompts with: the decoder itself (same), or one in 8 bits beside it (int8), which is "
        "3.7 times as fast on an Intel Xeon with AMX and takes twice the decoder's memory more (default: same)",
    )
    parser.add_argument(
        "--rounding",
        choices=("gptq", "nearest"),
        default="gptq",
        help="int4: make up for rounding errors (gptq), or round each weight by itself (nearest) (default: gptq)",
    )
    parser.add_argument(
        "--keep",
        metavar="PATTERN",
        action="append",
        help="int4: decoder maps that keep 8 bits, such as 'model.layers.0.*'; may be given again (default: the vocabulary's)",
    )
    parser.add_argument(
        "--calibration",
        metavar="PATH",
        type=Path,
        help="int8, int4: folder of pictures like those to come, or LLaVA JSON beside its pictures (default: rendered tabletops)",
    )
    parser.add_argument("--examples", metavar="N", type=int, default=64, help="at most as many of them are used (default: 64)")
    parser.add_argument("--name", help="the model's name in results (default: the checkpoint's)")
    parser.add_argument(
        "--phrasings", metavar="FILE", type=Path, help="JSON with the sentences that the model knows its tasks by"
    )
    parser.add_argument(
        "--score-calibration",
        nargs=2,
        type=float,
        metavar=("SCALE", "OFFSET"),
        default=(1.0, 0.0),
        help="how a region's score follows from the model's probability, as 'mobilevlm eval refcoco' measured it",
    )
    parser.add_argument(
        "--vision-tower",
        metavar="CLIP",
        help="folder or hub id, for a checkpoint without a tower (default: the one that it names)",
    )
    parser.add_argument("--lora", metavar="ADAPTER", help="LoRA adapter to merge: a folder or a hub id")
    parser.add_argument(
        "--onto",
        metavar="BASE_PACKAGE",
        type=Path,
        help="with --lora: do not merge, but write a small package beside this one of the same checkpoint, in its precision, "
        "holding only what differs; it needs BASE_PACKAGE at the same relative place when it runs",
    )
    parser.add_argument("--licence", help="the weights' licence, recorded in the manifest (default: what is known of it)")
    parser.add_argument("--revision", help="branch, tag or commit to download; for a folder only recorded in the manifest")
    parser.add_argument("--offline", action="store_true", help="take what is on this machine and ask no hub")
    parser.add_argument("--no-verify", action="store_true", help="do not compare the result with PyTorch, which takes memory")
    parser.add_argument("--force", action="store_true", help="replace an existing package")
    parser.add_argument("--json", action="store_true", help="print what was done as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Converts as `args` say. Returns 0, or 1 after one line on stderr."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        remedy = "run tools/setup demo convert, or install mobilevlm_ros[convert]"
        print(f"mobilevlm: convert needs {', '.join(missing)}: {remedy}", file=sys.stderr)
        return 1
    if args.onto is not None and args.lora is None:
        print("mobilevlm: --onto needs --lora: it is an adapter that is written onto a base package", file=sys.stderr)
        return 1
    if args.onto is not None and args.backend != "cpu":
        print("mobilevlm: TensorRT takes no packages beside a base: leave out --onto, which merges the adapter", file=sys.stderr)
        return 1
    if args.onto is not None and (args.precision or args.keep or args.calibration or args.prefill != "same"):
        print("mobilevlm: with --onto the base package decides how weights are stored; leave out its options", file=sys.stderr)
        return 1
    try:
        _convert(args) if args.onto is None else _convert_adapter(args)
    except (CheckpointError, ExportError) as error:
        print(f"mobilevlm: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"mobilevlm: {error.filename or args.package}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _convert(args: argparse.Namespace) -> None:
    from mobilevlm_ros.export.convert import ConvertOptions, convert, read_phrasings
    from mobilevlm_ros.export.prefill_builder import Prefill
    from mobilevlm_ros.export.quantization import HEAD_MAPS, Rounding
    from mobilevlm_ros.export.trt_graphs import Target
    from mobilevlm_ros.hub.resolve import resolve_checkpoint
    from mobilevlm_ros.runtime.manifest import Phrasings, Precision, ScoreCalibration

    checkpoint = resolve_checkpoint(args.source, args.revision, args.offline)
    adapter = None if args.lora is None else resolve_checkpoint(args.lora, offline=args.offline)
    options = ConvertOptions(
        precision=Precision(args.precision or Precision.FP32),
        target=Target(args.backend),
        prefill=Prefill(args.prefill),
        name=args.name or checkpoint.short_name,
        phrasings=Phrasings() if args.phrasings is None else read_phrasings(args.phrasings),
        score_calibration=ScoreCalibration(*args.score_calibration),
        vision_tower=_vision_tower(args, checkpoint.folder),
        adapter=None if adapter is None else adapter.folder,
        source=checkpoint.checkpoint_name + ("" if adapter is None else f" + {adapter.checkpoint_name}"),
        licence=args.licence or checkpoint.licence,
        revision=checkpoint.revision,
        rounding=Rounding(args.rounding),
        keep=HEAD_MAPS if args.keep is None else tuple(args.keep),
        calibration=args.calibration,
        examples=args.examples,
        verify=not args.no_verify,
        force=args.force,
    )
    with _progress_bar() as start:
        report = convert(checkpoint.folder, args.package, options, start)
    if args.json:
        _print_json(report.package, report.agreement, report.fidelity, report.unused, report.ignored, report.beside)
        return
    if report.unused:
        print(f"left out {len(report.unused)} tensors that are no part of MobileVLM, such as {report.unused[0]}")
    if report.ignored:
        print(f"left out the adapter's changes to {len(report.ignored)} tensors of the vision tower, as the official loader does")
    if report.fidelity is not None:
        print("\n".join(report.fidelity.lines()))
    else:
        _print_agreement(report.agreement)
    for compared in report.beside:
        _print_beside(compared)
    print(f"wrote {report.package}")


def _convert_adapter(args: argparse.Namespace) -> None:
    from mobilevlm_ros.export.adapter import AdapterOptions, convert_adapter
    from mobilevlm_ros.export.convert import read_phrasings
    from mobilevlm_ros.hub.resolve import resolve_checkpoint

    checkpoint = resolve_checkpoint(args.source, args.revision, args.offline)
    adapter = resolve_checkpoint(args.lora, offline=args.offline)
    options = AdapterOptions(
        name=args.name or adapter.short_name,
        source=f"{checkpoint.checkpoint_name} + {adapter.checkpoint_name}",
        phrasings=None if args.phrasings is None else read_phrasings(args.phrasings),
        vision_tower=_vision_tower(args, checkpoint.folder),
        licence=args.licence,
        revision=args.revision,
        verify=not args.no_verify,
        force=args.force,
    )
    with _progress_bar() as start:
        report = convert_adapter(checkpoint.folder, adapter.folder, args.onto, args.package, options, start)
    if args.json:
        _print_json(report.package, report.agreement, None, (), report.ignored)
        return
    if report.ignored:
        print(f"left out the adapter's changes to {len(report.ignored)} tensors that no answer depends on")
    _print_agreement(report.agreement)
    print(f"wrote {report.package}: {report.size / 1e6:.1f} MB beside {args.onto}")


@contextmanager
def _progress_bar() -> Iterator[ProgressFactory]:
    from tqdm import tqdm

    with tqdm(unit="B", unit_scale=True, desc="converting", disable=None) as bar:

        def start(what: str, total: int) -> Progress:
            bar.reset(total or None)
            bar.set_description(what)
            bar.set_postfix_str("")
            return advance

        def advance(name: str, size: int) -> None:
            bar.set_postfix_str(name, refresh=size == 0)
            bar.update(size)

        yield start


def _print_json(
    package: Path,
    agreement: Agreement | None,
    fidelity: FidelityReport | None,
    unused: Sequence[str],
    ignored: Sequence[str],
    beside: Sequence[GraphAgreement] = (),
) -> None:
    """One object; each linear map's own error stands in the package's quantization.json."""
    lost = None if fidelity is None else {key: value for key, value in asdict(fidelity).items() if key != "linears"}
    compared = None if agreement is None else asdict(agreement)
    known = {"package": str(package), "agreement": compared, "fidelity": lost, "unused": list(unused), "ignored": list(ignored)}
    print(json.dumps({**known, "beside": [asdict(graph) for graph in beside]}))


def _print_agreement(found: Agreement | None) -> None:
    if found is None:
        print("not compared with PyTorch")
        return
    print(
        f"agrees with PyTorch: visual tokens to {found.features:.1e}, logits to {found.logits:.1e}"
        f" (relative; allowed {found.tolerance:.0e})"
    )


def _print_beside(found: GraphAgreement) -> None:
    if found.difference is None:
        print(f"{found.graph}: not compared, this ONNX Runtime is too old for it")
    else:
        agrees = f"agrees with the CPU's graph to {found.difference:.1e} (relative; allowed {found.tolerance:.0e})"
        print(f"{found.graph}: {agrees}" + (f"; values in float16 reach {found.largest:.4g} of 65504" if found.largest else ""))


def _vision_tower(args: argparse.Namespace, checkpoint: Path) -> Path | None:
    """The folder of the tower that the user names, else of the one that the checkpoint names and lacks; None if it lacks none."""
    from mobilevlm_ros.checkpoint.reader import missing_tower
    from mobilevlm_ros.hub.errors import HubError
    from mobilevlm_ros.hub.resolve import resolve_checkpoint

    if args.vision_tower is not None:
        return resolve_checkpoint(args.vision_tower, offline=args.offline).folder
    named = missing_tower(checkpoint)
    if named is None:
        return None
    try:
        return resolve_checkpoint(named, offline=args.offline).folder
    except HubError:
        return None  # opening the checkpoint says what it lacks

"""The command `mobilevlm convert`. Imports torch and onnx only when it runs."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

from mobilevlm_ros.checkpoint.errors import CheckpointError
from mobilevlm_ros.export.errors import ExportError

_NEEDED = ("torch", "transformers", "onnx")
_EPILOG = """examples:
  mobilevlm convert MobileVLM_V2-1.7B mobilevlm-v2-1.7b
  mobilevlm convert checkpoint package --precision fp16 --name my-model --phrasings phrasings.json
"""


def add_convert_parser(commands: Any) -> None:
    """Adds `convert` to the subparsers `commands`; sets `run` on what it parses."""
    parser = commands.add_parser(
        "convert",
        help="make a model package from a MobileVLM checkpoint",
        description="Make a model package, which is all that a run needs, from a checkpoint folder in the released layout.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SOURCE", type=Path, help="checkpoint folder (config.json, weights, tokenizer.model)")
    parser.add_argument("package", metavar="PACKAGE", type=Path, help="folder to write")
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32", help="how weights are stored (default: fp32)")
    parser.add_argument("--name", help="the model's name in results (default: the checkpoint folder's name)")
    parser.add_argument(
        "--phrasings", metavar="FILE", type=Path, help="JSON with the sentences that the model knows its tasks by"
    )
    parser.add_argument("--vision-tower", metavar="FOLDER", type=Path, help="CLIP folder, for a checkpoint that holds no tower")
    parser.add_argument("--lora", metavar="FOLDER", type=Path, help="LoRA adapter to merge")
    parser.add_argument("--licence", default="unknown", help="the weights' licence, recorded in the manifest")
    parser.add_argument("--revision", default="unknown", help="the checkpoint's revision, recorded in the manifest")
    parser.add_argument("--no-verify", action="store_true", help="do not compare the result with PyTorch, which takes memory")
    parser.add_argument("--force", action="store_true", help="replace an existing package")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Converts as `args` say. Returns 0, or 1 after one line on stderr."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        remedy = "run tools/setup demo convert, or install mobilevlm_ros[convert]"
        print(f"mobilevlm: convert needs {', '.join(missing)}: {remedy}", file=sys.stderr)
        return 1
    try:
        _convert(args)
    except (CheckpointError, ExportError) as error:
        print(f"mobilevlm: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"mobilevlm: {error.filename or args.package}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _convert(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from mobilevlm_ros.export.convert import ConvertOptions, convert, read_phrasings
    from mobilevlm_ros.export.writer import Progress
    from mobilevlm_ros.runtime.manifest import Phrasings, Precision

    options = ConvertOptions(
        precision=Precision(args.precision),
        name=args.name,
        phrasings=Phrasings() if args.phrasings is None else read_phrasings(args.phrasings),
        vision_tower=args.vision_tower,
        adapter=args.lora,
        licence=args.licence,
        revision=args.revision,
        verify=not args.no_verify,
        force=args.force,
    )
    with tqdm(unit="B", unit_scale=True, desc="converting", disable=None) as bar:

        def start(total: int) -> Progress:
            bar.reset(total)
            return advance

        def advance(name: str, size: int) -> None:
            bar.set_postfix_str(name, refresh=size == 0)
            bar.update(size)

        report = convert(args.source, args.package, options, start)
    if report.unused:
        print(f"left out {len(report.unused)} tensors that are no part of MobileVLM, such as {report.unused[0]}")
    if report.ignored:
        print(f"left out the adapter's changes to {len(report.ignored)} tensors of the vision tower, as the official loader does")
    if report.agreement is None:
        print("not compared with PyTorch")
    else:
        found = report.agreement
        print(
            f"agrees with PyTorch: visual tokens to {found.features:.1e}, logits to {found.logits:.1e}"
            f" (relative; allowed {found.tolerance:.0e})"
        )
    print(f"wrote {report.package}")

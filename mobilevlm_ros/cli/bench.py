"""`mobilevlm bench`: how fast a model package answers on this machine."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mobilevlm_ros.cli.options import Commands, add_command
from mobilevlm_ros.models import shipped_package

EXAMPLES = """  mobilevlm bench
  mobilevlm bench --model mobilevlm-v2-1.7b-int4 --runs 3 --threads 4
  mobilevlm bench --json | jq .stages.decode_tokens_per_s.median
  mobilevlm bench --synthetic v2-1.7b --report >> figures.md
  mobilevlm bench --synthetic v2-1.7b --prefill int8
"""


def add_bench_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the `mobilevlm` parser."""
    parser = add_command(commands, "bench", "measure how fast a model package answers on this machine", EXAMPLES, run)
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", type=Path, metavar="PACKAGE", help="model package folder (default: the nano model)")
    model.add_argument(
        "--synthetic",
        choices=["v2-1.7b"],
        help="instead: MobileVLM-V2-1.7B in INT4 with made-up weights, which is as fast as the real one; no download, "
        "1.2 GB of disk meanwhile",
    )
    parser.add_argument(
        "--prefill",
        choices=["same", "int8"],
        default="same",
        help="with --synthetic: what prompts are read with, as 'mobilevlm convert' has it; int8 takes 1.3 GB more of disk and of "
        "memory (default: same)",
    )
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="where the made-up weights go (default: the user's cache)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="processor threads (default: one per core)")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="measured times; the median is told (default: 5)")
    parser.add_argument("--warm-up", type=int, default=1, metavar="N", help="unmeasured times before (default: 1)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object")
    form.add_argument("--report", action="store_true", help="print Markdown that names the machine, to paste elsewhere")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from tqdm import tqdm

    from mobilevlm_ros.bench.report import facts, markdown, table, values
    from mobilevlm_ros.bench.stages import BenchOptions, measure, steps
    from mobilevlm_ros.machine import read_machine

    options = BenchOptions(args.threads, args.runs, args.warm_up)
    with _package(args) as package, tqdm(total=steps(options), unit="step", file=sys.stderr, disable=None, leave=False) as bar:

        def on_step(name: str) -> None:
            bar.set_description(name)
            bar.update()

        measured = measure(package, options, on_step)
    machine = read_machine()
    if args.json:
        print(json.dumps(values(measured, machine, options), ensure_ascii=False))
    elif args.report:
        print(markdown(measured, machine, options))
    else:
        for name, value in facts(measured, machine, options).items():
            print(f"{name:<13}  {value}")
        print("", *table(measured), sep="\n")
    return 0


@contextmanager
def _package(args: argparse.Namespace) -> Iterator[Path]:
    """The package to measure; made-up weights are removed again afterwards."""
    from tqdm import tqdm

    from mobilevlm_ros.bench.synthetic import Skeleton
    from mobilevlm_ros.runtime.package import PREFILL_DIALECT

    if args.synthetic is None:
        yield args.model or shipped_package()
        return
    skeleton = Skeleton.load()
    if args.prefill == "same":
        skeleton = skeleton.without_decoder(PREFILL_DIALECT)
    # Not the system's temporary folder, which on many boards lies in the memory that is measured.
    work = args.work or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mobilevlm_ros"
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=work) as folder:
        target = Path(folder) / skeleton.manifest.name
        with tqdm(total=skeleton.size, unit="B", unit_scale=True, desc="weights", disable=None, leave=False) as bar:
            skeleton.write_package(target, lambda name, size: bar.update(size))
        yield target

"""Measures what converting a released checkpoint takes, on a checkpoint of its exact shapes with random weights.

    python -m bench.conversion v2-1.7b --precision fp16 --work /tmp

The conversion is `mobilevlm convert` in a process of its own; with --run one question is asked of the package, too. The files
are removed afterwards. --record writes the figures into the catalogue of checkpoints.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from bench.catalogue import record
from bench.random_checkpoint import write_random_checkpoint
from bench.usage import Usage, run_measured
from mobilevlm_ros.hub.catalogue import Entry, Measured, find
from mobilevlm_ros.machine import read_machine
from mobilevlm_ros.runtime.manifest import Precision
from tests.parity import PARITY

_PROGRAM = "import sys; from mobilevlm_ros.cli.main import main; sys.exit(main(sys.argv[1:]))"
_PICTURE = PARITY / "image.png"
_QUESTION = "What is on the table?"
_TOKENS = 16
_SLACK = 500_000_000
_MEASURED_ON_EXAMPLES = (Precision.INT8.value, Precision.INT4.value)


def main() -> int:
    args = _arguments()
    entry = find(args.name)
    if entry is None or entry.hub_id is None:
        print(f"{args.name}: not a released checkpoint; see 'mobilevlm models'", file=sys.stderr)
        return 2
    needed = entry.download_bytes + entry.package_bytes[args.precision] + _SLACK
    free = shutil.disk_usage(args.work).free
    if free < needed:
        print(f"{args.work}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(dir=args.work, prefix="conversion-") as folder:
        return _measure(entry, args, Path(folder))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.conversion", description=__doc__.splitlines()[0])
    parser.add_argument("name", metavar="NAME", help="a released checkpoint, as 'mobilevlm models' calls it")
    parser.add_argument("--precision", choices=[precision.value for precision in Precision], default=Precision.FP16.value)
    parser.add_argument("--examples", type=int, default=64, metavar="N", help="int8, int4: calibration examples (default: 64)")
    parser.add_argument("--no-verify", action="store_true", help="do not compare with PyTorch")
    parser.add_argument("--run", action="store_true", help="also ask the package one question")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()), help="where the files go meanwhile")
    parser.add_argument("--record", action="store_true", help="write the figures into the catalogue")
    parser.add_argument("--json", action="store_true", help="print a JSON object for each measurement instead of a table")
    return parser.parse_args()


def _measure(entry: Entry, args: argparse.Namespace, work: Path) -> int:
    checkpoint, package = work / entry.title, work / "package"
    write_random_checkpoint(checkpoint, entry.config)
    command = ["convert", str(checkpoint), str(package), "--precision", args.precision]
    how = f"{args.precision}, {'not verified' if args.no_verify else 'verified'}"
    if args.precision in _MEASURED_ON_EXAMPLES:
        command += ["--examples", str(args.examples)]
        how = f"{args.precision}, {args.examples} examples"
    if not _step(entry, "conversion", how, [*command, *(["--no-verify"] if args.no_verify else [])], args):
        return 1
    if args.run:
        command = ["ask", str(_PICTURE), _QUESTION, "--model", str(package), "--max-tokens", str(_TOKENS), "--json"]
        if not _step(entry, "run", f"{args.precision}, one picture, {_TOKENS} tokens", command, args):
            return 1
    return 0


def _step(entry: Entry, kind: str, how: str, command: list[str], args: argparse.Namespace) -> bool:
    """Measures one command and tells; whether it succeeded."""
    usage = run_measured([sys.executable, "-c", _PROGRAM, *command])
    if usage.status != 0:
        print(f"{entry.name}: {kind} ended with status {usage.status}: {usage.output.strip()}", file=sys.stderr)
        return False
    measured = Measured(how, usage.peak_bytes, usage.anonymous_bytes, round(usage.seconds, 1), _machine())
    _tell(entry, kind, measured, usage, args.json)
    if args.record:
        record(entry.name, kind, measured)
    return True


def _tell(entry: Entry, kind: str, measured: Measured, usage: Usage, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"name": entry.name, "kind": kind, **asdict(measured)}), flush=True)
        return
    print(
        f"{entry.name:<8} {kind:<10} {measured.how:<32} peak {usage.peak_bytes / 1e9:6.2f} GB, of it not from files at most "
        f"{usage.anonymous_bytes / 1e9:6.2f} GB, {usage.seconds:7.1f} s",
        flush=True,
    )


def _machine() -> str:
    machine = read_machine()
    return f"{machine.cores} cores of {machine.board or machine.processor}, {machine.memory / 2**30:.0f} GiB"


if __name__ == "__main__":
    sys.exit(main())

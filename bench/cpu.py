"""This project's engine against llama.cpp and the official PyTorch code on this machine's processor, MobileVLM-V2-1.7B's shapes.

`python -m bench.cpu --json`. All weights are made up: how fast an engine is does not depend on them. Each engine is a process of
its own and has the same threads; they take turns, stage by stage. Prints a table, then one JSON line. The files (8 GB while they
are made, 5 GB afterwards) are kept in --work; `bench.cpu_stages` says what each stage is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.cpu_files import check_installed, make_files
from bench.cpu_report import summary, table
from bench.cpu_rounds import OURS, Group, Plan, take
from bench.cpu_stages import BenchError
from bench.cpu_worker import ENGINES
from mobilevlm_ros import __version__
from mobilevlm_ros.bench.bandwidth import MemoryReader
from mobilevlm_ros.machine import gibibytes, physical_cores, read_machine
from mobilevlm_ros.runtime.errors import VlmError

RESULT = Path(__file__).parent / "results" / "cpu.json"
_TORCH_ROUNDS = 3
"""A round of PyTorch takes as long as many of the others, and differs from them by far more than rounds differ."""
_QUICK = (OURS, "llama.cpp-Q4_0")
_LIBRARIES = ("onnxruntime", "llama-cpp-python", "torch", "transformers", "numpy")


def groups(engines: Sequence[str], rounds: int) -> tuple[Group, ...]:
    """Ours and llama.cpp's together; each of PyTorch's, which take most of a machine's memory, with ours alone."""
    official = [engine for engine in engines if engine.startswith("torch")]
    others = tuple(engine for engine in engines if engine not in official)
    pairs = tuple(Group((OURS, engine), min(rounds, _TORCH_ROUNDS)) for engine in official)
    return (Group(others, rounds), *pairs)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.cpu", description=__doc__.splitlines()[0])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mobilevlm_ros" / "bench"
    parser.add_argument("--work", type=Path, default=cache, metavar="FOLDER", help=f"where the files are kept (default: {cache})")
    parser.add_argument("--engines", default=",".join(ENGINES), metavar="A,B", help=f"which ones, of {', '.join(ENGINES)}")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="measured times of each stage (default: 7)")
    parser.add_argument("--starts", type=int, default=3, metavar="N", help="fresh starts of each engine (default: 3)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of each engine (default: one per physical core)")
    parser.add_argument("--quick", action="store_true", help=f"{' and '.join(_QUICK)} alone, 2 rounds, 1 start")
    parser.add_argument("--record", action="store_true", help=f"also write the figures to {RESULT.name} in bench/results")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    args = parser.parse_args(arguments)
    args.engines = args.engines.split(",")
    if args.quick:
        args.engines, args.rounds, args.starts = list(_QUICK), 2, 1
    unknown = [engine for engine in args.engines if engine not in ENGINES]
    if unknown or OURS not in args.engines:
        parser.error(f"--engines: {OURS} and any of {', '.join(ENGINES[1:])}")
    if args.rounds < 1 or args.starts < 1 or args.threads < 0:
        parser.error("--rounds and --starts must be 1 or more, --threads 0 or more")
    return args


def _facts(plan: Plan, load: float) -> dict[str, Any]:
    machine = read_machine()
    features = " ".join(machine.features)
    return {
        "machine": f"{machine.processor}, {machine.cores} cores, {features}, {gibibytes(machine.memory)}",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {found}" for name in _LIBRARIES if (found := _version(name))),
        "mobilevlm_ros": __version__,
        "threads": plan.threads,
        "rounds": plan.groups[0].rounds,
        "starts": plan.starts,
        "load_before": round(load, 2),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, 1 where it could not be measured, 2 for arguments that make no sense, 130 after Ctrl-C."""
    from tqdm import tqdm

    args = _arguments(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    load = os.getloadavg()[0]
    plan = Plan(groups(args.engines, args.rounds), args.starts, args.threads or physical_cores(), args.work)
    with tqdm(total=plan.steps, unit="step", file=sys.stderr, disable=None) as bar:

        def told(step: str) -> None:
            bar.set_description(step)
            bar.update()

        try:
            check_installed(args.engines)
            make_files(args.engines, args.work, plan.threads, bar.set_description)
            starts, measured = take(plan, MemoryReader(plan.threads, read_machine().available), told)
        except (BenchError, VlmError, OSError) as error:
            bar.write(f"bench.cpu: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            bar.write("bench.cpu: interrupted", file=sys.stderr)
            return 130
    values = {**summary(starts, measured), **_facts(plan, load)}
    print("\n".join(table(values)))
    if args.record:
        RESULT.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    if args.json:
        print(json.dumps(values))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Whether the node stays as it is for hours: its memory, threads and files while it is asked everything without a pause.

`python -m bench.soak --minutes 10 --json`. Starts the node with the nano model and a camera, each a process, on a ROS graph of
their own on this machine alone. Prints a table, then one JSON line. The first quarter warms up and is not counted. An hour's work
of a robot that asks once a second and has a 30 Hz camera is 3600 requests and 108000 pictures; `hours_of_requests` and
`hours_of_pictures` say how much of that was done.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Sequence
from functools import partial

from bench.figures import slope
from bench.robot import Pictures, on_own_graph
from bench.soak_run import CACHE_MB, CLIENTS, Gathered, Plan, Sample, gather
from mobilevlm_ros import __version__
from mobilevlm_ros.machine import gibibytes, read_machine

_MIB = 2**20
_ROWS = (
    ("minutes", "minutes", ""),
    ("requests", "requests", ""),
    ("pictures sent", "pictures", ""),
    ("memory after the warm-up", "memory_mb_first", "MiB"),
    ("memory at the end", "memory_mb_last", "MiB"),
    ("  growth", "growth_mb", "MiB"),
    ("  growth per 3600 requests", "growth_mb_per_3600_requests", "MiB"),
    ("  trend", "growth_mb_per_hour", "MiB/h"),
    ("threads more at the end", "threads_grown", ""),
    ("files more at the end", "files_grown", ""),
)


def figures(found: Gathered, plan: Plan, load: float) -> dict[str, object]:
    """The figures and what they rest on; memory in MiB, without mapped files; `load` is the machine's before."""
    samples = found.samples[len(found.samples) // 4 :]
    part = max(1, len(samples) // 6)
    first, last = samples[:part], samples[-part:]
    requests = sum(found.ends.values())
    moments, sizes = [sample.moment for sample in samples], [sample.memory / _MIB for sample in samples]
    growth = _memory(last) - _memory(first)
    machine = read_machine()
    values = {
        "minutes": plan.seconds / 60,
        "memory_mb_first": _memory(first),
        "memory_mb_last": _memory(last),
        "growth_mb": growth,
        "growth_mb_per_3600_requests": growth * 3600 / max(1.0, requests * 3 / 4),
        "growth_mb_per_hour": 3600 * slope(moments, sizes),
        "hours_of_requests": requests / 3600,
        "hours_of_pictures": found.published / 108_000,
    }
    return {
        **{name: round(value, 3) for name, value in values.items()},
        "memory_mb_by_tenth": [round(_memory(part), 1) for part in _tenths(found.samples)],
        "threads_grown": max(sample.threads for sample in last) - max(sample.threads for sample in first),
        "files_grown": max(sample.files for sample in last) - max(sample.files for sample in first),
        "requests": requests,
        "ends": {code.name: count for code, count in sorted(found.ends.items())},
        "pictures": found.published,
        "pictures_asked_about": found.seen,
        "samples": len(samples),
        "clients": CLIENTS,
        "rate_hz": plan.pictures.rate,
        "size": f"{plan.pictures.width}x{plan.pictures.height}",
        "prefix_cache_mb": CACHE_MB,
        "model": "mobilevlm-nano",
        "machine": f"{machine.processor}, {machine.cores} cores, {gibibytes(machine.memory)}",
        "load_before": round(load, 2),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "mobilevlm_ros": __version__,
    }


def table(values: dict[str, object]) -> list[str]:
    """A line for each figure."""
    return [f"{title:<30} {values[name]:>10g} {unit}".rstrip() for title, name, unit in _ROWS]


def _tenths(samples: Sequence[Sample]) -> list[Sequence[Sample]]:
    """The samples in ten parts, the warm-up among them; fewer where there are fewer samples."""
    parts = [samples[len(samples) * n // 10 : len(samples) * (n + 1) // 10] for n in range(10)]
    return [part for part in parts if part]


def _memory(samples: Sequence[Sample]) -> float:
    return statistics.median(sample.memory for sample in samples) / _MIB


def _plan(arguments: list[str] | None) -> tuple[Plan, bool]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to ask, 0.1 to 10080")
    Pictures.add_options(parser, "640x480")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    args = parser.parse_args(arguments)
    if not 0.1 <= args.minutes <= 10080:
        parser.error("--minutes must be 0.1 to 10080")
    return Plan(args.minutes * 60, Pictures.read(parser, args, 100)), args.json


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, 1 where the node ended or a request ended as none should, 130 after Ctrl-C."""
    plan, as_json = _plan(arguments)
    load = os.getloadavg()[0]
    found = on_own_graph("bench.soak", plan.seconds, partial(gather, plan))
    if isinstance(found, int):
        return found
    values = figures(found, plan, load)
    print("\n".join(table(values)))
    if as_json:
        print(json.dumps(values))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

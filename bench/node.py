"""What the node costs beside the model: added latency, each picture of a camera, pictures lost, memory over time.

`python -m bench.node --json`. Starts the node with the nano model and a camera, each a process, on a ROS graph of their own on
this machine alone. Prints a table, then one JSON line. `bench.node_run` says how it is measured.

What a picture costs is told three times: `callback_ms`, how long the subscription's own callback runs; `callback_thread_ms`, the
processor time of its thread from one picture to the next, which is nearly all rclpy's taking of the message (it is copied three
times on the way); and `node_threads_ms`, the processor time of all the node's threads but the middleware's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from functools import partial

from bench.figures import percentile, slope
from bench.node_run import CACHE_MB, MAX_TOKENS, QUESTION, Gathered, Plan, gather
from bench.robot import Pictures, on_own_graph
from mobilevlm_ros import __version__
from mobilevlm_ros.machine import gibibytes, read_machine

_MIB = 2**20
_ROWS = (
    ("request at a client, median", "node_request_ms", "ms"),
    ("  its stages in the engine", "engine_stages_ms", "ms"),
    ("  added latency", "added_latency_ms", "ms"),
    ("  added latency, 99 %", "added_latency_ms_p99", "ms"),
    ("  share of the stages", "added_latency_share", ""),
    ("the same asked of an engine in process", "engine_call_ms", "ms"),
    ("  outside its stages", "engine_call_outside_stages_ms", "ms"),
    ("  node's request less that", "added_to_engine_call_ms", "ms"),
    ("a picture's callback", "callback_ms_median", "ms"),
    ("  99 %", "callback_ms_p99", "ms"),
    ("  processor time of its thread", "callback_thread_ms_median", "ms"),
    ("  99 %", "callback_thread_ms_p99", "ms"),
    ("  all the node's threads", "node_threads_ms_median", "ms"),
    ("  99 %", "node_threads_ms_p99", "ms"),
    ("  middleware's threads", "transport_ms_median", "ms"),
    ("pictures received of published", "frames_received_share", ""),
    ("memory's growth", "rss_growth_mb_per_hour", "MiB/h"),
)


def figures(found: Gathered, plan: Plan, load: float) -> dict[str, object]:
    """The figures and what they rest on; times in ms, memory in MiB; `load` is the machine's before."""
    added = [one.node_ms - one.node_stages_ms for one in found.asked]
    stages_ms = statistics.median(one.node_stages_ms for one in found.asked)
    added_ms = statistics.median(added)
    machine = read_machine()
    moments, sizes = [moment for moment, _ in found.memory], [size / _MIB for _, size in found.memory]
    values = {
        "added_latency_ms": added_ms,
        "added_latency_ms_p99": percentile(added, 99),
        "added_latency_share": added_ms / stages_ms,
        "node_request_ms": statistics.median(one.node_ms for one in found.asked),
        "engine_stages_ms": stages_ms,
        "engine_call_ms": statistics.median(one.engine_ms for one in found.asked),
        "engine_call_outside_stages_ms": statistics.median(one.engine_ms - one.engine_stages_ms for one in found.asked),
        "added_to_engine_call_ms": statistics.median(one.node_ms - one.engine_ms for one in found.asked),
        "callback_ms_p99": percentile(found.callbacks_ms, 99),
        "callback_ms_median": statistics.median(found.callbacks_ms),
        "callback_thread_ms_p99": percentile(found.callback_thread_ms, 99),
        "callback_thread_ms_median": statistics.median(found.callback_thread_ms),
        "node_threads_ms_p99": percentile(found.own_ms, 99),
        "node_threads_ms_median": statistics.median(found.own_ms),
        "transport_ms_median": statistics.median(found.transport_ms),
        "frames_received_share": found.received / found.published,
        "rss_growth_mb_per_hour": 3600 * slope(moments, sizes),
        "rss_mb": statistics.median(sizes),
        "rss_range_mb": max(sizes) - min(sizes),
    }
    return {
        **{name: round(value, 4) for name, value in values.items()},
        "requests": len(found.asked),
        "frames_watched": len(found.callbacks_ms),
        "frames_published": found.published,
        "frames_received": found.received,
        "rss_samples": len(sizes),
        "seconds": plan.seconds,
        "rest_seconds": plan.rest,
        "rate_hz": plan.pictures.rate,
        "size": f"{plan.pictures.width}x{plan.pictures.height}",
        "diagnostics_period_s": plan.diagnostics_period,
        "prefix_cache_mb": CACHE_MB,
        "model": "mobilevlm-nano",
        "question": QUESTION,
        "max_tokens": MAX_TOKENS,
        "machine": f"{machine.processor}, {machine.cores} cores, {' '.join(machine.features)}, {gibibytes(machine.memory)}",
        "load_before": round(load, 2),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "rmw": os.environ.get("RMW_IMPLEMENTATION", "default"),
        "mobilevlm_ros": __version__,
    }


def table(values: dict[str, object]) -> list[str]:
    """A line for each figure, and one for what they rest on."""
    rows = [f"{title:<40} {values[name]:>9.3f} {unit}".rstrip() for title, name, unit in _ROWS]
    rest = "{requests} requests in {seconds:g} s, {size} at {rate_hz:g} Hz, {frames_watched} pictures watched; load before: "
    rest += "{load_before}; {machine}"
    return [*rows, rest.format(**values)]


def _plan(arguments: list[str] | None) -> tuple[Plan, bool]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to ask, 2 or more; the whole takes somewhat longer")
    Pictures.add_options(parser, "1280x720")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    args = parser.parse_args(arguments)
    if not 2 <= args.seconds <= 86400:
        parser.error("--seconds must be 2 to 86400")
    return Plan(args.seconds, Pictures.read(parser, args, 16)), args.json


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, 1 where it could not be measured, 130 after Ctrl-C."""
    plan, as_json = _plan(arguments)
    load = os.getloadavg()[0]
    found = on_own_graph("bench.node", plan.warm_up + plan.rest + plan.seconds, partial(gather, plan))
    if isinstance(found, int):
        return found
    values = figures(found, plan, load)
    print("\n".join(table(values)))
    if as_json:
        print(json.dumps(values))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""`mobilevlm doctor`: what this machine can run and what is missing, and what is wrong around a running node."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from mobilevlm_ros import __version__
from mobilevlm_ros.cli.doctor_jetson import add_jetson_options, check_options, jetson
from mobilevlm_ros.cli.options import Commands, add_command

if TYPE_CHECKING:
    from mobilevlm_ros.doctor.check import Check, Group

UNHEALTHY = 1
LONGEST_WAIT = 3600.0
"""Seconds."""
EXAMPLES = """  mobilevlm doctor
  mobilevlm doctor --json | jq -r '.checks[] | select(.status != "PASS") | .name + ": " + .remedy'
  mobilevlm doctor --graph --node /robot1/mobilevlm
  mobilevlm doctor --jetson --quick
  mobilevlm doctor --jetson --json > jetson.json
  mobilevlm doctor --jetson --model mobilevlm-v2-1.7b-int4
  mobilevlm doctor --jetson --simulate
"""
_EXPLAINED = """PASS works. WARN works, but not well. MISSING is not there, and only some need it.
FAIL keeps the machine from answering; the exit code is then 1, else 0.
--graph looks at a running ROS graph instead: is the node there and active, and do its cameras' pictures reach it?
--jetson builds TensorRT engines instead, compares their answers with the processor's and times them beside what is predicted
for the board. It needs no download; it takes minutes and 8 GB of disk meanwhile, with --quick little of either.
SKIP could not be looked at, or was not to be; the line says why."""
_COLOURS = {"PASS": "32", "WARN": "33", "MISSING": "36", "SKIP": "36", "FAIL": "31"}


def add_doctor_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the `mobilevlm` parser."""
    parser = add_command(commands, "doctor", "tell what this machine can run and what is missing", EXAMPLES, run)
    parser.description = f"{parser.description}\n{_EXPLAINED}"
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    group = parser.add_argument_group("running graph")
    group.add_argument("--graph", action="store_true", help="find wiring mistakes around a running node")
    group.add_argument("--node", default="mobilevlm", metavar="NAME", help="its name, with its namespace (default: mobilevlm)")
    group.add_argument(
        "--seconds", type=float, default=5.0, metavar="N", help="how long to wait for the node and for pictures (default: 5)"
    )
    add_jetson_options(parser)


def run(args: argparse.Namespace) -> int:
    """Examine and print; 1 if something that answering needs does not work."""
    from mobilevlm_ros.doctor.examine import examine, healthy

    check_options(args)
    groups: list[Group] = []
    for group in jetson(args) if args.jetson else _graph(args.node, args.seconds) if args.graph else examine():
        if not args.json:
            _print(group, groups[-1].title if groups else "")
        groups.append(group)
    if args.json:
        checks = [{"group": group.title, **asdict(check)} for group in groups for check in group.checks]
        facts = {"version": __version__, "simulated": args.simulate is not None} if args.jetson else {}
        print(json.dumps({"healthy": healthy(groups), **facts, "checks": checks}, ensure_ascii=False))
    return 0 if healthy(groups) else UNHEALTHY


def _graph(node: str, seconds: float) -> Iterator[Group]:
    """The checks of a running graph, or one that fails where ROS 2 is not to be had; raises VlmError(BAD_REQUEST)."""
    from mobilevlm_ros.doctor.check import Group
    from mobilevlm_ros.doctor.ros import without_ros
    from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

    if not 0 < seconds <= LONGEST_WAIT:
        raise VlmError(ErrorCode.BAD_REQUEST, f"--seconds is {seconds:g}, it must be more than 0 and at most {LONGEST_WAIT:g}")
    check = without_ros()
    if check is not None:
        yield Group("graph", (check,))
        return
    from mobilevlm_ros.ros.wiring import examine_graph

    yield from examine_graph(node, seconds)


def _print(group: Group, last: str) -> None:
    """Print what was found at once: importing takes a while, and what is shown tells how far it is. `last` is the last title."""
    for number, check in enumerate(group.checks):
        title = group.title if number == 0 and group.title != last else ""
        print(f"{title:<14}  {_status(check)}  {check.name:<17}  {check.detail}{_remedy(check)}", flush=True)


def _status(check: Check) -> str:
    text = f"{check.status.value:<7}"
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\x1b[{_COLOURS[check.status.value]}m{text}\x1b[0m"


def _remedy(check: Check) -> str:
    return f"; {check.remedy}" if check.remedy else ""

"""`mobilevlm doctor`: what this machine can run, and what is missing."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from mobilevlm_ros.cli.options import Commands, add_command

if TYPE_CHECKING:
    from mobilevlm_ros.doctor.check import Check, Group

UNHEALTHY = 1
EXAMPLES = """  mobilevlm doctor
  mobilevlm doctor --json | jq -r '.checks[] | select(.status != "PASS") | .name + ": " + .remedy'
"""
_EXPLAINED = """PASS works. WARN works, but not well. MISSING is not there, and only some need it.
FAIL keeps the machine from answering; the exit code is then 1, else 0."""
_COLOURS = {"PASS": "32", "WARN": "33", "MISSING": "36", "FAIL": "31"}


def add_doctor_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the `mobilevlm` parser."""
    parser = add_command(commands, "doctor", "tell what this machine can run and what is missing", EXAMPLES, run)
    parser.description = f"{parser.description}\n{_EXPLAINED}"
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Examine and print; 1 if something that answering needs does not work."""
    from mobilevlm_ros.doctor.examine import examine, healthy

    groups = []
    for group in examine():
        groups.append(group)
        if not args.json:
            _print(group)
    if args.json:
        checks = [{"group": group.title, **asdict(check)} for group in groups for check in group.checks]
        print(json.dumps({"healthy": healthy(groups), "checks": checks}, ensure_ascii=False))
    return 0 if healthy(groups) else UNHEALTHY


def _print(group: Group) -> None:
    """Print what was found at once: importing takes a while, and what is shown tells how far it is."""
    for number, check in enumerate(group.checks):
        title = group.title if number == 0 else ""
        print(f"{title:<14}  {_status(check)}  {check.name:<17}  {check.detail}{_remedy(check)}", flush=True)


def _status(check: Check) -> str:
    text = f"{check.status.value:<7}"
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\x1b[{_COLOURS[check.status.value]}m{text}\x1b[0m"


def _remedy(check: Check) -> str:
    return f"; {check.remedy}" if check.remedy else ""

"""Runs the checks and the tests, a layer of the package at a time, and sums them up. Started by ./test.

Each layer has a process of its own, so that one which dies takes no other with it. The system tests, which wait more than they
compute, run beside the other layers and are shown at the end; as they wait for real time, the others have a lower priority.
Arguments for pytest leave the checks out.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_RESULTS = _ROOT / "test_results"
_LAYERS = (
    *("packaging", "checkpoint", "hub", "export", "finetune", "runtime", "tensorrt", "pictures", "tasks"),
    *("faithful", "space", "ros", "client", "doctor", "bench", "cli", "evaluate", "demo", "training", "system"),
)
_NO_TESTS = 5  # pytest's exit status
_NICENESS = 5
"""Of the layers beside the system tests: a quarter of the processor where both want it, as some of them have timing, too."""
_CHECKS = (
    ("ruff", ("ruff", "check", ".")),
    ("mypy", ("mypy",)),
    (
        "codespell",
        (
            "codespell",
            "mobilevlm_ros",
            "tools",
            "tests",
            "training",
            "msg",
            "launch",
            "config",
            "docs",
            "examples",
            "README.md",
            "ARCHITECTURE.md",
        ),
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What one program found. A check that fails counts as a failed test."""

    name: str
    seconds: float
    passed: int = 0
    failed: int = 0
    skipped: int = 0


def reserve_domain() -> socket.socket | None:
    """Takes a ROS domain that no other test run on this machine has, for as long as the result lives, and puts it into the
    environment of what is started from now on.

    A user's own ROS_DOMAIN_ID is kept. The reservation is a socket name without a file, which ends with the process.
    """
    if os.environ.get("ROS_DOMAIN_ID"):
        return None
    return take_domain()


def take_domain() -> socket.socket | None:
    """As `reserve_domain`, whatever the environment says."""
    for domain in range(1, 100):
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            holder.bind(f"\0mobilevlm_ros domain {domain}")
        except OSError:
            holder.close()
            continue
        os.environ["ROS_DOMAIN_ID"] = str(domain)
        return holder
    return None


def heading(text: str) -> None:
    print(f"\n=== {text} ===", flush=True)


def run_check(name: str, command: Sequence[str]) -> Outcome:
    heading(name)
    began = time.monotonic()
    present = [word for word in command if "." not in word[1:] or (_ROOT / word).exists()]
    program, *words = present
    status = subprocess.run([Path(sys.executable).with_name(program), *words], cwd=_ROOT).returncode
    seconds = time.monotonic() - began
    return Outcome(name, seconds, passed=int(status == 0), failed=int(status != 0))


def run_pytest(name: str, arguments: Sequence[str], niceness: int = 0) -> Outcome:
    """Runs pytest; a process that dies, and a collection that fails, count as one failure at least."""
    heading(f"tests: {name}")
    return Run(name, arguments, None, niceness).outcome()


class Run:
    """A pytest process that has been started; its words go to `log`, or where this process's go.

    `niceness` is by how much its priority, and that of what it starts, is below this process's.
    """

    def __init__(self, name: str, arguments: Sequence[str], log: Path | None, niceness: int = 0) -> None:
        self.name = name
        self.log = log
        self._report = _RESULTS / f"{name}.xml"
        self._report.parent.mkdir(exist_ok=True)
        self._report.unlink(missing_ok=True)
        self._began = time.monotonic()
        command = [sys.executable, "-m", "pytest", f"--junitxml={self._report}", *arguments]
        with ExitStack() as stack:
            stream = None if log is None else stack.enter_context(log.open("w", encoding="utf-8"))
            self._process = subprocess.Popen(command, cwd=_ROOT, stdout=stream, stderr=stream)
        if niceness:
            lower = os.getpriority(os.PRIO_PROCESS, 0) + niceness
            os.setpriority(os.PRIO_PROCESS, self._process.pid, lower)

    def outcome(self) -> Outcome:
        """Waits for the end."""
        try:
            status = self._process.wait()
        except BaseException:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
            raise
        return count(self.name, self._report, status, time.monotonic() - self._began)


def count(name: str, report: Path, status: int, seconds: float) -> Outcome:
    """What a pytest process found, from its report and its exit status."""
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    if report.is_file():
        for suite in ElementTree.parse(report).getroot().iter("testsuite"):
            counts = {key: counts[key] + int(suite.get(key, "0")) for key in counts}
    failed = counts["failures"] + counts["errors"]
    if failed == 0 and status not in (0, _NO_TESTS):
        failed = 1
        if status < 0:
            print(f"the test process was ended by {signal.Signals(-status).name}", flush=True)
    passed = max(0, counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"])
    return Outcome(name, seconds, passed, failed, counts["skipped"])


def layers() -> list[Path]:
    """The folders of tests/ that hold tests, in the package's order, new ones last but one: system tests end the run."""
    found = {path.name: path for path in (_ROOT / "tests").iterdir() if path.is_dir() and any(path.rglob("test_*.py"))}
    order = {name: index for index, name in enumerate(_LAYERS[:-1])}
    return [found[name] for name in sorted(found, key=lambda name: (name == _LAYERS[-1], order.get(name, len(order)), name))]


def names_tests(arguments: Sequence[str]) -> bool:
    """Whether the arguments say themselves where the tests lie."""
    paths = [(_ROOT / word.split("::")[0]).resolve() for word in arguments if not word.startswith("-")]
    return any(path.is_relative_to(_ROOT / "tests") and path.exists() for path in paths)


def run_layers(arguments: Sequence[str]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    if any(word in ("-x", "--exitfirst") or word.startswith("--maxfail") for word in arguments):
        for layer in layers():
            outcomes.append(run_pytest(layer.name, [str(layer.relative_to(_ROOT)), *arguments]))
            if outcomes[-1].failed:
                break
        return outcomes
    *others, system = layers()
    domain = os.environ.get("ROS_DOMAIN_ID")
    reservation = take_domain()  # the system tests' nodes must not meet those of other layers
    beside = Run(system.name, [str(system.relative_to(_ROOT)), *arguments], _RESULTS / f"{system.name}.log")
    if domain is not None:
        os.environ["ROS_DOMAIN_ID"] = domain
    try:
        outcomes += [run_pytest(layer.name, [str(layer.relative_to(_ROOT)), *arguments], _NICENESS) for layer in others]
    finally:
        outcomes.append(beside.outcome())
    heading(f"tests: {system.name}, which ran beside the others")
    assert beside.log is not None
    print(beside.log.read_text(encoding="utf-8"), flush=True)
    if reservation is not None:
        reservation.close()
    return outcomes


def summary(outcomes: Sequence[Outcome]) -> str:
    """A table of the outcomes that did anything, and one line of totals."""
    lines = [f"{'':12} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}"]
    for outcome in outcomes:
        if outcome.passed or outcome.failed or outcome.skipped:
            numbers = f"{outcome.passed:7d} {outcome.failed:7d} {outcome.skipped:8d} {outcome.seconds:8.1f}"
            lines.append(f"{outcome.name:12} {numbers}")
    passed, failed, skipped = (sum(getattr(o, field) for o in outcomes) for field in ("passed", "failed", "skipped"))
    lines += ["", f"{passed} passed, {failed} failed, {skipped} skipped"]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    began = time.monotonic()
    reservation = reserve_domain()  # held until the end
    given = [word for word in arguments if word != "--slow"]
    chosen = [] if "--slow" in arguments or "-m" in given else ["-m", "not slow"]
    outcomes = [] if given else [run_check(name, command) for name, command in _CHECKS]
    if names_tests(given):
        outcomes.append(run_pytest("chosen", [*chosen, *given]))
    else:
        outcomes += run_layers([*chosen, *given])
    heading("summary")
    print(f"total {time.monotonic() - began:.0f} s, ROS domain {os.environ.get('ROS_DOMAIN_ID', 'none free: the default')}")
    print(summary(outcomes), flush=True)
    if reservation is not None:
        reservation.close()
    return int(any(outcome.failed for outcome in outcomes) or not any(outcome.passed for outcome in outcomes))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)

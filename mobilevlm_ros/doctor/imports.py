"""Whether libraries can be imported, found out in processes of their own: some crash, some take the process over."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from mobilevlm_ros.doctor.check import Check, Status

_TIMEOUT = 60.0


@dataclass(frozen=True)
class Probe:
    """What came of an import: what the process printed, or in one line why it failed."""

    output: str
    error: str


def probe(module: str, expression: str = "getattr(m, '__version__', '')") -> Probe:
    """Import a module as `m` in another process of this Python, with this process's paths, and print an expression."""
    if importlib.util.find_spec(module) is None:
        return Probe("", f"No module named '{module}'")
    code = f"import sys; sys.path[:] = {sys.path!r}; import {module} as m; print({expression})"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        return Probe("", f"importing {module} takes longer than {_TIMEOUT:.0f} s")
    if done.returncode:
        return Probe("", (done.stderr.strip().splitlines() or [f"importing {module} ends with code {done.returncode}"])[-1])
    return Probe((done.stdout.strip().splitlines() or [""])[-1], "")


def installed(module: str, distributions: Sequence[str], absent: Status, remedy: str) -> Check:
    """A library that is there or not, and its version; it is not imported, which for some takes seconds.

    Args:
        distributions: names under which it may be installed.
        absent: the check's status where it is not there.
        remedy: what to do then.
    """
    if importlib.util.find_spec(module) is None:
        return Check(distributions[0], absent, "not installed", remedy)
    for name in distributions:
        try:
            return Check(distributions[0], Status.PASS, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            continue
    return Check(distributions[0], Status.PASS, "installed, version unknown")


def imported(module: str, name: str, absent: Status, remedy: str, expression: str = "getattr(m, '__version__', '')") -> Check:
    """A library that is imported to see whether it works; the check's detail is what `expression` gives."""
    found = probe(module, expression)
    return Check(name, absent, found.error, remedy) if found.error else Check(name, Status.PASS, found.output or "installed")

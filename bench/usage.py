"""Runs a program and watches how much memory it takes. Knows Linux's /proc, not what the program does."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_EVERY_SECONDS = 0.05
_KIB = 1024


@dataclass(frozen=True)
class Usage:
    """What a program took, in bytes and seconds.

    `peak_bytes` is the largest resident set, as the kernel counted it until 50 ms before the end. In it are pages of mapped
    files, which the kernel takes back where memory is short; `anonymous_bytes` is the most without them, in samples 50 ms apart.
    """

    status: int
    seconds: float
    peak_bytes: int
    anonymous_bytes: int
    output: str


def run_measured(command: Sequence[str]) -> Usage:
    """Runs `command`, which prints little, to its end; stderr is the caller's, for progress, and stdout is returned."""
    began = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        peak = anonymous = 0
        try:
            while process.poll() is None:
                # Not what wait4() tells: that begins with the size of this process, from which the other was forked.
                memory = _memory(process.pid)
                peak = max(peak, memory.get("VmHWM", 0))
                anonymous = max(anonymous, memory.get("RssAnon", 0) + memory.get("RssShmem", 0))
                time.sleep(_EVERY_SECONDS)
        except BaseException:
            process.kill()
            raise
        assert process.stdout is not None
        output = process.stdout.read()
    return Usage(process.returncode, time.monotonic() - began, peak, anonymous, output)


def _memory(pid: int) -> dict[str, int]:
    """The sizes in a process's status, in bytes; nothing once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) * _KIB for line in lines if line.endswith(" kB")}

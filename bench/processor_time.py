"""The processor time and the memory that another process has taken so far, from Linux's /proc."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_TRANSPORT = "dds."
"""How the names of Fast DDS's threads begin."""


@dataclass(frozen=True)
class ProcessorTime:
    """Milliseconds on a processor since the start: of the middleware's threads, and of all others."""

    own_ms: float
    transport_ms: float


class ThreadClock:
    """Reads a process's threads, to the nanosecond."""

    def __init__(self, pid: int) -> None:
        self._tasks = Path(f"/proc/{pid}/task")
        self._names: dict[str, str] = {}
        self._seen: dict[str, int] = {}

    def read(self) -> ProcessorTime:
        """The time until now; threads that have ended since keep what they had at the last look.

        Raises:
            OSError: the process has ended.
        """
        for task in self._tasks.iterdir():
            try:
                if task.name not in self._names:
                    self._names[task.name] = (task / "comm").read_text(encoding="utf-8", errors="replace")
                self._seen[task.name] = int((task / "schedstat").read_text(encoding="ascii").split()[0])
            except (FileNotFoundError, ProcessLookupError):  # a thread that has just ended
                continue
        transport = sum(spent for task, spent in self._seen.items() if self._names[task].startswith(_TRANSPORT))
        return ProcessorTime((sum(self._seen.values()) - transport) / 1e6, transport / 1e6)


def anonymous_bytes(pid: int) -> int:
    """The memory that a process has for itself, without mapped files and shared segments.

    Raises:
        OSError: the process has ended.
    """
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has ended")

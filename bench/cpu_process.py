"""The processes that hold the engines: started, asked one at a time, watched, ended. Knows Linux's /proc."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from bench.cpu_stages import BenchError, Stage

_EVERY_SECONDS = 0.05
_KIB = 1024
_GRACE_SECONDS = 10


@dataclass(frozen=True)
class Memory:
    """The most memory that a process had, in bytes.

    `resident` is the kernel's own count (VmHWM); `anonymous` and `mapped` are the most of each kind in samples 50 ms apart. The
    kernel can take mapped pages of files back, and processes share them.
    """

    resident: int = 0
    anonymous: int = 0
    mapped: int = 0


class EngineProcess:
    """An engine in a process of its own; a context manager. The process rests while it is not asked.

    Attributes:
        load_ms: how long loading took, Python's start and imports left out.
        bytes_per_token: as in `Subject`.
        since_start: seconds from the process's start to the end of the last answer.
        memory: the most so far, sampled while it is waited for.

    Raises:
        BenchError: the engine does not load, or died.
    """

    def __init__(self, engine: str, work: Path, threads: int) -> None:
        self.engine = engine
        self.memory = Memory()
        command = [sys.executable, "-m", "bench.cpu_worker", engine, "--work", str(work), "--threads", str(threads)]
        self._started = time.perf_counter()
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._log = f"{engine}: the process ended"
        try:
            ready = self._answer()
        except BaseException:
            self.close()
            raise
        self.load_ms: float = ready["load_ms"]
        self.bytes_per_token: int = ready["bytes_per_token"]

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def run(self, stage: Stage, seed: int) -> float:
        """Do a stage with the picture of that seed; returns its milliseconds."""
        stream = self._pipe(self._process.stdin)
        try:
            stream.write(f"{stage.value} {seed}\n")
            stream.flush()
        except BrokenPipeError:
            raise BenchError(self._log) from None
        return float(self._answer()["ms"])

    def processor_seconds(self) -> float:
        """Processor time that the process has taken so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the process. May be called more than once."""
        with suppress(BrokenPipeError):
            self._pipe(self._process.stdin).close()
        try:
            self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._pipe(self._process.stdout).close()

    def _answer(self) -> dict[str, Any]:
        stream = self._pipe(self._process.stdout)
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while not selector.select(_EVERY_SECONDS):
                self._look_at_memory()
        line = stream.readline()
        self.since_start = time.perf_counter() - self._started
        self._look_at_memory()
        if not line:
            raise BenchError(f"{self._log} with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{self.engine}: {answer['error']}")
        return answer

    def _look_at_memory(self) -> None:
        try:
            lines = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8").splitlines()
        except OSError:
            return
        now = {line.split(":")[0]: int(line.split()[1]) * _KIB for line in lines if line.endswith(" kB")}
        anonymous = now.get("RssAnon", 0) + now.get("RssShmem", 0)
        known = self.memory
        self.memory = Memory(
            max(known.resident, now.get("VmHWM", 0)), max(known.anonymous, anonymous), max(known.mapped, now.get("RssFile", 0))
        )

    @staticmethod
    def _pipe(stream: IO[str] | None) -> IO[str]:
        assert stream is not None
        return stream

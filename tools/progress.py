"""What set-up shows while it works, and how it runs other programs. It knows nothing of what those programs do."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_QUIET_SECONDS = 20.0  # where there is no terminal, a sign of life this often
_TAIL_LINES = 15  # of a failed program's output


class SetupError(Exception):
    """Set-up cannot go on; the text says why and what to do."""


class Progress:
    """One line a step: seconds since the start, the step, and how long it took.

    On a terminal the line is alive; elsewhere it is printed at the step's start and end, with a sign of life between.
    """

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._terminal = sys.stdout.isatty()
        self._detail = ""

    def seconds(self) -> float:
        """Seconds since this object was made."""
        return time.monotonic() - self._start

    def say(self, text: str) -> None:
        """Prints a line of its own."""
        clear = "\r\033[K" if self._terminal else ""
        print(f"{clear}[{self.seconds():4.0f} s] {text}", flush=True)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Shows `title` for as long as the block runs."""
        began = time.monotonic()
        self._detail = ""
        ended = threading.Event()
        if not self._terminal:
            self.say(f"{title} ...")
        ticker = threading.Thread(target=self._tick, args=(title, began, ended), daemon=True)
        ticker.start()
        try:
            yield
        finally:
            ended.set()
            ticker.join()
        self.say(f"{title}: done in {time.monotonic() - began:.0f} s")

    def run(self, command: Sequence[str], log: Path, env: Mapping[str, str], keep_open: Sequence[int] = ()) -> None:
        """Runs a program with its output in `log`; raises SetupError with the output's end if it fails.

        `keep_open` are file descriptors that the program inherits.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        with (
            log.open("a", encoding="utf-8") as sink,
            subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(env),
                pass_fds=tuple(keep_open),
                text=True,
                errors="replace",
            ) as process,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                sink.write(line)
                if line.strip():
                    tail.append(line.rstrip())
                    self._detail = line.strip()
        if process.returncode != 0:
            shown = "\n".join(f"    {line}" for line in tail)
            name = Path(command[0]).name
            raise SetupError(f"{name} failed with status {process.returncode}; all of its output: {log}\n{shown}")

    def _tick(self, title: str, began: float, ended: threading.Event) -> None:
        while not ended.wait(0.2 if self._terminal else _QUIET_SECONDS):
            line = f"{title}, {time.monotonic() - began:.0f} s  {self._detail}"[:100]
            if self._terminal:
                print(f"\r\033[K[{self.seconds():4.0f} s] {line}", end="", flush=True)
            else:
                self.say(line)

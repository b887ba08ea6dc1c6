"""The demo's child processes: started with an environment of their own, and always ended before their parent."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from mobilevlm_ros.ros.dds import profile_variables

STOP_SECONDS = 8.0


class Child:
    """One process of this Python. A context manager that ends the process."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """
        Args:
            module: run with `python -m`.
            log: where its stderr goes, and its stdout unless `on_line` takes it.
            on_line: called for each line of its stdout, in a thread of its own.
        """
        self.name = module
        self._log = log.open("wb")
        # In a session of its own, so that Ctrl-C in a terminal reaches the parent alone, which ends its children in order.
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if on_line else self._log,
            stderr=self._log,
            env=dict(environment),
            start_new_session=True,
        )
        self._reader: threading.Thread | None = None
        if on_line is not None:
            self._reader = threading.Thread(target=self._read, args=(on_line,), daemon=True)
            self._reader.start()

    @property
    def ended(self) -> int | None:
        """The exit code, or None while the process runs."""
        return self._process.poll()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def stop(self) -> int:
        """Ends the process with SIGINT, with SIGKILL where that does not help; returns its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        code = self._process.wait()
        if self._reader is not None:
            self._reader.join()
        self._log.close()
        return code

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _read(self, on_line: Callable[[str], None]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            on_line(line.decode(errors="replace").rstrip("\n"))


def use_own_graph() -> None:
    """Gives this process and its children a ROS graph that nobody else on this machine or network sees."""
    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 100))
    if os.environ.get("ROS_DISTRO") == "humble":
        os.environ["ROS_LOCALHOST_ONLY"] = "1"
    else:
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


def use_large_images() -> None:
    """Gives this process and its children the shipped Fast DDS profile; before the first ROS node is made."""
    os.environ.update(profile_variables(os.environ))

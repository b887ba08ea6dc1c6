"""Who wants a camera's pictures, and since when nobody does. Opens and closes nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Demand:
    """The uses of one camera. Safe to use from any thread.

    `use()` is for one picture now: it counts as wanted for the node's `camera_linger` seconds. `hold()` is for pictures over a
    time, such as those of a standing query: the camera is wanted for as long as the block runs.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._last = time.monotonic()
        self._tell: Callable[[], None] = lambda: None

    def tell(self, listener: Callable[[], None]) -> None:
        """Has `listener` called in the user's thread each time that somebody begins to want pictures."""
        self._tell = listener

    def use(self) -> None:
        """Somebody wants a picture now."""
        self._last = time.monotonic()
        self._tell()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Somebody wants pictures until the block ends."""
        with self._lock:
            self._holders += 1
        try:
            self.use()
            yield
        finally:
            with self._lock:
                self._last = time.monotonic()
                self._holders -= 1

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last use; 0 while somebody holds."""
        with self._lock:
            return 0.0 if self._holders else time.monotonic() - self._last

"""Who may enter: a bounded number of requests, and only while the node is active.

A request that may not enter is told so at once, so that no thread of the node's pool ever waits for room. Knows nothing of ROS,
pictures or the model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.requests import CancelToken


class Gate:
    """Counts the requests inside and can send all of them away. Safe to use from any thread."""

    def __init__(self) -> None:
        self._limit = 0
        self._closed_because = "the node has not been activated yet"
        self._open = False
        self._inside: set[CancelToken] = set()
        self._changed = threading.Condition()

    @property
    def inside(self) -> int:
        """How many requests are inside."""
        return len(self._inside)

    def open(self, limit: int) -> None:
        """Lets up to `limit` requests in at a time."""
        with self._changed:
            self._limit = limit
            self._open = True

    def close(self, because: str) -> None:
        """Lets nobody in any more and takes back every request inside.

        Args:
            because: what later requests are told.
        """
        with self._changed:
            self._open = False
            self._closed_because = because
            for token in self._inside:
                token.cancel()

    def wait_until_empty(self, timeout: float) -> bool:
        """Returns whether the last request left within `timeout` seconds."""
        end = time.monotonic() + timeout
        with self._changed:
            while self._inside:
                remaining = end - time.monotonic()
                if remaining <= 0:
                    return False
                self._changed.wait(remaining)
            return True

    @contextmanager
    def enter(self, cancel: CancelToken) -> Iterator[None]:
        """Is inside for as long as the block runs; `close` cancels `cancel`.

        Raises:
            VlmError: NOT_ACTIVE or BUSY.
        """
        with self._changed:
            if not self._open:
                raise VlmError(ErrorCode.NOT_ACTIVE, f"the node is not active: {self._closed_because}")
            if len(self._inside) >= self._limit:
                raise VlmError(ErrorCode.BUSY, f"{self._limit} requests are being served or waiting already")
            self._inside.add(cancel)
        try:
            yield
        finally:
            with self._changed:
                self._inside.discard(cancel)
                self._changed.notify_all()

"""Who may enter: a bounded number of requests, and only while the node is active.

A request that may not enter is told so at once, so that no thread of the node's pool ever waits for room. What somebody asks goes
before what the node asks by itself: standing questions take none of the requests' places, leave one of the model's free where it
has several, and are taken back as soon as a request needs theirs. Knows nothing of ROS, pictures or the model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.requests import CancelToken


class Entrant(Enum):
    """Who wants to enter."""

    REQUEST = "somebody's request"
    STANDING = "the node's own standing question"


class Gate:
    """Counts the requests inside and can send all of them away. Safe to use from any thread."""

    def __init__(self) -> None:
        self._limit = 0
        self._at_once = 1
        self._closed_because = "the node has not been activated yet"
        self._open = False
        self._requests: set[CancelToken] = set()
        self._standing: dict[CancelToken, None] = {}  # in the order in which they came
        self._changed = threading.Condition()

    @property
    def inside(self) -> int:
        """How many requests are inside."""
        return len(self._requests) + len(self._standing)

    def open(self, limit: int, at_once: int = 1) -> None:
        """Lets up to `limit` requests in at a time, of which the model answers `at_once` together."""
        with self._changed:
            self._limit = limit
            self._at_once = at_once
            self._open = True

    def close(self, because: str) -> None:
        """Lets nobody in any more and takes back every request inside.

        Args:
            because: what later requests are told.
        """
        with self._changed:
            self._open = False
            self._closed_because = because
            for token in (*self._requests, *self._standing):
                token.cancel()

    def wait_until_empty(self, timeout: float) -> bool:
        """Returns whether the last request left within `timeout` seconds."""
        end = time.monotonic() + timeout
        with self._changed:
            while self.inside:
                remaining = end - time.monotonic()
                if remaining <= 0:
                    return False
                self._changed.wait(remaining)
            return True

    @contextmanager
    def enter(self, cancel: CancelToken, entrant: Entrant = Entrant.REQUEST) -> Iterator[None]:
        """Is inside while the block runs. `close` cancels `cancel`, and so does a request that needs a standing one's place.

        Raises:
            VlmError: NOT_ACTIVE or BUSY.
        """
        with self._changed:
            if not self._open:
                raise VlmError(ErrorCode.NOT_ACTIVE, f"the node is not active: {self._closed_because}")
            if entrant is Entrant.STANDING:
                self._enter_standing(cancel)
            else:
                self._enter_request(cancel)
        try:
            yield
        finally:
            with self._changed:
                self._requests.discard(cancel)
                self._standing.pop(cancel, None)
                self._changed.notify_all()

    def _enter_request(self, cancel: CancelToken) -> None:
        if len(self._requests) >= self._limit:
            raise VlmError(ErrorCode.BUSY, f"{self._limit} requests are being served or waiting already")
        self._requests.add(cancel)
        staying = [token for token in self._standing if not token.cancelled]
        if staying and len(self._requests) + len(staying) > self._at_once:
            staying[-1].cancel()

    def _enter_standing(self, cancel: CancelToken) -> None:
        if self.inside >= max(1, self._at_once - 1):
            raise VlmError(ErrorCode.BUSY, f"{self.inside} requests are being served already")
        self._standing[cancel] = None

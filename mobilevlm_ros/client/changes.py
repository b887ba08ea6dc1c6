"""How threads, asyncio and rclpy's coroutines wait for what another thread brings about. Knows no requests and no messages."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress

Listener = Callable[[], None]

_LONG = 3600.0
"""Seconds after which a wait without end is begun anew, because asyncio wants a finite one."""


class Changes:
    """Tells those who wait that something has changed. Safe to use from any thread."""

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()
        self._lock = threading.Lock()

    def tell(self) -> None:
        """Calls every listener in the calling thread; a listener only wakes somebody up."""
        for listener in self._listeners:
            listener()

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Has `listener` called at each change for as long as the block runs."""
        with self._lock:
            self._listeners = (*self._listeners, listener)
        try:
            yield
        finally:
            with self._lock:
                self._listeners = tuple(other for other in self._listeners if other is not listener)

    async def until(self, condition: Callable[[], bool], deadline: float) -> bool:
        """Waits for a condition without blocking a thread; returns whether it came true.

        In asyncio the loop is woken when something changes. A coroutine that an rclpy executor runs hands back to the executor,
        which asks again at once, as with rclpy's own futures: that keeps one core busy for as long as it takes.

        Args:
            deadline: `time.monotonic` seconds.
        """
        loop = _asyncio_loop()
        if loop is None:
            while not condition() and time.monotonic() < deadline:
                await _HandBack()
            return condition()
        changed = loop.create_future()

        def settle() -> None:
            if not changed.done():
                changed.set_result(None)

        def wake() -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle)

        with self.listening(wake):
            while not condition():
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                # Not asyncio.wait_for, which up to Python 3.11 may swallow a task's cancellation.
                await asyncio.wait({changed}, timeout=min(remaining, _LONG))
                if changed.done():
                    changed = loop.create_future()
        return True


class _HandBack:
    """Awaiting it gives an rclpy executor the turn once."""

    def __await__(self) -> Generator[None, None, None]:
        yield


def _asyncio_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None

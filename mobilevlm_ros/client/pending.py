"""A request on its way: what a call that returns at once gives back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

from mobilevlm_ros.client.changes import Changes
from mobilevlm_ros.client.errors import ClientUsageError
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

T = TypeVar("T")


class Pending(Generic[T]):
    """A request on its way, to be awaited, asked from time to time, or given a callback. Safe to use from any thread.

    `await` works in asyncio and in a coroutine that an rclpy executor runs. None of the methods blocks.
    """

    def __init__(self, deadline: float, overdue: Callable[[], str]) -> None:
        """
        Args:
            deadline: `time.monotonic` seconds after which the request has failed with DEADLINE_EXCEEDED.
            overdue: says what has not happened by then, in one line.
        """
        self.changes = Changes()
        self.deadline = deadline
        self._overdue = overdue
        self._lock = threading.Lock()
        self._value: list[T] = []
        self._error: VlmError | None = None
        self._callbacks: list[Callable[[Pending[T]], None]] = []
        self._forget: Callable[[], None] | None = None
        self._timer: threading.Timer | None = None

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        if not self._ended and time.monotonic() >= self.deadline:
            self.fail(VlmError(ErrorCode.DEADLINE_EXCEEDED, self._overdue()))
        return self._ended

    def result(self) -> T:
        """Returns what was asked for.

        Raises:
            VlmError: it has failed.
            ClientUsageError: it is on its way still.
        """
        if not self.done():
            raise ClientUsageError("the request is on its way still: await it, or look at done() first")
        if self._error is not None:
            raise self._error
        return self._value[0]

    @property
    def error(self) -> VlmError | None:
        """Why it has failed; None while it is on its way and where it ended well."""
        return self._error

    def cancel(self) -> None:
        """Waits no longer: it ends with CANCELLED. A service knows no cancel, so the node goes on with it until its timeout."""
        self.fail(VlmError(ErrorCode.CANCELLED, "the request was taken back"))

    def add_done_callback(self, callback: Callable[[Pending[T]], None]) -> None:
        """Has `callback` called with this when it ends, in the thread that ends it, and at once where it has ended."""
        with self._lock:
            waits = not self._ended
            if waits:
                self._callbacks.append(callback)
                if self._timer is None:  # so that it ends also where the node never answers
                    self._timer = threading.Timer(max(0.0, self.deadline - time.monotonic()) + 0.001, self.done)
                    self._timer.daemon = True
                    self._timer.start()
        if not waits:
            callback(self)

    def __await__(self) -> Generator[Any, None, T]:
        return self._settled().__await__()

    def succeed(self, value: T) -> None:
        """Ends it with a value, unless it has ended."""
        self._end(value, None)

    def fail(self, error: VlmError) -> None:
        """Ends it with an error, unless it has ended."""
        self._end(None, error)

    def forget_with(self, forget: Callable[[], None]) -> None:
        """Has `forget` called at the end, to let go of what still waits for the answer."""
        with self._lock:
            self._forget = forget
            ended = self._ended
        if ended:
            forget()

    @property
    def _ended(self) -> bool:
        return self._error is not None or bool(self._value)

    def _end(self, value: T | None, error: VlmError | None) -> None:
        with self._lock:
            if self._ended:
                return
            if error is not None:
                self._error = error
            else:
                self._value.append(value)  # type: ignore[arg-type]
            callbacks, self._callbacks = self._callbacks, []
            forget, timer = self._forget, self._timer
        if timer is not None:
            timer.cancel()
        if forget is not None:
            forget()
        self.changes.tell()
        for callback in callbacks:
            callback(self)

    async def _settled(self) -> T:
        try:
            await self.changes.until(self.done, self.deadline)
        except BaseException:  # the coroutine that awaits it was cancelled or closed
            self.cancel()
            raise
        return self.result()

"""An answer of a conversation as it comes: an iterator over its pieces of text, for threads and for coroutines."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from types import TracebackType

from mobilevlm_ros.client.connection import GRACE
from mobilevlm_ros.client.results import Answer
from mobilevlm_ros.client.turn import Turn
from mobilevlm_ros.client.waiting import Waiter


class _Stream:
    """What both kinds tell."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    @property
    def answer(self) -> Answer | None:
        """The answer as the node gave it, also where it is not whole; None before the end."""
        return self._turn.answer

    @property
    def session(self) -> str:
        """Name under which the conversation goes on; known after the end."""
        return self._turn.session

    @property
    def turns(self) -> int:
        """How many earlier turns the answer took into account; known after the end. 0 too where the session was forgotten."""
        return self._turn.turns

    @property
    def turns_left_out(self) -> int:
        """How many earlier turns did not fit the model's context, the oldest; known after the end."""
        return self._turn.turns_left_out


class ChatStream(_Stream):
    """An answer on its way, for a thread that may block: iterate over it, or ask for its `text`.

    `close` takes the message back. So do the end of a `with` block, an exception such as KeyboardInterrupt in a `for` loop, and a
    loop that is left early and forgotten.
    """

    def __init__(self, turn: Turn, waiter: Waiter) -> None:
        """Waits until the node has taken the message; raises VlmError where it does not."""
        super().__init__(turn)
        self._waiter = waiter
        self._closed = False
        waiter.until(turn.accepted, turn.changes, turn.deadline)
        if turn.done() and turn.answer is None:
            turn.raise_error()

    def __iter__(self) -> Iterator[str]:
        """Yields the pieces as they come; raises VlmError at the end where the answer is not whole."""
        try:
            while (piece := self._next()) is not None:
                yield piece
            self._turn.raise_error()
        finally:
            self.close()

    def __enter__(self) -> ChatStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def text(self) -> str:
        """Waits for the end and returns the whole answer's text; raises VlmError as iterating does."""
        for _ in self:
            pass
        assert self.answer is not None
        return self.answer.text

    def close(self) -> None:
        """Takes the message back if its answer has not ended, and waits for its end. May be called more than once."""
        if self._closed:
            return
        self._closed = True
        ended = self._turn.done()
        self._turn.cancel()
        if not ended:
            self._waiter.see_off(self._turn.done, self._turn.changes, max(time.monotonic() + GRACE, self._turn.deadline))

    def _next(self) -> str | None:
        """Waits for the next piece and returns it; None at the end."""
        self._waiter.until(self._turn.has_news, self._turn.changes, self._turn.deadline)
        return self._turn.take() if self._turn.has_news() else None


class AsyncChatStream(_Stream):
    """An answer on its way, for coroutines and callbacks: `async for` its pieces, await its `text`, or `take` what has come.

    Works in asyncio and in a coroutine that an rclpy executor runs. Nothing blocks. `cancel` takes the message back; so do the
    cancellation of the task that reads, and an `async for` loop that is left early.
    """

    def done(self) -> bool:
        """Whether the answer has ended, in whatever way."""
        return self._turn.done()

    def take(self) -> str:
        """Returns the text that has come since the last look; raises VlmError where the answer has ended and is not whole."""
        ended = self._turn.done()
        pieces = ""
        while (piece := self._turn.take()) is not None:
            pieces += piece
        if ended and not pieces:
            self._turn.raise_error()
        return pieces

    def cancel(self) -> None:
        """Takes the message back if its answer has not ended; the node stops at its next word."""
        self._turn.cancel()

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yields the pieces as they come; raises VlmError at the end where the answer is not whole."""
        turn = self._turn
        try:
            while await turn.changes.until(turn.has_news, turn.deadline):
                if (piece := turn.take()) is None:
                    break
                yield piece
            turn.done()
            turn.raise_error()
        finally:
            turn.cancel()

    async def text(self) -> str:
        """Waits for the end and returns the whole answer's text; raises VlmError as iterating does."""
        async for _ in self:
            pass
        assert self.answer is not None
        return self.answer.text

"""One message of a conversation and its answer on the way: fed by the action's callbacks, read by whoever asks. Never blocks."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

from mobilevlm_msgs.action import Chat

from mobilevlm_ros.client.changes import Changes
from mobilevlm_ros.client.connection import GRACE, Connection
from mobilevlm_ros.client.results import Answer, answer_of, code_of
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError


class Turn:
    """A goal of the chat action from its sending to its end. Safe to use from any thread.

    Attributes:
        session: name under which the conversation goes on; known at the end where the goal names none.
        answer: set at the end, also where the answer is not whole.
        turns: earlier turns that the answer took into account.
        turns_left_out: earlier turns of the session that did not fit the model's context beside the message.
    """

    def __init__(self, connection: Connection, goal: Chat.Goal, timeout: float) -> None:
        """Sends the goal, as soon as the node is there."""
        client = connection.chat
        self.changes = Changes()
        patience = timeout + GRACE + connection.patience_for(client.server_is_ready)
        self.deadline = time.monotonic() + patience
        self.session: str = goal.session
        self.answer: Answer | None = None
        self.turns = self.turns_left_out = 0
        self._connection = connection
        self._lock = threading.Lock()
        self._pieces: deque[str] = deque()
        self._came = ""
        self._handle: Any = None
        self._error: VlmError | None = None
        self._ended = False
        self._taken_back = False
        self._cancel_sent = False

        def send() -> None:
            sent = client.send_goal_async(goal, feedback_callback=self._on_feedback)
            sent.add_done_callback(self._on_response)

        connection.when_there(client.server_is_ready, send, self._fail)

    def accepted(self) -> bool:
        """Whether the node has taken the message, or it has ended without."""
        return self._handle is not None or self.done()

    def done(self) -> bool:
        """Whether it has ended; pieces may be left to read."""
        if not self._ended and time.monotonic() >= self.deadline:
            self.cancel()
            words = f"the node did not end its answer in time{self._connection.waiter.says_who_spins()}"
            self._fail(VlmError(ErrorCode.DEADLINE_EXCEEDED, words))
        return self._ended

    def has_news(self) -> bool:
        """Whether there is a piece to take, or none will come any more."""
        return bool(self._pieces) or self.done()

    def take(self) -> str | None:
        """Returns the next piece; None where there is none."""
        with self._lock:
            return self._pieces.popleft() if self._pieces else None

    def raise_error(self) -> None:
        """Raises VlmError where it ended without a whole answer."""
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        """Takes the message back, unless it has ended: the node stops at its next word. Returns at once."""
        with self._lock:
            self._taken_back = True
        self._send_cancel()

    def _send_cancel(self) -> None:
        """Sends the cancel once, when it is wanted and the node has taken the goal."""
        with self._lock:
            due = self._taken_back and self._handle is not None and not self._ended and not self._cancel_sent
            self._cancel_sent = self._cancel_sent or due
        if due:
            self._handle.cancel_goal_async()

    def _on_response(self, future: Any) -> None:
        handle = future.result()
        if not handle.accepted:
            self._fail(VlmError(ErrorCode.BUSY, "the node did not accept the message"))
            return
        with self._lock:
            self._handle = handle
        handle.get_result_async().add_done_callback(self._on_result)
        self._send_cancel()
        self.changes.tell()

    def _on_feedback(self, message: Any) -> None:
        text = message.feedback.text
        with self._lock:
            if not self._ended:
                self._pieces.append(text)
                self._came += text
        self.changes.tell()

    def _on_result(self, future: Any) -> None:
        result = future.result().result
        with self._lock:
            if self._ended:
                return
            # The result may overtake the last pieces, which come on a topic of their own.
            if missing := result.answer.text[len(self._came.lstrip()) :]:
                self._pieces.append(missing)
            self.answer = answer_of(result.answer)
            self.session = result.session
            self.turns, self.turns_left_out = result.turns, result.turns_left_out
            if result.error_code != ErrorCode.NONE:
                self._error = VlmError(code_of(result.error_code), result.error_msg)
            self._ended = True
        self.changes.tell()

    def _fail(self, error: VlmError) -> None:
        with self._lock:
            if self._ended:
                return
            self._error = error
            self._ended = True
        self.changes.tell()

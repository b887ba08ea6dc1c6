"""The chat action: a message in, its answer streamed as feedback, and a conversation that goes on.

A goal ends with `succeeded` for a whole answer, `canceled` where its client took it back, and `aborted` for every other error;
the result carries the error code and the text so far in each case. A turn becomes part of the conversation only when its answer
is whole.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mobilevlm_msgs.action import Chat
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node

from mobilevlm_ros.ros import qos
from mobilevlm_ros.ros.camera import Snapshot
from mobilevlm_ros.ros.desk import Desk, Job
from mobilevlm_ros.ros.messages import Outcome, answer_message
from mobilevlm_ros.ros.model import Model, OnText
from mobilevlm_ros.ros.outputs import Outputs
from mobilevlm_ros.ros.sessions import Session, Sessions
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.prompt import Turn
from mobilevlm_ros.tasks import Answer, Settings

RESULT_SECONDS = 60
"""How long a goal's result is kept for a client that asks late; with rclpy's own 900 a busy node would hold thousands."""

FEEDBACK_INTERVAL = 0.01
"""Seconds between two feedback messages of a goal, so that a fast model does not overrun its client's queue of ten."""


class ChatServer:
    """Serves `~/chat`. Goals run side by side, each blocking one thread of the executor."""

    def __init__(self, node: Node, group: CallbackGroup, desk: Desk, outputs: Outputs, sessions: Sessions) -> None:
        """Args: group: a reentrant one, on an executor with a thread for each request that the desk admits."""
        self._desk = desk
        self._outputs = outputs
        self._sessions = sessions
        self._goals: dict[bytes, _Goal] = {}
        self._changed = threading.Condition()
        self._server = ActionServer(
            node,
            Chat,
            "~/chat",
            execute_callback=self._execute,
            handle_accepted_callback=self._accepted,
            cancel_callback=self._cancel,
            callback_group=group,
            feedback_pub_qos_profile=qos.stream(),
            result_timeout=RESULT_SECONDS,
        )

    def wait_until_idle(self, timeout: float) -> bool:
        """Returns whether every goal has its result within `timeout` seconds; close the gate before."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._goals, timeout)

    def _accepted(self, goal: ServerGoalHandle) -> None:
        with self._changed:
            self._goals.setdefault(_key(goal), _Goal())
        goal.execute()

    def _cancel(self, goal: ServerGoalHandle) -> CancelResponse:
        with self._changed:
            if not goal.is_active:
                return CancelResponse.REJECT
            # Clients hear that their goal is accepted before `_accepted` is called, so a cancel may come first.
            known = self._goals.setdefault(_key(goal), _Goal())
            if known.is_ending:
                return CancelResponse.REJECT
            known.taken_back = True
        known.job.cancel.cancel()
        return CancelResponse.ACCEPT

    def _execute(self, goal: ServerGoalHandle) -> Chat.Result:
        known = self._goals[_key(goal)]
        try:
            return self._serve(goal, known)
        finally:
            with self._changed:
                del self._goals[_key(goal)]
                self._changed.notify_all()

    def _serve(self, goal: ServerGoalHandle, known: _Goal) -> Chat.Result:
        feedback = _Feedback(goal)
        outcome, session = self._converse(goal.request, known.job, feedback)
        feedback.flush()
        result = _result(outcome, goal.request.message, session)
        self._outputs.answer(result.answer, known.job.snapshot)
        with self._changed:
            known.is_ending = True
        if known.taken_back:
            _wait_for_cancel_request(goal)
        _end(goal, outcome.error)
        return result

    def _converse(self, request: Chat.Goal, job: Job, on_text: OnText) -> tuple[Outcome[Answer], str]:
        """Serves one turn; returns its outcome and the conversation's name."""
        try:
            with self._sessions.use(request.session) as session:
                job.same = session.snapshot

                def task(model: Model, snapshot: Snapshot, settings: Settings) -> Answer:
                    return model.chat(snapshot.frame, session.turns, request.message, settings, on_text)

                outcome: Outcome[Answer] = self._desk.serve(request.options, task, job)
                _remember(session, request.message, outcome, job)
                return outcome, session.name
        except VlmError as error:
            return Outcome(None, error.code, error.message), request.session


@dataclass
class _Goal:
    """A goal that has no result yet; whether its client has taken it back, and whether it is too late for that."""

    job: Job = field(default_factory=Job)
    taken_back: bool = False
    is_ending: bool = False


class _Feedback:
    """Passes pieces of text on to a goal's client. Pieces that follow one another too closely go together."""

    def __init__(self, goal: ServerGoalHandle) -> None:
        self._goal = goal
        self._held = ""
        self._pieces = 0
        self._sent = 0.0

    def __call__(self, text: str) -> None:
        """Takes the next piece."""
        self._held += text
        self._pieces += 1
        if time.monotonic() - self._sent >= FEEDBACK_INTERVAL:
            self.flush()

    def flush(self) -> None:
        """Sends what is held back."""
        if self._held:
            self._goal.publish_feedback(Chat.Feedback(text=self._held, tokens=self._pieces))
            self._held = ""
            self._sent = time.monotonic()


def _remember(session: Session, message: str, outcome: Outcome[Answer], job: Job) -> None:
    if outcome.result is not None and outcome.error is ErrorCode.NONE:
        session.turns.append(Turn(message, outcome.result.text))
        session.snapshot = job.snapshot


def _result(outcome: Outcome[Answer], message: str, session: str) -> Chat.Result:
    result = Chat.Result(answer=answer_message(outcome, message), session=session)
    result.error_code, result.error_msg = result.answer.error_code, result.answer.error_msg
    if outcome.result is not None:
        result.turns, result.turns_left_out = outcome.result.turns, outcome.result.turns_left_out
    return result


def _wait_for_cancel_request(goal: ServerGoalHandle, timeout: float = 1.0) -> None:
    """Waits until rclpy has marked the goal as being cancelled, which it does only after the cancel callback's return."""
    end = time.monotonic() + timeout
    while not goal.is_cancel_requested and time.monotonic() < end:
        time.sleep(0.002)


def _end(goal: ServerGoalHandle, error: ErrorCode) -> None:
    """Brings the goal to its final state."""
    transition: Callable[[], None] = goal.abort
    if error is ErrorCode.NONE:
        transition = goal.succeed
    elif error is ErrorCode.CANCELLED and goal.is_cancel_requested:
        transition = goal.canceled
    transition()


def _key(goal: ServerGoalHandle) -> bytes:
    return bytes(goal.goal_id.uuid)

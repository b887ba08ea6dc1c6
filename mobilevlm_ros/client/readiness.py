"""Whether the MobileVLM node is there and active, and what is missing where it is not."""

from __future__ import annotations

import threading
import time

from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState

from mobilevlm_ros.client.connection import GRACE, Connection
from mobilevlm_ros.client.pending import Pending
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

_PAUSE = 0.1
"""Seconds between two questions for the state."""

_ADVICE = {
    State.PRIMARY_STATE_UNCONFIGURED: "its log says why, or `ros2 lifecycle set {0} configure` loads its model",
    State.PRIMARY_STATE_INACTIVE: "`ros2 lifecycle set {0} activate` makes it answer",
    State.PRIMARY_STATE_FINALIZED: "start it again",
}


def ready(connection: Connection, timeout: float | None) -> Pending[None]:
    """Returns what is done when the node is active; it fails with NOT_ACTIVE, and what is missing, after `timeout` seconds.

    Args:
        timeout: None: the connection's own.
    """
    patience = connection.connect_timeout if timeout is None else timeout
    pending: Pending[None] = Pending(time.monotonic() + patience + GRACE, lambda: connection.absence(patience))
    threading.Thread(target=_watch, args=(connection, patience, pending), name="mobilevlm-ready", daemon=True).start()
    return pending


def _watch(connection: Connection, patience: float, pending: Pending[None]) -> None:
    end = time.monotonic() + patience
    while not pending.done():
        missing = _missing(connection, patience, end)
        if missing is None:
            pending.succeed(None)
        elif time.monotonic() >= end or not connection.node.context.ok():
            pending.fail(VlmError(ErrorCode.NOT_ACTIVE, missing))
        else:
            time.sleep(_PAUSE)


def _missing(connection: Connection, patience: float, end: float) -> str | None:
    """Blocks until it is known what is missing; None where nothing is."""
    for is_there in (connection.state.service_is_ready, connection.ask.service_is_ready, connection.chat.server_is_ready):
        if not connection.wait_until(is_there, end - time.monotonic()):
            return connection.absence(patience)
    # Short, because an answer is lost where the node has not discovered the client yet that it is for.
    seconds = min(1.0, max(0.1, end - time.monotonic()))
    asked = connection.request(connection.state, GetState.Request(), seconds - GRACE, lambda response: response.current_state)
    answered = threading.Event()
    asked.add_done_callback(lambda _: answered.set())
    answered.wait()
    if asked.error is not None:
        return f"the node '{connection.name}' does not tell its state{connection.waiter.says_who_spins()}"
    state = asked.result()
    if state.id == State.PRIMARY_STATE_ACTIVE:
        return None
    advice = _ADVICE.get(state.id, "wait until it has changed its state").format(connection.name)
    return f"the node '{connection.name}' is {state.label}, not active: {advice}"

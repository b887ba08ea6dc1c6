"""Blocking calls: waiting for what a node's callbacks bring about, and running these callbacks where nobody else does.

A blocking call inside a callback of the executor that has to bring the answer would wait for itself. It is refused instead.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Task

from mobilevlm_ros.client.changes import Changes
from mobilevlm_ros.client.errors import ClientUsageError
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

_SLICE = 0.05
"""Seconds between two looks at what nobody tells of: a thread that has let go of the node, the end of ROS 2 in this process."""

_FAREWELL = 0.2
"""Seconds that a message needs to leave a process that ends."""

_INTERRUPT = 1.0
"""Seconds to wait, after ROS 2 was shut down, for a Ctrl-C's KeyboardInterrupt: rclpy's thread for signals may overtake it."""


class Waiter:
    """Waits for a node's callbacks. Safe to use from several threads."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._name = node.get_name()
        self._lock = threading.Lock()
        self._executor: SingleThreadedExecutor | None = None

    def until(self, condition: Callable[[], bool], changes: Changes, deadline: float) -> bool:
        """Returns whether the condition came true before `deadline`, `time.monotonic` seconds.

        Raises:
            ClientUsageError: inside a callback of the node's own executor.
            VlmError: CANCELLED where ROS 2 is shut down meanwhile; in the main thread KeyboardInterrupt where Ctrl-C did that.
        """
        # Only the main thread is interrupted, and it must still be here when it is.
        stay = _INTERRUPT if threading.current_thread() is threading.main_thread() else 0.0
        return self._until(condition, changes, deadline, stay)

    def _until(self, condition: Callable[[], bool], changes: Changes, deadline: float, stay: float) -> bool:
        """As `until`; where ROS 2 is shut down it stays for so many seconds before it raises."""
        self.refuse_in_callback()
        changed = threading.Event()
        with changes.listening(changed.set):
            while not condition():
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                if not self.is_up():
                    time.sleep(stay)
                    raise VlmError(ErrorCode.CANCELLED, "ROS 2 was shut down in this process")
                if self.is_spun():
                    changed.wait(min(remaining, 10 * _SLICE))
                    changed.clear()
                else:
                    self._spin(min(remaining, _SLICE))
        return True

    def see_off(self, condition: Callable[[], bool], changes: Changes, deadline: float) -> None:
        """Waits as `until` does for the end of what was taken back, where that is possible, and raises nothing.

        In a callback, where the garbage collector may end a loop that was forgotten, it does not wait. Where Ctrl-C has shut
        ROS 2 down, no answer comes any more, but the taking back leaves still.
        """
        if self.is_in_callback():
            return
        with suppress(VlmError):
            self._until(condition, changes, deadline, _FAREWELL)

    def is_up(self) -> bool:
        """Whether ROS 2 runs still in this process."""
        return bool(self._node.context.ok())

    def is_in_callback(self) -> bool:
        """Whether the calling thread is inside a callback of the executor that runs the node."""
        executor = self._runner()
        return executor is not None and _is_run_by(executor, sys._getframe(1))

    def refuse_in_callback(self) -> None:
        """Raises ClientUsageError inside a callback of the executor that runs the node."""
        if self.is_in_callback():
            raise ClientUsageError(
                f"a blocking call inside a callback of the executor that runs the node '{self._name}' would wait for "
                "itself: use AsyncVLM there, or an executor of its own for the client's node"
            )

    def says_who_spins(self) -> str:
        """Returns a hint where nothing has been brought about because no thread spins the node's executor; else nothing."""
        executor = self._runner()
        if executor is None:
            return f"; no executor has the node '{self._name}'"
        if executor is self._executor or self.is_in_callback():
            return ""
        alive = threading.Event()
        executor.create_task(alive.set)
        if alive.wait(2 * _SLICE):
            return ""
        return f"; the executor of the node '{self._name}' is not spinning, or all its threads are busy"

    def _runner(self) -> Executor | None:
        """The executor that has the node; rclpy.spin_once and the like stay in `Node.executor` after they have taken it out."""
        executor = self._node.executor
        return executor if executor is not None and self._node in executor.get_nodes() else None

    def is_spun(self) -> bool:
        """Whether the node is on an executor that is not this one's own."""
        executor = self._runner()
        return executor is not None and executor is not self._executor

    def _spin(self, seconds: float) -> None:
        # One thread spins for all; the others look again when it lets go.
        if self._lock.acquire(timeout=seconds):
            try:
                if self._executor is None:
                    self._executor = SingleThreadedExecutor(context=self._node.context)
                if self._runner() is None:
                    self._executor.add_node(self._node)
                self._executor.spin_once(timeout_sec=seconds)
            except Exception:
                if self.is_up():  # else whoever waits sees that ROS 2 was shut down
                    raise
            finally:
                self._lock.release()


def _is_run_by(executor: Executor, frame: FrameType | None) -> bool:
    """Whether a stack of calls comes from a callback of this executor. rclpy runs each in a `Task`, which knows its executor."""
    code = Task.__call__.__code__
    while frame is not None:
        if frame.f_code is code and frame.f_locals["self"]._executor() is executor:
            return True
        frame = frame.f_back
    return False

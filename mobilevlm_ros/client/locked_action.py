"""An action client for one thread that sends while another spins."""

from __future__ import annotations

import threading
from typing import Any

from rclpy.action import ActionClient


class LockedActionClient(ActionClient):
    """rclpy's action client, safe to use in one thread while another spins its node.

    rclpy sends a goal, a cancel or a request for the result first and notes it afterwards. Where another thread spins the node, a
    quick answer can be handled in between; it is then logged as `Ignoring unexpected goal response` and dropped, and the future
    that the caller holds is never done. Whoever uses a plain `ActionClient` with a node that is spun in another thread may meet
    this: use this class in its place, for any action, or send only from callbacks of a single-threaded executor. Here sending and
    handling exclude one another; a feedback callback must be a plain function, no coroutine.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._sending = threading.RLock()
        super().__init__(*arguments, **options)

    def send_goal_async(self, *arguments: Any, **options: Any) -> Any:
        with self._sending:
            return super().send_goal_async(*arguments, **options)

    def _cancel_goal_async(self, goal_handle: Any) -> Any:
        with self._sending:
            return super()._cancel_goal_async(goal_handle)

    def _get_result_async(self, goal_handle: Any) -> Any:
        with self._sending:
            return super()._get_result_async(goal_handle)

    async def execute(self, taken_data: Any) -> None:
        with self._sending:  # nothing in it suspends, so the lock is never held across a suspension
            await super().execute(taken_data)

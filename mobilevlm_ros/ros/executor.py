"""The node's executor: rclpy's, with the weak point closed that one malformed message ends what it came on.

rclpy marks a service, subscription or action as busy before it takes the message. Where the taking raises, because the
middleware or the conversion to Python refuses the bytes, rclpy never unmarks it: the service stays dead, and with it all that
shares its mutually exclusive callback group. Here such a message is dropped with a line in the log. It cannot be answered,
since the address of its sender is lost with it. Knows nothing of the node's work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.executors import MultiThreadedExecutor
from rclpy.logging import get_logger

from mobilevlm_ros.ros.throttle import Throttle


class SteadyExecutor(MultiThreadedExecutor):
    """A multi-threaded executor that drops a message that cannot be taken, and goes on."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._dropped = 0
        self._throttle = Throttle()

    @property
    def dropped(self) -> int:
        """How many messages could not be taken."""
        return self._dropped

    def _take_subscription(self, entity: Any) -> Any:
        return self._take_or_drop(super()._take_subscription, entity)

    def _take_service(self, entity: Any) -> Any:
        return self._take_or_drop(super()._take_service, entity)

    def _take_client(self, entity: Any) -> Any:
        return self._take_or_drop(super()._take_client, entity)

    def _take_waitable(self, entity: Any) -> Any:
        return self._take_or_drop(super()._take_waitable, entity)

    def _take_or_drop(self, take: Callable[[Any], Any], entity: Any) -> Any:
        """Returns what `take` returns, or None, which is rclpy's word for nothing to do."""
        try:
            return take(entity)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the message, it must end nothing but itself
            self._log(entity, error)
            return None

    def _log(self, entity: Any, error: Exception) -> None:
        self._dropped += 1
        name = getattr(entity, "topic_name", None) or getattr(entity, "srv_name", None) or type(entity).__name__
        reason = " ".join(str(error).split())
        text = f"dropped a malformed message on '{name}', {self._dropped} so far: {reason}"
        if line := self._throttle.line("malformed", text):
            get_logger("mobilevlm").warning(line)

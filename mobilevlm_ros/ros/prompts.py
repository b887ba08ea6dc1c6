"""The `prompt` topic: a question comes in as text, its answer goes out on `~/answer`, one after another in their order.

The subscription's callback only hands the text on; a thread of its own waits for the model.
"""

from __future__ import annotations

import queue
import threading

from mobilevlm_msgs.msg import Answer, RequestOptions
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from std_msgs.msg import String

from mobilevlm_ros.ros import qos
from mobilevlm_ros.ros.outputs import Outputs
from mobilevlm_ros.ros.services import Services
from mobilevlm_ros.runtime.errors import ErrorCode

WAITING = 8
"""Prompts that may wait for their turn; one more is answered with BUSY at once."""


class Prompts:
    """Answers what comes on `prompt`."""

    def __init__(self, node: Node, group: CallbackGroup, services: Services, outputs: Outputs) -> None:
        self._services = services
        self._outputs = outputs
        self._waiting: queue.Queue[str | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._work, name="mobilevlm-prompts", daemon=True)
        self._thread.start()
        node.create_subscription(
            String, "prompt", self._on_prompt, qos.words(), callback_group=group, qos_overriding_options=qos.overridable()
        )

    def close(self) -> None:
        """Stops the thread after the prompts that wait already; close the gate before, so that they end at once."""
        self._waiting.put(None)
        self._thread.join()

    def _on_prompt(self, message: String) -> None:
        try:
            self._waiting.put_nowait(message.data)
        except queue.Full:
            refused = Answer(question=message.data, error_code=int(ErrorCode.BUSY))
            refused.error_msg = f"{WAITING} prompts are waiting already"
            self._outputs.answer(refused, None)

    def _work(self) -> None:
        while (question := self._waiting.get()) is not None:
            self._services.answer(question, RequestOptions())

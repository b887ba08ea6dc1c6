"""The demo's running parts: the camera's process, the node's process, and this process's own ROS node as their user."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from PIL import Image as PillowImage
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from mobilevlm_ros.client import VLM, spinning
from mobilevlm_ros.demo.processes import Child
from mobilevlm_ros.ros import qos
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

NODE = "/demo/mobilevlm"
READY_SECONDS = 60.0


@dataclass(frozen=True)
class Camera:
    """Where pictures come from.

    Attributes:
        topic: the raw topic that the node listens to.
        module: the process that publishes there; empty for somebody else's camera.
        arguments: for that process.
    """

    topic: str
    module: str = ""
    arguments: tuple[str, ...] = ()


@dataclass
class Sent:
    """Which picture of a recording was sent when, as the player tells it."""

    numbers: dict[int, int] = field(default_factory=dict)
    current: int = -1

    def note(self, line: str) -> None:
        """Takes a line of the player."""
        word, *values = line.split()
        if word == "picture" and len(values) == 2:
            self.current = int(values[0])
            self.numbers[int(values[1])] = self.current

    def number(self, header: Header, patience: float = 2.0) -> int:
        """Returns the number of the picture with this header; raises VlmError where none was sent with its stamp."""
        stamp = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
        end = time.monotonic() + patience  # the answer may be here before the player's line
        while stamp not in self.numbers:
            if time.monotonic() > end:
                raise VlmError(ErrorCode.BAD_IMAGE, "an answer is about a picture that was not sent")
            time.sleep(0.01)
        return self.numbers[stamp]


class Stage:
    """The parts while they run."""

    def __init__(self, node: Node, vlm: VLM, model: Child, camera: Child | None, sent: Sent) -> None:
        self.node = node
        self.vlm = vlm
        self.model = model
        self.camera = camera
        self.sent = sent
        self._annotated: dict[tuple[int, int], Image] = {}
        self._state = ""
        self._failed = ""
        self._arrived = threading.Condition()
        node.create_subscription(Image, f"{NODE}/annotated", self._on_annotated, qos.picture())
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def wait_until_ready(self) -> str:
        """Waits until the node serves; returns the model's name.

        Raises:
            VlmError: MODEL_ERROR with the node's own words where it cannot be configured, or where its process ended.
        """
        end = time.monotonic() + READY_SECONDS
        with self._arrived:
            while not self._state:
                self._arrived.wait(0.1)
                if self._failed:
                    raise VlmError(ErrorCode.MODEL_ERROR, self._failed)
                if self.model.ended is not None or time.monotonic() > end:
                    raise VlmError(ErrorCode.MODEL_ERROR, "the node did not start")
        self.vlm.wait_until_there(READY_SECONDS)
        return self._state

    def save_annotated(self, header: Header, path: Path, patience: float = 5.0) -> None:
        """Writes the annotated picture of a result with this header; raises VlmError where it does not come."""
        key = (header.stamp.sec, header.stamp.nanosec)
        with self._arrived:
            if not self._arrived.wait_for(lambda: key in self._annotated, patience):
                raise VlmError(ErrorCode.NO_IMAGE, "the annotated picture did not come")
            message = self._annotated[key]
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        PillowImage.fromarray(pixels).save(path)

    def _on_annotated(self, message: Image) -> None:
        with self._arrived:
            self._annotated = {(message.header.stamp.sec, message.header.stamp.nanosec): message}
            self._arrived.notify_all()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == f"{NODE}: model":
                with self._arrived:
                    values = {value.key: value.value for value in status.values}
                    self._failed = status.message if status.level == DiagnosticStatus.ERROR else ""
                    self._state = values["model"] if values["state"] == "active" else ""
                    self._arrived.notify_all()


@contextmanager
def open_stage(camera: Camera, model: str, logs: Path) -> Iterator[Stage]:
    """Starts the processes and this process's node; ends them all in order.

    Args:
        model: the model package's folder, or `nano`.
        logs: folder for what the processes print.
    """
    logs.mkdir(parents=True, exist_ok=True)
    sent = Sent()
    with ExitStack() as stack:
        camera_process = None
        if camera.module:
            camera_process = stack.enter_context(
                Child(camera.module, camera.arguments, os.environ, logs / "camera.log", sent.note)
            )
        model_process = stack.enter_context(
            Child("mobilevlm_ros.ros.node", _node_arguments(camera.topic, model), os.environ, logs / "node.log")
        )
        rclpy.init(args=[], signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
        stack.callback(rclpy.shutdown)
        node = Node("demo", use_global_arguments=False)
        stack.callback(node.destroy_node)
        stack.enter_context(spinning(node))
        yield Stage(node, VLM(node, NODE), model_process, camera_process, sent)


def _node_arguments(topic: str, model: str) -> list[str]:
    namespace, name = NODE.rsplit("/", 1)
    arguments = ["--ros-args", "-r", f"__ns:={namespace}", "-r", f"__node:={name}", "-r", f"image:={topic}"]
    parameters = {"model": model, "diagnostics_period": "0.2"}
    for key, value in parameters.items():
        arguments += ["-p", f"{key}:={value}"]
    return arguments

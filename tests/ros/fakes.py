"""A model for the node's unit tests: answers at once, or as the test says."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from mobilevlm_ros.ros.annotate import image_message
from mobilevlm_ros.ros.camera import Cameras, CameraSlot, Snapshot, Times
from mobilevlm_ros.ros.desk import Desk
from mobilevlm_ros.ros.messages import Outcome
from mobilevlm_ros.ros.model import ModelStats, OnText
from mobilevlm_ros.ros.parameters import NodeOptions, defaults
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.runtime.prompt import Turn
from mobilevlm_ros.runtime.requests import Timing
from mobilevlm_ros.tasks import Answer, Classification, Grounding, Region, Settings

SECOND = 1_000_000_000
NOW = 1000.0


def answer(question: str, text: str, error: ErrorCode = ErrorCode.NONE) -> Answer:
    """An answer of three tokens."""
    return Answer(0.75, 150, 3, Timing(1.0, 2.0, 3.0, 4.0), error, error.name if error else "", question, text, (5, 6, 7))


class FakeModel:
    """Remembers what it was asked. `fail` is raised by the next calls; `hold` keeps a call waiting until it is set."""

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.asked: list[tuple[str, Settings]] = []
        self.frames: list[Frame] = []
        self.histories: list[list[Turn]] = []
        self.fail: BaseException | None = None
        self.hold = threading.Event()
        self.hold.set()
        self.closed = False
        self.given_up: VlmError | None = None

    def stats(self) -> ModelStats:
        return ModelStats("fake", 1, 2, 3 << 20)

    def close(self) -> None:
        self.closed = True

    def give_up(self, error: VlmError) -> None:
        self.given_up = error

    def ask(self, frame: Frame, question: str, settings: Settings) -> Answer:
        self._note(frame, question, settings)
        return answer(question, f"{question}!")

    def chat(self, frame: Frame, history: Sequence[Turn], message: str, settings: Settings, on_text: OnText) -> Answer:
        self._note(frame, message, settings)
        self.histories.append(list(history))
        on_text(f"{message}!")
        return answer(message, f"{message}!")

    def ground(self, frame: Frame, expression: str, settings: Settings, max_regions: int) -> Grounding:
        self._note(frame, expression, settings)
        region = Region(expression, 0.9, Box(1, 2, 3, 4), Box(0.1, 0.2, 0.3, 0.4))
        return Grounding(0.9, 150, 20, Timing(), ErrorCode.NONE, "", expression, (region,), "[0.10, 0.20, 0.30, 0.40]", 0.9)

    def describe_region(self, frame: Frame, box: Box, settings: Settings) -> Answer:
        self._note(frame, str(box), settings)
        return answer(str(box), "a thing")

    def classify(self, frame: Frame, question: str, labels: Sequence[str], settings: Settings) -> Classification:
        self._note(frame, question, settings)
        return Classification(0.6, 150, 0, Timing(), ErrorCode.NONE, "", labels[0], (0.6, 0.4))

    def _note(self, frame: Frame, text: str, settings: Settings) -> None:
        self.frames.append(frame)
        self.asked.append((text, settings))
        self.hold.wait(10.0)
        if self.fail is not None:
            raise self.fail


def snapshot(seconds: float = NOW, size: tuple[int, int] = (4, 6), camera: str = "camera") -> Snapshot:
    """A picture of (height, width) stamped so."""
    header = Header(frame_id="optical")
    header.stamp.sec, header.stamp.nanosec = divmod(round(seconds * SECOND), SECOND)
    return Snapshot(camera, bytes(serialize_message(image_message(np.zeros((*size, 3), np.uint8), header))), Image)


class Office:
    """A desk with everything around it: one camera whose picture has just come, a fake model, an open gate."""

    def __init__(self, gate: Any, **changes: Any) -> None:
        self.options = NodeOptions.of({**defaults(), **changes})
        self.slot = CameraSlot("camera", self.times)
        self.slot.put(snapshot())
        self.reported: list[Outcome[Any]] = []
        self.model = FakeModel()
        self.gate = gate
        self.desk = Desk(gate, Cameras((self.slot,)), lambda: self.options, self.times, self.reported.append)
        self.desk.attach(self.model)
        gate.open(self.options.max_requests)

    def times(self) -> Times:
        """The time stands still."""
        return Times(round(NOW * SECOND), is_wall=False)

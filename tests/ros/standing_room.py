"""What tests of standing queries run them in: a camera's newest pictures, a gate, and a model that sees brightness."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from mobilevlm_msgs.msg import Regions, StandingAnswer
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from mobilevlm_ros.ros.admission import Gate
from mobilevlm_ros.ros.annotate import image_message
from mobilevlm_ros.ros.camera import Cameras, CameraSlot, Snapshot, Times
from mobilevlm_ros.ros.desk import Desk
from mobilevlm_ros.ros.parameters import NodeOptions, defaults
from mobilevlm_ros.ros.standing import Around, Standing, StandingQueries
from mobilevlm_ros.ros.standing_query import parse
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.runtime.requests import Timing
from mobilevlm_ros.tasks import Answer, Classification, Grounding, Region, Settings
from tests.ros.fakes import FakeModel, answer

SECOND = 1_000_000_000


class SeeingModel(FakeModel):
    """Answers with the picture's brightness; finds something in it from 100 on, further right the brighter it is."""

    def ask(self, frame: Frame, question: str, settings: Settings) -> Answer:
        self._look(frame, question, settings)
        return answer(question, str(frame.pixels[0, 0, 0]))

    def classify(self, frame: Frame, question: str, labels: Sequence[str], settings: Settings) -> Classification:
        self._look(frame, question, settings)
        label = labels[int(frame.pixels[0, 0, 0] < 100)]
        return Classification(0.6, 150, 0, Timing(), ErrorCode.NONE, "", label, (0.6, 0.4))

    def ground(self, frame: Frame, expression: str, settings: Settings, max_regions: int) -> Grounding:
        self._look(frame, expression, settings)
        left = (int(frame.pixels[0, 0, 0]) - 100) / 200
        if left < 0:
            return Grounding(0.9, 150, 0, Timing(), ErrorCode.NO_GROUNDING, "not there", expression, (), "", 0.1)
        box = Box(left, 0.1, left + 0.2, 0.3)
        return Grounding(0.9, 150, 9, Timing(), ErrorCode.NONE, "", expression, (Region(expression, 0.9, box, box),), "", 0.9)

    def _look(self, frame: Frame, text: str, settings: Settings) -> None:
        self.frames.append(frame)
        self.asked.append((text, settings))
        while not self.hold.wait(0.005):
            if settings.cancel.cancelled:
                raise VlmError(ErrorCode.CANCELLED, "taken back")
        if self.fail is not None:
            raise self.fail


class NoDepth:
    """Gives regions no position, as the node does without depth."""

    def at(self, snapshot: Snapshot) -> Snapshot:
        return snapshot

    def place(self, regions: Regions) -> None:
        return None


class Room:
    """Standing queries with everything around them: two cameras, a model that sees, and what was told and logged."""

    def __init__(self, **changes: Any) -> None:
        self.options = NodeOptions.of({**defaults(), "cameras": ["front", "rear"], "max_image_age": 0.3, **changes})
        self.slots = {name: CameraSlot(name, self.times) for name in self.options.cameras}
        for slot in self.slots.values():
            slot.begin()
        self.model = SeeingModel()
        self.gate = Gate()
        self.told: list[StandingAnswer] = []
        self.log: list[str] = []
        cameras = Cameras(tuple(self.slots.values()))
        self.desk = Desk(self.gate, cameras, lambda: self.options, self.times, lambda _: None)
        self.desk.attach(self.model)
        around = Around(
            desk=self.desk,
            cameras=cameras,
            options=lambda: self.options,
            clock=self.times,
            model=lambda: self.model.name,
            publish=self.told.append,
            look=lambda _: NoDepth(),
            warn=lambda cause, text: self.log.append(text),
            inform=self.log.append,
        )
        self.queries = StandingQueries(around)
        self.shown: dict[str, int] = {}
        self._stop = threading.Event()
        self._camera = threading.Thread(target=self._film)
        self._camera.start()

    def times(self) -> Times:
        return Times(time.monotonic_ns(), is_wall=True)

    def show(self, level: int | None, camera: str = "front") -> None:
        """From now on the camera sends pictures of this brightness, or none."""
        self.shown = {**self.shown, camera: level} if level is not None else {}

    def _film(self) -> None:
        while not self._stop.wait(0.01):
            for camera, level in self.shown.items():
                self.slots[camera].put(picture(camera, level))

    def start(self, *texts: str) -> None:
        self.queries.keep([parse(text) for text in texts])
        self.gate.open(self.options.max_requests, self.options.rows)
        self.queries.open(self.options.rows)

    def end(self) -> None:
        self.queries.pause()
        self.gate.close("the test is over")
        self.queries.close(5.0)

    def close(self) -> None:
        self.end()
        self._stop.set()
        self._camera.join()

    def standing(self, name: str) -> Standing:
        return next(standing for standing in self.queries.overview() if standing.query.name == name)

    def values(self, name: str) -> list[str]:
        return [message.value for message in list(self.told) if message.name == name]


def picture(camera: str, level: int) -> Snapshot:
    header = Header(frame_id="optical")
    header.stamp.sec, header.stamp.nanosec = divmod(time.monotonic_ns(), SECOND)
    pixels = np.full((48, 64, 3), level, np.uint8)
    return Snapshot(camera, bytes(serialize_message(image_message(pixels, header))), Image)


def until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)

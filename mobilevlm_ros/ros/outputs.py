"""The node's result topics: `~/answer`, `~/regions`, `~/annotated` and, for others' tools, those of `detections`.

Pictures are drawn only while somebody subscribes. Where one cannot be, or anything else that a request does not need, the request
is answered all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mobilevlm_msgs.msg import Answer, Regions
from rclpy.node import Node
from sensor_msgs.msg import Image

from mobilevlm_ros.pictures.drawing import Mark, draw
from mobilevlm_ros.ros import qos
from mobilevlm_ros.ros.annotate import image_message
from mobilevlm_ros.ros.camera import Snapshot
from mobilevlm_ros.ros.detections import Detections
from mobilevlm_ros.ros.throttle import Throttle
from mobilevlm_ros.runtime.geometry import Box


class Outputs:
    """Publishes results. Safe to use from any thread."""

    def __init__(self, node: Node) -> None:
        self._log = node.get_logger()
        self._throttle = Throttle()
        self._answers = node.create_publisher(Answer, "~/answer", qos.result(), qos_overriding_options=qos.overridable())
        self._regions = node.create_publisher(Regions, "~/regions", qos.result(), qos_overriding_options=qos.overridable())
        self._annotated = node.create_publisher(Image, "~/annotated", qos.picture(), qos_overriding_options=qos.overridable())
        self._detections = Detections(node)

    def answer(self, answer: Answer, snapshot: Snapshot | None, box: Box | None = None) -> None:
        """Publishes an answer, and its picture with the words below and the box that was described, if any."""
        self._answers.publish(answer)
        marks = [Mark(box, "")] if box is not None else []
        with self._beside("the annotated picture"):
            self._picture(snapshot, marks, f"{answer.question} {answer.text}" if answer.text else "")

    def regions(self, regions: Regions, snapshot: Snapshot | None) -> None:
        """Publishes regions, also as detections and markers, and their picture with the boxes drawn."""
        self._regions.publish(regions)
        with self._beside("the detections"):
            self._detections.publish(regions)
        marks = [
            Mark(Box(region.box.x1, region.box.y1, region.box.x2, region.box.y2), f"{region.phrase} {region.score:.2f}")
            for region in regions.regions
        ]
        with self._beside("the annotated picture"):
            self._picture(snapshot, marks, "")

    @contextmanager
    def _beside(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, the request's own answer must go out
            if line := self._throttle.line(what, f"{what} cannot be published: {type(error).__name__}: {error}"):
                self._log.warning(line)

    def _picture(self, snapshot: Snapshot | None, marks: Sequence[Mark], caption: str) -> None:
        if snapshot is None or not (marks or caption) or not self._annotated.get_subscription_count():
            return
        self._annotated.publish(image_message(draw(snapshot.frame.pixels, marks, caption), snapshot.header))

"""Regions for others' tools: `vision_msgs` detections and RViz markers, on a machine that has these packages.

`~/detections` and `~/detections_3d` need vision_msgs, `~/markers` needs visualization_msgs; a topic whose package is not there is
not made. Messages are built only while somebody subscribes.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from mobilevlm_msgs.msg import Region, Regions
from rclpy.node import Node

from mobilevlm_ros.ros import qos

THINNEST = 0.005
"""Sides of a marker in metres are no shorter, so that a flat thing can be seen."""

_COLOR = (0.1, 0.8, 0.2)


class Detections:
    """Publishes regions in others' messages. Safe to use from any thread."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._outputs: list[tuple[Any, Callable[[Any, Regions], Any], Any]] = []
        self._add("vision_msgs", "Detection2DArray", "~/detections", detections_2d)
        self._add("vision_msgs", "Detection3DArray", "~/detections_3d", detections_3d)
        self._add("visualization_msgs", "MarkerArray", "~/markers", markers)

    def publish(self, regions: Regions) -> None:
        """Publishes regions to whoever listens."""
        for publisher, build, messages in self._outputs:
            if publisher.get_subscription_count():
                publisher.publish(build(messages, regions))

    def _add(self, package: str, kind: str, topic: str, build: Callable[[Any, Regions], Any]) -> None:
        try:
            messages = import_module(f"{package}.msg")
        except ImportError:
            self._node.get_logger().debug(f"{topic} is not published: {package} is not installed")
            return
        publisher = self._node.create_publisher(
            getattr(messages, kind), topic, qos.result(), qos_overriding_options=qos.overridable()
        )
        self._outputs.append((publisher, build, messages))


def detections_2d(messages: Any, regions: Regions) -> Any:
    """Returns a Detection2DArray: boxes in pixels, the phrase in class_id.

    Args:
        messages: the module vision_msgs.msg.
    """
    array = messages.Detection2DArray(header=regions.info.header)
    for region in regions.regions:
        detection = messages.Detection2D(header=regions.info.header, results=[_hypothesis(messages, region)])
        box = region.box
        detection.bbox.center.position.x, detection.bbox.center.position.y = (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2
        detection.bbox.size_x, detection.bbox.size_y = box.x2 - box.x1, box.y2 - box.y1
        array.detections.append(detection)
    return array


def detections_3d(messages: Any, regions: Regions) -> Any:
    """Returns a Detection3DArray of the regions that have a position, each with the header of its frame; as `detections_2d`."""
    placed = [region for region in regions.regions if region.has_position]
    array = messages.Detection3DArray(header=placed[0].position_header if placed else regions.info.header)
    for region in placed:
        hypothesis = _hypothesis(messages, region)
        hypothesis.pose.pose.position = region.position
        detection = messages.Detection3D(header=region.position_header, results=[hypothesis])
        detection.bbox.center.position, detection.bbox.size = region.position, region.extent
        detection.bbox.center.orientation.w = 1.0
        array.detections.append(detection)
    return array


def markers(messages: Any, regions: Regions) -> Any:
    """Returns a MarkerArray: a box and its words for each region with a position, after one that clears those from before.

    Args:
        messages: the module visualization_msgs.msg.
    """
    kind = messages.Marker
    array = messages.MarkerArray(markers=[kind(header=regions.info.header, action=kind.DELETEALL)])
    for number, region in enumerate(region for region in regions.regions if region.has_position):
        box = kind(header=region.position_header, ns="regions", id=number, type=kind.CUBE, action=kind.ADD)
        box.pose.position = region.position
        box.scale.x, box.scale.y, box.scale.z = (max(getattr(region.extent, axis), THINNEST) for axis in "xyz")
        words = kind(header=region.position_header, ns="words", id=number, type=kind.TEXT_VIEW_FACING, action=kind.ADD)
        words.pose.position = region.position
        words.text, words.scale.z = f"{region.phrase} {region.score:.2f}", 0.04
        for marker, opacity in ((box, 0.4), (words, 1.0)):
            marker.pose.orientation.w = 1.0
            marker.color.r, marker.color.g, marker.color.b, marker.color.a = (*_COLOR, opacity)
            array.markers.append(marker)
    return array


def _hypothesis(messages: Any, region: Region) -> Any:
    result = messages.ObjectHypothesisWithPose()
    result.hypothesis.class_id, result.hypothesis.score = region.phrase, float(region.score)
    result.pose.pose.orientation.w = 1.0
    return result

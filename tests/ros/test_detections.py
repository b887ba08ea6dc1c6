"""Regions as vision_msgs detections and RViz markers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from geometry_msgs.msg import Point, Pose, PoseWithCovariance, Vector3
from mobilevlm_msgs.msg import Box2D, Region, Regions, ResultInfo
from std_msgs.msg import Header

from mobilevlm_ros.ros import detections

pytestmark = pytest.mark.ros

PICTURE, MAP = Header(frame_id="optical"), Header(frame_id="map")
PICTURE.stamp.sec = MAP.stamp.sec = 7
POSITION, EXTENT = Point(x=1.0, y=2.0, z=3.0), Vector3(x=0.1, y=0.2, z=0.0)

MUG = Region(
    phrase="the red mug",
    score=0.75,
    box=Box2D(x1=10.0, y1=20.0, x2=40.0, y2=60.0),
    has_position=True,
    position_header=MAP,
    position=POSITION,
    extent=EXTENT,
)
BALL = Region(phrase="the ball", score=0.5, box=Box2D(x1=0.0, y1=0.0, x2=8.0, y2=4.0), position_msg="no depth")
REGIONS = Regions(info=ResultInfo(header=PICTURE), regions=[MUG, BALL])


def made(**fields: Any) -> Any:
    """A class of messages with these fields, each made anew by its function."""

    class Message(SimpleNamespace):
        def __init__(self, **given: Any) -> None:
            assert not given.keys() - fields.keys()
            super().__init__(**{name: given[name] if name in given else make() for name, make in fields.items()})

    return Message


def vision_msgs() -> Any:
    """The package's own messages where it is there; else stand-ins with the fields of vision_msgs 4 (Humble to Jazzy)."""
    try:
        from vision_msgs import msg
    except ImportError:
        hypothesis = made(hypothesis=made(class_id=str, score=float), pose=PoseWithCovariance)
        position = made(position=made(x=float, y=float), theta=float)
        box_2d = made(center=position, size_x=float, size_y=float)
        box_3d = made(center=Pose, size=Vector3)
        return SimpleNamespace(
            ObjectHypothesisWithPose=hypothesis,
            Detection2D=made(header=Header, results=list, bbox=box_2d, id=str),
            Detection3D=made(header=Header, results=list, bbox=box_3d, id=str),
            Detection2DArray=made(header=Header, detections=list),
            Detection3DArray=made(header=Header, detections=list),
        )
    return msg


def test_every_region_is_a_2d_detection_with_its_phrase_and_a_real_score() -> None:
    array = detections.detections_2d(vision_msgs(), REGIONS)
    assert array.header == PICTURE
    mug, ball = array.detections
    assert (mug.results[0].hypothesis.class_id, mug.results[0].hypothesis.score) == ("the red mug", 0.75)
    assert (mug.bbox.center.position.x, mug.bbox.center.position.y, mug.bbox.size_x, mug.bbox.size_y) == (25.0, 40.0, 30.0, 40.0)
    assert (ball.header, ball.bbox.size_x, ball.bbox.size_y) == (PICTURE, 8.0, 4.0)


def test_only_a_region_with_a_position_is_a_3d_detection_in_its_own_frame() -> None:
    array = detections.detections_3d(vision_msgs(), REGIONS)
    (mug,) = array.detections
    assert array.header == mug.header == MAP
    assert (mug.bbox.center.position, mug.bbox.size) == (POSITION, EXTENT)
    assert (mug.results[0].hypothesis.class_id, mug.results[0].pose.pose.position) == ("the red mug", POSITION)
    assert mug.bbox.center.orientation.w == mug.results[0].pose.pose.orientation.w == 1.0


def test_without_a_position_a_3d_array_is_empty_and_has_the_pictures_header() -> None:
    array = detections.detections_3d(vision_msgs(), Regions(info=ResultInfo(header=PICTURE), regions=[BALL]))
    assert (array.header, array.detections) == (PICTURE, [])


def test_markers_clear_the_old_ones_and_draw_a_box_and_its_words() -> None:
    messages = pytest.importorskip("visualization_msgs.msg", reason="visualization_msgs is not installed")
    kind = messages.Marker
    clear, box, words = detections.markers(messages, REGIONS).markers
    assert clear.action == kind.DELETEALL
    assert (box.type, box.header, box.pose.position) == (kind.CUBE, MAP, POSITION)
    assert (box.scale.x, box.scale.y, box.scale.z) == (0.1, 0.2, detections.THINNEST)
    assert (words.type, words.text) == (kind.TEXT_VIEW_FACING, "the red mug 0.75")
    assert box.color.a > 0 and box.pose.orientation.w == 1.0

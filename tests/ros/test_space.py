"""Regions get their positions from messages, or the reason why not; whatever the messages hold."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from hypothesis import given, settings
from hypothesis import strategies as st
from mobilevlm_msgs.msg import Box2D, Region, Regions
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from mobilevlm_ros.ros.depth import DepthFrames
from mobilevlm_ros.ros.parameters import NodeOptions, defaults
from mobilevlm_ros.ros.space import Look
from mobilevlm_ros.ros.transforms import Transforms
from tests.ros.fakes import NOW, snapshot
from tests.ros.tf2_stand_in import StandIn

pytestmark = pytest.mark.ros

WIDTH, HEIGHT = 96, 64
HEADER = Header(frame_id="optical")
HEADER.stamp.sec = int(NOW)


def depth(step: int = 2 * WIDTH) -> Image:
    """A wall 3 m away, and before it a thing 1 m away at the columns 40 to 60 and the rows 20 to 40."""
    millimetres = np.full((HEIGHT, WIDTH), 3000, np.uint16)
    millimetres[20:40, 40:60] = 1000
    return Image(header=HEADER, width=WIDTH, height=HEIGHT, step=step, encoding="16UC1", data=list(millimetres.tobytes()))


def info(width: int = WIDTH) -> CameraInfo:
    k = [100.0, 0.0, 47.5, 0.0, 100.0, 31.5, 0.0, 0.0, 1.0]
    return CameraInfo(header=HEADER, width=width, height=HEIGHT, k=k, distortion_model="plumb_bob")


def placed(depth_bytes: bytes | None, info_bytes: bytes | None, frame: str = "", **changes: Any) -> Region:
    """The region of the thing after all that is done for it."""
    frames = DepthFrames(lambda: None)
    if depth_bytes is not None:
        frames.put(depth_bytes)
    topics: Any = SimpleNamespace(frames=frames, info=info_bytes, depth_topic="/depth", info_topic="/camera_info")
    options = NodeOptions.of({**defaults(), "depth": True, **changes})
    look = Look({"camera": topics}, Transforms(SimpleNamespace()), options)
    look.at(snapshot(size=(HEIGHT, WIDTH)))
    regions = Regions(regions=[Region(phrase="it", box=Box2D(x1=40.0, y1=20.0, x2=60.0, y2=40.0))])
    look.place(regions, frame)
    (region,) = regions.regions
    return region


def raw(message: Any) -> bytes:
    return bytes(serialize_message(message))


def test_a_region_is_where_its_depth_is_with_the_pictures_header() -> None:
    region = placed(raw(depth()), raw(info()))
    assert region.has_position
    assert region.position_header == HEADER
    assert (region.position.x, region.position.y, region.position.z) == pytest.approx((0.02, -0.02, 1.0), abs=1e-3)
    assert (region.extent.x, region.extent.y, region.extent.z) == pytest.approx((0.19, 0.19, 0.0), abs=0.01)
    assert region.position_msg == ""


@pytest.mark.parametrize("options", [{"target_frame": "map"}, {"frame": "map"}, {"frame": "map", "target_frame": "odom"}])
def test_in_another_frame_position_and_extent_follow_its_axes(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    tf2 = StandIn()
    monkeypatch.setitem(sys.modules, "tf2_ros", tf2)
    region = placed(raw(depth()), raw(info()), **options)
    assert tf2.asked[0][:3] == ("map", "optical", int(NOW) * 1_000_000_000)
    assert (region.position_header.frame_id, region.position_header.stamp) == ("map", HEADER.stamp)
    assert (region.position.x, region.position.y, region.position.z) == pytest.approx((1.02, 2.02, 4.0), abs=1e-3)


def test_without_a_transform_the_position_stays_in_the_cameras_frame_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    tf2 = StandIn()
    tf2.error = RuntimeError("would need extrapolation\ninto the past")
    monkeypatch.setitem(sys.modules, "tf2_ros", tf2)
    region = placed(raw(depth()), raw(info()), "map")
    assert region.has_position
    assert region.position_header.frame_id == "optical"
    assert "would need extrapolation into the past" in region.position_msg


def test_the_cameras_own_frame_needs_no_tf2() -> None:
    region = placed(raw(depth()), raw(info()), "optical")
    assert (region.has_position, region.position_header.frame_id, region.position_msg) == (True, "optical", "")


@pytest.mark.parametrize(
    ("messages", "changes", "words"),
    [
        ((raw(depth()), raw(info())), {"depth": False}, "the parameter depth is false"),
        ((None, raw(info())), {}, "no depth image has come on /depth"),
        ((raw(depth()), None), {}, "no camera_info has come on /camera_info"),
        ((raw(depth(step=100)), raw(info())), {}, "step of 192 bytes or more, not 100"),
        ((raw(depth())[:200], raw(info())), {}, "the Image message is damaged"),
        ((raw(depth()), raw(info())[:40]), {}, "the CameraInfo message is damaged"),
        ((raw(depth()), raw(info(width=2 * WIDTH))), {}, "camera_info is 192 x 64, but the picture 96 x 64"),
    ],
)
def test_what_is_missing_is_said(messages: tuple[bytes | None, bytes | None], changes: dict[str, Any], words: str) -> None:
    region = placed(*messages, **changes)
    assert not region.has_position
    assert words in region.position_msg
    assert "\n" not in region.position_msg


@given(st.integers(12, 400), st.binary(max_size=40), st.integers(12, 350), st.binary(max_size=40))
@settings(max_examples=200)
def test_damaged_messages_cost_the_position_and_nothing_else(at: int, bad: bytes, info_at: int, info_bad: bytes) -> None:
    whole, whole_info = raw(depth()), raw(info())
    damaged = whole[:at] + bad + whole[at + len(bad) :]
    damaged_info = whole_info[:info_at] + info_bad + whole_info[info_at + len(info_bad) :]
    region = placed(damaged, damaged_info)
    assert region.has_position != bool(region.position_msg)

"""Which depth image belongs to a picture, and transforms at its stamp."""

from __future__ import annotations

import gc
import sys
import threading
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from mobilevlm_ros.ros.depth import KEPT, DepthFrames
from mobilevlm_ros.ros.transforms import Transforms
from mobilevlm_ros.space.errors import NoPositionError, Reason
from tests.ros.tf2_stand_in import StandIn

pytestmark = pytest.mark.ros

MS = 1_000_000


def depth(stamp_ns: int) -> bytes:
    message = Image()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    return bytes(serialize_message(message))


def frames(newest: int | None = None) -> DepthFrames:
    return DepthFrames(lambda: newest)


def nearest(found: DepthFrames, picture_ns: int) -> int | None:
    stamped = found.watch(picture_ns).nearest(until=0.0)
    return stamped.stamp_ns if stamped else None


@given(
    st.lists(st.integers(0, 10_000), min_size=1, max_size=KEPT),
    st.lists(st.integers(0, 10_000), max_size=20),
    st.integers(0, 10_000),
)
def test_the_nearest_of_those_before_and_those_after_is_taken(before: list[int], after: list[int], picture: int) -> None:
    found = frames()
    for stamp in before:
        found.put(depth(stamp * MS))
    watch = found.watch(picture * MS)
    for stamp in after:
        found.put(depth(stamp * MS))
    best = watch.nearest(until=0.0)
    assert best is not None
    assert abs(best.stamp_ns - picture * MS) == min(abs(stamp - picture) for stamp in before + after) * MS


def test_without_depth_there_is_none() -> None:
    assert nearest(frames(), 5 * MS) is None


def test_a_picture_that_was_asked_about_keeps_its_depth_however_many_come_after() -> None:
    found = frames()
    found.put(depth(100 * MS))
    watch = found.watch(101 * MS)
    for number in range(10 * KEPT):
        found.put(depth((200 + number) * MS))
    best = watch.nearest(until=0.0)
    assert best is not None and best.stamp_ns == 100 * MS


def test_the_newest_picture_keeps_its_depth_before_anybody_asks() -> None:
    found = frames(newest=1000 * MS)
    for number in range(10 * KEPT):
        found.put(depth((990 + 33 * number) * MS))
    assert nearest(found, 1000 * MS) == 990 * MS


def test_depth_images_that_nobody_needs_are_let_go() -> None:
    found = frames()
    watches = [found.watch(number * MS) for number in range(3)]
    for number in range(5 * KEPT):
        found.put(depth(number * MS))
    assert len(watches) == 3
    del watches
    gc.collect()
    assert nearest(found, 0) == 4 * KEPT * MS


def test_a_depth_image_on_its_way_is_waited_for() -> None:
    found = frames()
    found.put(depth(60 * MS))
    watch = found.watch(100 * MS)
    threading.Timer(0.05, lambda: found.put(depth(100 * MS))).start()
    best = watch.nearest(until=time.monotonic() + 5.0)
    assert best is not None and best.stamp_ns == 100 * MS


def test_a_wait_ends_in_time() -> None:
    found = frames()
    found.put(depth(60 * MS))
    began = time.monotonic()
    assert found.watch(100 * MS).nearest(until=began + 0.05) is not None
    assert 0.04 < time.monotonic() - began < 1.0


def test_a_depth_message_too_short_for_a_stamp_is_dropped() -> None:
    found = frames()
    found.put(b"\x00\x01\x00")
    assert nearest(found, 0) is None


def test_nothing_is_left_after_clearing() -> None:
    found = frames(newest=5 * MS)
    found.put(depth(5 * MS))
    found.clear()
    assert nearest(found, 5 * MS) is None


HEADER = Header(frame_id="optical")
HEADER.stamp.sec = 12


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    module = StandIn()
    monkeypatch.setitem(sys.modules, "tf2_ros", module)
    return module


def test_a_transform_is_asked_for_at_the_pictures_stamp_with_a_bounded_wait(stand_in: StandIn) -> None:
    transforms = Transforms(SimpleNamespace())
    transform = transforms.lookup("map", HEADER, 0.25)
    assert stand_in.asked == [("map", "optical", 12_000 * MS, 250 * MS)]
    assert list(transform.translation) == [1.0, 2.0, 3.0]
    transforms.close()
    assert stand_in.stopped == 1


def test_what_tf2_raises_is_the_reason(stand_in: StandIn) -> None:
    stand_in.error = LookupError("extrapolation into the future")
    with pytest.raises(
        NoPositionError, match="'optical' to 'map' at the picture's stamp: extrapolation into the future"
    ) as caught:
        Transforms(SimpleNamespace()).lookup("map", HEADER, 0.0)
    assert caught.value.reason is Reason.NO_TRANSFORM


def test_a_header_without_a_frame_cannot_be_transformed(stand_in: StandIn) -> None:
    with pytest.raises(NoPositionError, match="names no frame"):
        Transforms(SimpleNamespace()).lookup("map", Header(), 0.0)
    assert stand_in.asked == []


def test_a_machine_without_tf2_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    with pytest.raises(NoPositionError, match="install ros-.*-tf2-ros-py"):
        Transforms(SimpleNamespace()).open()


def test_tf2_itself_gives_the_transform_of_the_stamp_and_not_the_latest() -> None:
    tf2_ros = pytest.importorskip("tf2_ros", reason="tf2_ros is not among the wheels; this runs on a robot")
    from geometry_msgs.msg import TransformStamped

    transforms = Transforms(SimpleNamespace())
    buffer = tf2_ros.Buffer()
    for second in (10, 14, 20):
        moved = TransformStamped(child_frame_id="optical")
        moved.header.frame_id, moved.header.stamp.sec = "map", second
        moved.transform.translation.x, moved.transform.rotation.w = float(second), 1.0
        buffer.set_transform(moved, "test")
    transforms._buffer = buffer
    assert transforms.lookup("map", HEADER, 0.0).translation[0] == pytest.approx(12.0)

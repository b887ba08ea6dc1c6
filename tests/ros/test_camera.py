"""The newest-frame slot: what is kept, what is too old, and who waits for the next picture."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="needs ROS 2")

from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from mobilevlm_ros.ros.annotate import image_message
from mobilevlm_ros.ros.camera import Cameras, CameraSlot, FramePolicy, Listening, Snapshot, Times, stamp_ns
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.requests import CancelToken

SECOND = 1_000_000_000


class Clock:
    """A clock that stands where it is put."""

    def __init__(self, seconds: float = 100.0, is_wall: bool = False) -> None:
        self.seconds = seconds
        self.is_wall = is_wall

    def __call__(self) -> Times:
        return Times(round(self.seconds * SECOND), self.is_wall)


def serialized(stamp: float, value: int = 7) -> bytes:
    header = Header(frame_id="optical")
    header.stamp.sec, header.stamp.nanosec = divmod(round(stamp * SECOND), SECOND)
    return bytes(serialize_message(image_message(np.full((4, 6, 3), value, np.uint8), header)))


def shot(stamp: float, value: int = 7) -> Snapshot:
    return Snapshot("front", serialized(stamp, value), Image)


@given(sec=st.integers(0, 2**31 - 1), nanosec=st.integers(0, SECOND - 1), frame_id=st.text(max_size=20))
def test_the_stamp_is_read_from_the_serialized_message(sec: int, nanosec: int, frame_id: str) -> None:
    header = Header(frame_id=frame_id.replace("\0", ""))
    header.stamp.sec, header.stamp.nanosec = sec, nanosec
    assert stamp_ns(bytes(serialize_message(Image(header=header)))) == sec * SECOND + nanosec


def test_a_big_endian_stamp_is_read_too() -> None:
    assert stamp_ns(bytes([0, 0, 0, 0]) + (5).to_bytes(4, "big") + (6).to_bytes(4, "big")) == 5 * SECOND + 6


@pytest.mark.parametrize("length", range(12))
def test_a_message_too_short_for_a_stamp_is_a_bad_image(length: int) -> None:
    with pytest.raises(VlmError) as caught:
        stamp_ns(serialized(1.0)[:length])
    assert caught.value.code is ErrorCode.BAD_IMAGE


def test_a_snapshot_is_decoded_once_and_keeps_its_header() -> None:
    snapshot = shot(12.5)
    assert snapshot.frame is snapshot.frame
    assert snapshot.frame.pixels.shape == (4, 6, 3)
    assert (snapshot.header.frame_id, snapshot.header.stamp.sec) == ("optical", 12)
    assert snapshot.stamp_ns == round(12.5 * SECOND)


def test_a_damaged_snapshot_is_a_bad_image_each_time() -> None:
    snapshot = Snapshot("front", serialized(1.0)[:40], Image)
    for _ in range(2):
        with pytest.raises(VlmError) as caught:
            _ = snapshot.frame
        assert caught.value.code is ErrorCode.BAD_IMAGE


def test_a_camera_without_pictures_has_no_image() -> None:
    with pytest.raises(VlmError, match="front") as caught:
        CameraSlot("front", Clock()).take_newest(1.0)
    assert caught.value.code is ErrorCode.NO_IMAGE


def test_only_the_newest_picture_is_kept() -> None:
    slot = CameraSlot("front", Clock(100.0))
    slot.put(shot(99.8, 1))
    slot.put(shot(99.9, 2))
    assert slot.take_newest(1.0).frame.pixels[0, 0, 0] == 2
    assert slot.received == 2


def test_a_forgotten_picture_is_not_answered_from() -> None:
    slot = CameraSlot("front", Clock(100.0))
    slot.put(shot(100.0))
    slot.clear()
    with pytest.raises(VlmError) as caught:
        slot.take_newest(1.0)
    assert caught.value.code is ErrorCode.NO_IMAGE


@pytest.mark.parametrize(
    ("stamp", "ok"), [(99.5, True), (99.0, True), (98.9, False), (100.5, True), (101.1, False), (0.0, False)]
)
def test_a_picture_counts_if_its_stamp_is_near_enough_to_the_nodes_clock(stamp: float, ok: bool) -> None:
    slot = CameraSlot("front", Clock(100.0))
    slot.put(shot(stamp))
    if ok:
        slot.take_newest(1.0)
        return
    with pytest.raises(VlmError) as caught:
        slot.take_newest(1.0)
    assert caught.value.code is ErrorCode.STALE_IMAGE


def test_on_a_wall_clock_a_stalled_camera_cannot_hide_behind_its_stamp() -> None:
    slot = CameraSlot("front", Clock(100.0, is_wall=True))
    slot.put(shot(100.0))
    slot.take_newest(0.2)
    time.sleep(0.25)
    with pytest.raises(VlmError) as caught:
        slot.take_newest(0.2)
    assert caught.value.code is ErrorCode.STALE_IMAGE


def test_on_simulated_time_only_the_stamp_counts() -> None:
    slot = CameraSlot("front", Clock(100.0))
    slot.put(shot(100.0))
    time.sleep(0.25)
    slot.take_newest(0.2)


def test_the_first_picture_of_a_camera_that_has_just_been_opened_is_waited_for() -> None:
    slot = CameraSlot("front", Clock(100.0))
    slot.put(shot(100.0, 1))
    slot.begin()
    threading.Timer(0.2, slot.put, [shot(100.0, 2)]).start()
    assert slot.take_newest(1.0, time.monotonic() + 5.0, CancelToken()).frame.pixels[0, 0, 0] == 2


def test_a_camera_that_is_opened_only_for_the_request_is_waited_for_too() -> None:
    slot = CameraSlot("front", Clock(100.0))
    slot.end()
    assert slot.listening is Listening.NO

    def open_and_show() -> None:
        slot.begin()
        slot.put(shot(100.0))

    slot.demand.tell(threading.Timer(0.2, open_and_show).start)
    slot.take_newest(1.0, time.monotonic() + 5.0, CancelToken())
    assert slot.listening is Listening.YES


@pytest.mark.parametrize(("before", "code"), [(None, ErrorCode.NO_IMAGE), (90.0, ErrorCode.STALE_IMAGE)])
def test_the_wait_for_the_first_picture_is_given_up_at_the_deadline(before: float | None, code: ErrorCode) -> None:
    slot = CameraSlot("front", Clock(100.0))
    if before is not None:
        slot.put(shot(before))
    slot.begin()
    assert slot.listening is Listening.OPENING
    started = time.monotonic()
    with pytest.raises(VlmError) as caught:
        slot.take_newest(1.0, started + 0.2, CancelToken())
    assert caught.value.code is code
    assert 0.2 <= time.monotonic() - started < 1.0


def test_the_wait_for_the_first_picture_ends_when_the_request_is_taken_back() -> None:
    slot = CameraSlot("front", Clock(100.0))
    slot.begin()
    cancel = CancelToken()
    threading.Timer(0.1, cancel.cancel).start()
    started = time.monotonic()
    with pytest.raises(VlmError) as caught:
        slot.take_newest(1.0, started + 30.0, cancel)
    assert caught.value.code is ErrorCode.CANCELLED
    assert time.monotonic() - started < 1.0


def test_a_camera_is_in_use_while_a_request_waits_for_its_picture() -> None:
    slot = CameraSlot("front", Clock(100.0))
    slot.begin()

    def wait() -> None:
        with pytest.raises(VlmError):
            slot.take_newest(1.0, time.monotonic() + 0.4)

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.2)
    assert slot.demand.idle_seconds == 0.0
    waiting.join()
    time.sleep(0.1)
    assert 0.05 < slot.demand.idle_seconds < 5.0


def test_next_takes_the_first_picture_stamped_after_the_request() -> None:
    slot = CameraSlot("front", Clock(100.0))
    slot.put(shot(99.0))
    for delay, stamp in ((0.05, 99.9), (0.1, 100.1)):
        threading.Timer(delay, slot.put, [shot(stamp)]).start()
    taken = slot.take_next(100 * SECOND, time.monotonic() + 5.0, CancelToken())
    assert taken.stamp_ns == round(100.1 * SECOND)


@pytest.mark.parametrize(("first", "code"), [(None, ErrorCode.NO_IMAGE), (99.0, ErrorCode.STALE_IMAGE)])
def test_next_gives_up_at_the_deadline(first: float | None, code: ErrorCode) -> None:
    slot = CameraSlot("front", Clock(100.0))
    if first is not None:
        slot.put(shot(first))
    started = time.monotonic()
    with pytest.raises(VlmError) as caught:
        slot.take_next(100 * SECOND, started + 0.1, CancelToken())
    assert caught.value.code is code
    assert 0.1 <= time.monotonic() - started < 1.0


def test_next_ends_when_the_request_is_taken_back() -> None:
    cancel = CancelToken()
    threading.Timer(0.05, cancel.cancel).start()
    started = time.monotonic()
    with pytest.raises(VlmError) as caught:
        CameraSlot("front", Clock()).take_next(0, started + 30.0, cancel)
    assert caught.value.code is ErrorCode.CANCELLED
    assert time.monotonic() - started < 1.0


def test_a_camera_is_found_by_its_name_and_the_first_by_none() -> None:
    front, rear = CameraSlot("front", Clock()), CameraSlot("rear", Clock())
    cameras = Cameras((front, rear))
    assert cameras.find("") is front
    assert cameras.find("rear") is rear
    with pytest.raises(VlmError, match="front, rear") as caught:
        cameras.find("top")
    assert caught.value.code is ErrorCode.BAD_REQUEST


def test_the_policies_are_those_of_the_message() -> None:
    from mobilevlm_msgs.msg import RequestOptions

    assert FramePolicy.NEWEST == RequestOptions.NEWEST
    assert FramePolicy.NEXT == RequestOptions.NEXT
    assert getattr(RequestOptions, "SAME", FramePolicy.SAME) == FramePolicy.SAME

"""Which picture a request is about, and what happens when pictures are old, late, damaged or compressed."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from mobilevlm_ros.client import VLM
from mobilevlm_ros.ros.annotate import image_message
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from tests.system.graph import Camera, Process, Served, fails, picture, serving, until

NAME = "pictures_vlm"
NEXT = 1


@pytest.fixture(scope="module")
def served(tester: Node, random_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("pictures")
    with serving(tester, NAME, folder, model=random_package, max_image_age=1.0, max_tokens=2, diagnostics_period=0.1) as served:
        yield served


def test_a_stalled_camera_is_a_stale_image_with_its_age(vlm: VLM, camera: Camera) -> None:
    camera.show()
    time.sleep(1.2)
    fails(lambda: vlm.ask("What is it?"), ErrorCode.STALE_IMAGE, " s old, 1.00 s are allowed")


def test_a_request_may_allow_older_pictures_than_the_node(vlm: VLM, camera: Camera) -> None:
    header = camera.show()
    time.sleep(1.2)
    assert vlm.ask("What is it?", max_age=60.0).info.header == header


def test_a_request_may_ask_for_younger_pictures_than_the_node(vlm: VLM, camera: Camera) -> None:
    camera.show()
    time.sleep(0.3)
    fails(lambda: vlm.ask("What is it?", max_age=0.1), ErrorCode.STALE_IMAGE)


def test_the_stamp_counts_and_not_the_arrival(vlm: VLM, camera: Camera) -> None:
    header = camera.show(offset=-100.0)
    until(lambda: vlm.ask("What is it?", max_age=1000.0).info.header == header)
    fails(lambda: vlm.ask("What is it?"), ErrorCode.STALE_IMAGE, "100.")


def test_a_picture_from_the_future_is_not_answered_from(vlm: VLM, camera: Camera) -> None:
    header = camera.show(offset=100.0)
    until(lambda: vlm.ask("What is it?", max_age=1000.0).info.header == header)
    fails(lambda: vlm.ask("What is it?"), ErrorCode.STALE_IMAGE, "ahead of the node's clock")


def test_next_waits_for_a_picture_that_is_stamped_after_the_request(vlm: VLM, camera: Camera) -> None:
    before = camera.show()
    until(lambda: vlm.ask("What is it?", max_age=1000.0).info.header == before)
    shown: list[Header] = []
    answered = threading.Event()

    def film() -> None:
        while not answered.wait(0.4):  # the first one comes too early where the request is long on its way
            shown.append(camera.show())

    filming = threading.Thread(target=film)
    filming.start()
    try:
        answer = vlm.ask("What is it?", frame_policy=NEXT)
    finally:
        answered.set()
        filming.join()
    assert answer.info.header in shown
    assert before not in shown


def test_next_is_not_content_with_a_picture_that_comes_later_but_was_taken_before(vlm: VLM, camera: Camera) -> None:
    camera.show()
    late = threading.Timer(0.2, lambda: camera.show(offset=-0.5))
    late.start()
    fails(lambda: vlm.ask("What is it?", frame_policy=NEXT, timeout=0.7), ErrorCode.STALE_IMAGE, "no picture in time")
    late.join()


def _message(**changes: object) -> Image:
    message = image_message(picture(), Header())
    for name, value in changes.items():
        setattr(message, name, value)
    return message


DEFECTS: dict[str, tuple[dict[str, object], str]] = {
    "a step that is too small": ({"step": 10}, "step"),
    "a height that the data does not fill": ({"height": 65}, "bytes"),
    "no size": ({"width": 0, "height": 0}, "empty"),
    "a size that no machine has memory for": ({"width": 2**31, "height": 2**31, "step": 2**31}, "too large"),
    "an encoding that nobody knows": ({"encoding": "rgb9"}, "rgb9"),
    "depth whose data does not fill it": ({"encoding": "32FC1"}, "step of 384"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_malformed_picture_ends_its_request_and_the_next_one_is_right(vlm: VLM, camera: Camera, defect: str) -> None:
    changes, words = DEFECTS[defect]
    message = _message(**changes)

    def failed() -> VlmError | None:
        message.header = camera.header()
        camera.publisher.publish(message)
        error = _error(vlm)
        return error if error and error.code is ErrorCode.BAD_IMAGE else None

    error = until(failed)
    assert words in error.message
    assert "\n" not in error.message
    until(lambda: _is_answered_from(vlm, camera.show()))


@pytest.mark.parametrize("length", [3, 11, 40, 1000])
def test_bytes_that_are_no_message_end_their_request_and_not_the_node(
    vlm: VLM, camera: Camera, node: Process, length: int
) -> None:
    def failed() -> bool:
        stamp = camera.header().stamp
        whole = bytes(4) + stamp.sec.to_bytes(4, "big") + stamp.nanosec.to_bytes(4, "big") + bytes(988)
        camera.publisher.publish(whole[:length])
        error = _error(vlm)
        return error is not None and error.code is ErrorCode.BAD_IMAGE

    until(failed)
    until(lambda: _is_answered_from(vlm, camera.show()))
    assert node.ended is None


@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_a_compressed_topic_alone_is_enough(vlm: VLM, camera: Camera, tester: Node, form: str) -> None:
    tester.destroy_publisher(camera.publisher)
    compressed = Camera(tester, "image/compressed", CompressedImage)
    try:
        compressed.wait_for_listener()
        stream = io.BytesIO()
        PillowImage.fromarray(picture(64, 48)).save(stream, form)

        until(lambda: _is_answered_from(vlm, compressed.show_compressed(stream.getvalue(), form)))
    finally:
        tester.destroy_publisher(compressed.publisher)
        camera.publisher = tester.create_publisher(Image, "image", QoSProfile(depth=1))
        camera.wait_for_listener()


def test_a_large_picture_is_answered(vlm: VLM, camera: Camera) -> None:
    pixels = np.zeros((1080, 1920, 3), np.uint8)
    until(lambda: _is_answered_from(vlm, camera.show(pixels)))


def _error(vlm: VLM) -> VlmError | None:
    """What a question ends with; None where it is answered."""
    try:
        vlm.ask("Is somebody there?")
    except VlmError as error:
        return error
    return None


def _is_answered_from(vlm: VLM, header: Header) -> bool:
    """Whether a question is answered from the picture with this header; on a slow machine it may not have come, or be too old."""
    try:
        return bool(vlm.ask("What is it?").info.header == header)
    except VlmError:
        return False

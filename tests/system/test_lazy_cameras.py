"""Cameras that are listened to only while somebody asks about them, over real DDS."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest
from builtin_interfaces.msg import Duration
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from mobilevlm_msgs.msg import RequestOptions
from mobilevlm_msgs.srv import Ask
from PIL import Image as PillowImage
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage

from mobilevlm_ros.cli import main
from mobilevlm_ros.client import VLM
from mobilevlm_ros.ros.camera import FIRST_PICTURE_SECONDS
from mobilevlm_ros.runtime.errors import ErrorCode
from tests.system.graph import PATIENCE, SOON, Caller, Camera, Listener, Process, fails, picture, running_node, until

NAME = "lazy_vlm"
LINGER = 0.6
NEXT = 1


@pytest.fixture(scope="module")
def node(random_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    log = tmp_path_factory.mktemp("lazy") / "node.log"
    with running_node(
        NAME, log, model=random_package, cameras=("front", "rear", "silent"), camera_linger=LINGER, max_tokens=2
    ) as process:
        yield process


@pytest.fixture(scope="module")
def vlm(tester: Node, node: Process) -> VLM:
    client = VLM(tester, NAME)
    client.wait_until_there(PATIENCE)
    until(lambda: "listens on /rear/image" in node.log)
    return client


@pytest.fixture(scope="module")
def front(tester: Node) -> Camera:
    return Camera(tester, "/front/image")


@pytest.fixture(scope="module")
def rear(tester: Node) -> Camera:
    return Camera(tester, "/rear/image")


def listeners(camera: Camera) -> int:
    return int(camera.publisher.get_subscription_count())


def idle(*cameras: Camera) -> None:
    until(lambda: not any(map(listeners, cameras)))


def test_nobody_listens_to_a_camera_that_nobody_asks_about(vlm: VLM, front: Camera, rear: Camera) -> None:
    idle(front, rear)
    time.sleep(2 * LINGER)
    assert (listeners(front), listeners(rear)) == (0, 0)


def test_a_question_opens_its_camera_alone_and_waits_for_its_first_picture(vlm: VLM, front: Camera, rear: Camera) -> None:
    idle(front, rear)
    with front.streaming(), rear.streaming():
        asked, began = front.header(), time.monotonic()
        answer = vlm.ask("What is it?", camera="front")
        assert listeners(rear) == 0
        assert listeners(front) == 1 or time.monotonic() - began >= LINGER
    stamp = answer.info.header.stamp
    assert (stamp.sec, stamp.nanosec) > (asked.stamp.sec, asked.stamp.nanosec)


def test_the_camera_is_left_when_its_linger_is_over_and_not_before(vlm: VLM, front: Camera) -> None:
    with front.streaming():
        for _ in range(4):
            began = time.monotonic()
            vlm.ask("What is it?", camera="front")
            time.sleep(LINGER / 3)
            assert listeners(front) == 1 or time.monotonic() - began >= LINGER
        until(lambda: not listeners(front))


def test_the_next_picture_of_an_idle_camera_can_be_asked_for(vlm: VLM, front: Camera) -> None:
    idle(front)
    with front.streaming():
        vlm.ask("What is it?", camera="front", frame_policy=NEXT)


def test_a_camera_that_sends_nothing_is_no_image_long_before_the_deadline(vlm: VLM) -> None:
    start = time.monotonic()
    fails(lambda: vlm.ask("What is it?", camera="silent", timeout=PATIENCE), ErrorCode.NO_IMAGE, "silent")
    assert FIRST_PICTURE_SECONDS - 0.5 < time.monotonic() - start < FIRST_PICTURE_SECONDS + SOON


def test_the_wait_for_the_first_picture_ends_with_the_deadline(vlm: VLM, tester: Node) -> None:
    silent = Camera(tester, "/silent/image")
    ask = Caller(tester, Ask, f"/{NAME}/ask")  # unlike `VLM` it has no deadline of its own
    options = RequestOptions(camera="silent", timeout=Duration(nanosec=500_000_000))
    idle(silent)
    start = time.monotonic()
    assert ask(Ask.Request(question="What is it?", options=options)).error_code == ErrorCode.NO_IMAGE
    assert time.monotonic() - start < FIRST_PICTURE_SECONDS
    ask.close()
    tester.destroy_publisher(silent.publisher)


def test_of_a_still_camera_the_last_picture_counts_for_who_allows_its_age(vlm: VLM, front: Camera) -> None:
    with front.streaming():
        vlm.ask("What is it?", camera="front")
    idle(front)
    start = time.monotonic()
    vlm.ask("What is it?", camera="front", max_age=600.0)
    assert time.monotonic() - start > FIRST_PICTURE_SECONDS - 0.5


@contextmanager
def streaming_compressed(camera: Camera, data: bytes) -> Iterator[None]:
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.05):
            camera.show_compressed(data, "png")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_an_idle_camera_that_is_published_compressed_is_found_again(vlm: VLM, tester: Node) -> None:
    packed = Camera(tester, "/silent/image/compressed", CompressedImage)
    idle(packed)
    stream = io.BytesIO()
    PillowImage.fromarray(picture(64, 48)).save(stream, "png")
    with streaming_compressed(packed, stream.getvalue()):
        answer = vlm.ask("What is it?", camera="silent")
    assert answer.info.camera == "silent"
    tester.destroy_publisher(packed.publisher)


def test_an_idle_camera_is_in_order_for_diagnostics_and_doctor(vlm: VLM, tester: Node, front: Camera, rear: Camera) -> None:
    heard = Listener(tester, DiagnosticArray, "/diagnostics")
    with front.streaming(), rear.streaming():
        idle(front, rear)
        heard.messages.clear()
        message = heard.first(lambda array: array.status[0].name == f"/{NAME}: model")
        status = next(status for status in message.status if status.name == f"/{NAME}: camera front")
        assert (status.level, status.message) == (DiagnosticStatus.OK, "idle: nobody asks")
        with redirect_stdout(io.StringIO()) as printed:
            main(["doctor", "--graph", "--node", NAME, "--seconds", "6", "--json"])
        checks = json.loads(printed.getvalue())["checks"]
        found = {check["name"]: check for check in checks if check["group"] == "/front/image"}
        assert {check["status"] for check in found.values()} == {"PASS"}, found
        assert {"listening", "QoS", "encoding", "stamps"} <= set(found)
        assert "idle" in found["listening"]["detail"]
        for topic in ("/front/image", "/rear/image"):
            assert NAME not in [info.node_name for info in tester.get_subscriptions_info_by_topic(topic)]
        assert next(c for c in checks if c["group"] == "/silent/image" and c["name"] == "publisher")["status"] == "FAIL"


def test_with_a_linger_of_0_a_camera_stays_listened_to(vlm: VLM, tester: Node, front: Camera) -> None:
    change = Caller(tester, SetParameters, f"/{NAME}/set_parameters")

    def set_linger(seconds: float) -> None:
        value = Parameter("camera_linger", value=seconds).to_parameter_msg()
        assert change(SetParameters.Request(parameters=[value])).results[0].successful

    set_linger(0.0)
    with front.streaming():
        vlm.ask("What is it?", camera="front")
        time.sleep(LINGER + 1.5)
        assert listeners(front) == 1
        set_linger(LINGER)
        idle(front)
    change.close()


def test_nothing_of_this_was_a_fault_of_the_node(vlm: VLM, node: Process) -> None:
    assert node.ended is None
    assert "receiving a picture failed" not in node.log
    assert "raised" not in node.log

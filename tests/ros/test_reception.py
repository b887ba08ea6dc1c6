"""The thread that takes pictures, on real topics of rclpy: what reaches a callback, and subscriptions that come and go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="the reception needs ROS 2")

import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from mobilevlm_ros.ros.camera import CameraSlot, Times
from mobilevlm_ros.ros.inputs import CameraInput
from mobilevlm_ros.ros.parameters import Transport
from mobilevlm_ros.ros.reception import Reception
from mobilevlm_ros.runtime.requests import CancelToken
from tests.ros.steady_node import steady_node


@pytest.fixture
def node() -> Iterator[Node]:
    with steady_node("reception_test", 2) as node:
        yield node


@pytest.fixture
def reception(node: Node) -> Iterator[Reception]:
    reception = Reception(node.context)
    yield reception
    reception.close()


def listen(node: Node, reception: Reception, callback: Callable[[bytes], None]) -> Any:
    subscription = node.create_subscription(Image, "image", callback, 1, callback_group=reception.group, raw=True)
    reception.do(lambda: reception.add(subscription)).result()
    return subscription


def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def until_there_are(items: list[Any], number: int) -> None:
    until(lambda: len(items) >= number)


def test_each_message_reaches_the_callback_once_and_in_the_receptions_thread(node: Node, reception: Reception) -> None:
    came: list[tuple[str, int]] = []
    listen(node, reception, lambda data: came.append((threading.current_thread().name, len(data))))
    publisher = node.create_publisher(Image, "image", 1)
    until(publisher.get_subscription_count)
    for number in range(1, 11):
        publisher.publish(Image(data=bytes(100)))
        until_there_are(came, number)
    time.sleep(0.1)
    assert {name for name, _ in came} == {"mobilevlm-pictures"}
    assert len(came) == 10
    assert all(length > 100 for _, length in came)


def test_a_callback_that_raises_ends_neither_the_thread_nor_the_subscription(node: Node, reception: Reception) -> None:
    came: list[bytes] = []

    def callback(data: bytes) -> None:
        came.append(data)
        raise RuntimeError("a defect")

    listen(node, reception, callback)
    publisher = node.create_publisher(Image, "image", 1)
    until(publisher.get_subscription_count)
    for number in (1, 2, 3):
        publisher.publish(Image())
        until_there_are(came, number)


def test_what_work_raises_is_told_to_who_waits_for_it(reception: Reception) -> None:
    def work() -> None:
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        reception.do(work).result(5.0)
    assert reception.do(lambda: None).result(5.0) is None


def test_regular_work_is_done_only_while_something_is_listened_to(node: Node, reception: Reception) -> None:
    turns: list[float] = []
    reception.regularly(lambda: turns.append(time.monotonic()))
    reception.do(lambda: None).result(5.0)
    time.sleep(0.7)
    assert not turns
    subscription = listen(node, reception, lambda data: None)
    until(lambda: len(turns) >= 2, 3.0)
    reception.do(lambda: reception.remove(subscription)).result(5.0)
    before = len(turns)
    time.sleep(0.7)
    assert len(turns) == before


def test_closing_ends_the_thread_and_work_that_comes_later_is_cancelled(node: Node) -> None:
    reception = Reception(node.context)
    listen(node, reception, lambda data: None)
    reception.close()
    assert "mobilevlm-pictures" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(CancelledError):
        reception.do(lambda: None).result(5.0)
    reception.close()


def test_the_end_of_the_context_ends_the_thread_and_nobody_waits_for_it(node: Node) -> None:
    context = rclpy.Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    reception = Reception(context)
    reception.do(lambda: None).result(5.0)
    rclpy.shutdown(context=context)
    with pytest.raises(CancelledError):
        while True:
            reception.do(lambda: None).result(5.0)
    reception.close()


def camera_input(node: Node, reception: Reception, linger: float) -> CameraInput:
    def times() -> Times:
        return Times(node.get_clock().now().nanoseconds, is_wall=True)

    return CameraInput(node, reception, CameraSlot("camera", times), "image", lambda: linger)


def stream(node: Node, publisher: Any, stop: threading.Event) -> None:
    while not stop.wait(0.01):
        message = Image(data=bytes(30000))
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)


def test_a_camera_is_opened_and_closed_200_times_while_its_pictures_stream(node: Node, reception: Reception) -> None:
    camera = camera_input(node, reception, 0.0)
    stop = threading.Event()
    publisher = node.create_publisher(Image, "image", 1)
    streaming = threading.Thread(target=stream, args=(node, publisher, stop))
    streaming.start()
    try:
        for _ in range(200):
            camera.open(Transport.RAW)
            assert camera.topics == ("/image",)
            camera.close()
            assert camera.topics == ()
        assert camera.slot.newest is None
        camera.open(Transport.RAW)
        taken = camera.slot.take_newest(1.0, time.monotonic() + 10.0, CancelToken())
        assert taken.age(Times(node.get_clock().now().nanoseconds, is_wall=True)) < 1.0
    finally:
        stop.set()
        streaming.join()
        camera.close()
    until(lambda: not publisher.get_subscription_count())


def test_a_camera_that_is_held_stays_open_and_is_left_after_its_linger_without_a_use(node: Node, reception: Reception) -> None:
    camera = camera_input(node, reception, 0.2)
    camera.open(Transport.RAW)
    with camera.slot.demand.hold():
        time.sleep(1.0)
        assert camera.topics
        assert camera.slot.listening.name == "OPENING"
    until(lambda: not camera.topics, 2.0)
    assert camera.slot.listening.name == "NO"
    assert camera.wanted_topics() == ("/image",)
    camera.slot.demand.use()
    until(lambda: camera.topics, 2.0)
    camera.close()


def test_a_camera_of_an_inactive_node_is_not_opened_by_a_use(node: Node, reception: Reception) -> None:
    camera = camera_input(node, reception, 1.0)
    camera.slot.demand.use()
    reception.do(lambda: None).result(5.0)
    assert camera.topics == camera.wanted_topics() == ()

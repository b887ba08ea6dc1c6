"""Pictures with a bag's own stamps under a bag's own clock, and the quality of service of the cameras, over real DDS."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import QoSReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from mobilevlm_ros.client import VLM
from mobilevlm_ros.demo.player import Recorded, read, restamped
from mobilevlm_ros.demo.run import BAG
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from tests.system.graph import PATIENCE, Caller, Process, fails, running_node, until

NAME = "bag_vlm"
BEGAN_NS = 1_600_000_000_000_000_000
"""The moment, years ago, at which the recording is told to have begun."""
SECOND = 1_000_000_000
NEXT = 1
OVERRIDES = {"reliability": "reliable", "depth": 4}


class Playback:
    """Plays the recording's pictures and its time, moment by moment, as `ros2 bag play --clock` does."""

    def __init__(self, node: Node) -> None:
        self._clock = node.create_publisher(Clock, "/clock", 10)
        self.pictures = node.create_publisher(CompressedImage, "/front/image/compressed", 1)
        self._recorded = [message for message in read(BAG) if message.kind is CompressedImage]
        self.now = BEGAN_NS

    def tell_time(self, seconds: float = 0.0) -> None:
        """Moves the time on and tells it."""
        self.now += round(seconds * SECOND)
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(self.now, SECOND)
        self._clock.publish(message)

    def show(self, number: int = 0, age: float = 0.0) -> Header:
        """Publishes a picture, stamped `age` seconds ago on the bag's clock; returns the header it has."""
        picture: Recorded = self._recorded[number]
        stamp = self.now - round(age * SECOND)
        self.pictures.publish(restamped(picture.cdr, stamp))
        header = Header()
        header.stamp.sec, header.stamp.nanosec = divmod(stamp, SECOND)
        return header


@pytest.fixture(scope="module")
def node(nano_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    log = tmp_path_factory.mktemp("bag") / "node.log"
    overrides = {f"qos_overrides./rear/image.subscription.{policy}": value for policy, value in OVERRIDES.items()}
    parameters: dict[str, Any] = {"cameras": ("front", "rear"), "camera_linger": 0.0, "use_sim_time": True, **overrides}
    with running_node(NAME, log, model=nano_package, max_tokens=2, max_image_age=1.0, **parameters) as process:
        yield process


@pytest.fixture(scope="module")
def vlm(tester: Node, node: Process) -> VLM:
    return VLM(tester, NAME, connect_timeout=PATIENCE)


@pytest.fixture(scope="module")
def playback(tester: Node, vlm: VLM) -> Playback:
    playback = Playback(tester)
    until(playback.pictures.get_subscription_count)

    def answers() -> bool:
        playback.tell_time()
        playback.show()
        return answered(vlm) is not None

    until(answers)
    return playback


def answered(vlm: VLM, **options: Any) -> Header | None:
    """The stamp of the picture that a question was answered from."""
    try:
        header = vlm.ask("Is there a ball?", camera="front", max_tokens=1, **options).info.header
    except VlmError as error:
        assert error.code in (ErrorCode.NO_IMAGE, ErrorCode.STALE_IMAGE, ErrorCode.NOT_ACTIVE), error
        return None
    return Header(stamp=header.stamp)


def test_a_picture_of_years_ago_is_answered_from_while_the_bags_clock_is_there(vlm: VLM, playback: Playback) -> None:
    playback.tell_time(2.0)
    header = playback.show(3)
    until(lambda: answered(vlm) == header)


def test_the_bags_clock_makes_a_picture_stale_and_not_the_time_that_goes_by(vlm: VLM, playback: Playback) -> None:
    playback.tell_time(2.0)
    header = playback.show()
    until(lambda: answered(vlm) == header)
    playback.tell_time(1.5)
    until(lambda: answered(vlm) is None)
    fails(lambda: vlm.ask("Is there a ball?", camera="front"), ErrorCode.STALE_IMAGE, "1.50 s old")
    assert answered(vlm, max_age=2.0) == header


def test_next_is_after_now_on_the_bags_clock(vlm: VLM, playback: Playback) -> None:
    playback.tell_time(2.0)
    before = playback.show()
    until(lambda: answered(vlm) == before)
    found: list[Header | None] = []
    asking = threading.Thread(target=lambda: found.append(answered(vlm, frame_policy=NEXT, timeout=PATIENCE)))
    asking.start()
    asking.join(0.5)
    assert asking.is_alive()
    playback.show(age=0.5)  # newly come, but taken before the question
    asking.join(0.5)
    assert asking.is_alive()
    playback.tell_time(0.1)
    after = playback.show()
    asking.join(PATIENCE)
    assert found == [after]


def test_a_bag_that_is_played_again_from_its_start_is_answered_from(vlm: VLM, playback: Playback) -> None:
    playback.tell_time(-4.0)
    header = playback.show()
    until(lambda: answered(vlm) == header)


def _reliability(tester: Node, topic: str) -> QoSReliabilityPolicy:
    (mine,) = (info for info in tester.get_subscriptions_info_by_topic(topic) if info.node_name == NAME)
    return mine.qos_profile.reliability


def _parameter(tester: Node, name: str) -> Any:
    get = Caller(tester, GetParameters, f"/{NAME}/get_parameters")
    value = parameter_value_to_python(get(GetParameters.Request(names=[name])).values[0])
    get.close()
    return value


def test_a_camera_is_listened_to_as_sensor_data_one_deep(vlm: VLM, playback: Playback, tester: Node) -> None:
    assert _reliability(tester, "/front/image") is QoSReliabilityPolicy.BEST_EFFORT
    assert _parameter(tester, "qos_overrides./front/image.subscription.depth") == 1
    assert _parameter(tester, "qos_overrides./front/image.subscription.history") == "keep_last"


def test_each_cameras_quality_of_service_can_be_overridden_by_parameter(vlm: VLM, playback: Playback, tester: Node) -> None:
    assert _reliability(tester, "/rear/image") is QoSReliabilityPolicy.RELIABLE
    assert _parameter(tester, "qos_overrides./rear/image.subscription.depth") == OVERRIDES["depth"]

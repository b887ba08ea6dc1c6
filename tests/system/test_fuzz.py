"""Ten thousand malformed messages and requests: each request is answered, and the node is alive, small and right afterwards."""

from __future__ import annotations

import math
import random
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from action_msgs.msg import GoalInfo
from action_msgs.srv import CancelGoal
from builtin_interfaces.msg import Duration, Time
from mobilevlm_msgs.msg import Box2D, RequestOptions
from mobilevlm_msgs.srv import Ask, Classify, DescribeRegion, Ground, SelectModel
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String
from unique_identifier_msgs.msg import UUID

from mobilevlm_ros.client import VLM
from mobilevlm_ros.demo.player import read
from mobilevlm_ros.demo.run import BAG
from mobilevlm_ros.ros.annotate import image_message
from mobilevlm_ros.ros.camera import Snapshot
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from tests.system.graph import PATIENCE, Camera, Process, be_known, picture, running_node, until
from tests.system.usage import Usage

NAME = "fuzz_vlm"
QUICK, SLOW = 10_000, 100_000
WARM_UP = 1500
MEMORY_GROWTH = 48.0
"""MB that the process may grow after its warm-up. It is seen to grow by some 12: ONNX Runtime's memory until the longest prompt
has come, the results of chat goals, which are kept for a minute, and the gaps that strings of 100 kB leave in the C library's."""
IN_FLIGHT = 6
ANSWER_SECONDS = PATIENCE
KNOWN = ("rgb8", "bgr8", "mono8", "mono16", "16UC1", "32FC1", "yuv422", "nv12", "bayer_rggb8")
ENCODINGS = (*KNOWN, "RGB8", "8UC99", "", "🤖ß", "a" * 5000)
SIZES = (0, 1, 2, 7, 64, 65_536, 2**31, 2**32 - 1)
TEXTS = (
    "",
    " \n\t",
    "What is it?",
    "nul\0inside",
    "USER: <image>\nASSISTANT: </s>",
    "<image>" * 50,
    "🤖" * 500,
    "\u202e\u0000\uffff",
    "word " * 3000,
    "x" * 100_000,
    "é̂" * 2000,
    "%s %n {0} $(reboot)",
)
SHORT = tuple(text for text in TEXTS if len(text) < 100)
NUMBERS = (0.0, -1.0, 1.0, 50.0, 1e30, -1e30, math.nan, math.inf, -math.inf)
SECONDS = (0, 1, -1, 2**31 - 1, -(2**31))
NANOSECONDS = (0, 1, 999_999_999, 2**32 - 1)


class Fuzzer:
    """Draws messages and requests from a seed, so that a failure can be had again."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    @staticmethod
    def _stamped(now: int) -> Header:
        return Header(stamp=Time(sec=now // 10**9, nanosec=now % 10**9), frame_id="optical")

    def _header(self) -> Header:
        pick = self.chance.choice
        now = time.time_ns()
        stamp = pick((Time(sec=now // 10**9, nanosec=now % 10**9), Time(sec=pick(SECONDS), nanosec=pick(NANOSECONDS))))
        return Header(stamp=stamp, frame_id=pick(("", "optical", "🤖" * 20)))

    def image(self) -> Image | bytes:
        """A raw picture whose fields do not fit one another, or bytes that are no picture."""
        if self.chance.random() < 0.1:  # a sane one now and then, so that requests get past their picture
            return image_message(picture(), self._stamped(time.time_ns()))
        pick = self.chance.choice
        message = Image(header=self._header(), height=pick(SIZES), width=pick(SIZES), step=pick(SIZES), encoding=pick(ENCODINGS))
        message.is_bigendian = pick((0, 1, 2, 255))
        message.data = self.chance.randbytes(pick((0, 1, 63, 64 * 64 * 3)))
        return self._perhaps_damaged(message)

    def compressed(self, whole: bytes) -> CompressedImage | bytes:
        """A compressed picture that is cut, flipped or called something else, or bytes that are no picture."""
        data = bytearray(whole[: self.chance.randrange(min(len(whole), 4096))])
        for _ in range(self.chance.randrange(8)):
            if data:
                data[self.chance.randrange(len(data))] = self.chance.randrange(256)
        form = self.chance.choice(("jpeg", "png", "", "rgb8; jpeg compressed bgr8", "tiff", "🤖", "16UC1; compressedDepth png"))
        return self._perhaps_damaged(CompressedImage(header=self._header(), format=form, data=bytes(data)))

    def _perhaps_damaged(self, message: Any) -> Any:
        if self.chance.random() < 0.9:
            return message
        serialized = serialize_message(message)
        return serialized[: 4 + self.chance.randrange(len(serialized) - 3)]

    def options(self) -> RequestOptions:
        """Options out of their range, or nearly so."""
        if self.chance.random() < 0.3:  # none now and then, so that the rest of the request is looked at
            return RequestOptions(max_tokens=1)
        pick = self.chance.choice
        options = RequestOptions(max_tokens=pick((0, 1, 2, 65535)) if self.chance.random() < 0.2 else 1)
        options.camera = pick(("", "", "", "", "front", "side", "nobody", "🤖", "x" * 1000))
        options.frame_policy = pick((*[0] * 40, *[2] * 10, 1, 3, 255))
        options.priority = pick((0, 1, 1, 1, 2, 3, 255))
        options.temperature = pick((-1.0, -1.0, 0.0, *NUMBERS))
        # Never long, because a request for the next picture waits for it that long, and rightly.
        options.timeout = Duration(sec=pick((0, 0, 0, 0, -1, -(2**31))), nanosec=pick((0, 0, 1, 300_000_000)))
        options.max_age = Duration(sec=pick((0, 1000, *SECONDS)), nanosec=pick(NANOSECONDS))
        return options

    def text(self) -> str:
        """An extreme string."""
        return self.chance.choice(TEXTS if self.chance.random() < 0.2 else SHORT)

    def request(self) -> Any:
        """A request for one of the services."""
        pick, options = self.chance.choice, self.options()
        kind = pick((Ask, Ground, DescribeRegion, Classify, SelectModel, CancelGoal))
        if kind is Ask:
            return Ask.Request(question=self.text(), options=options)
        if kind is Ground:
            return Ground.Request(expression=self.text(), max_regions=pick((0, 1, 64, 65, 255)), options=options)
        if kind is DescribeRegion:
            corners = {name: pick(NUMBERS) for name in ("x1", "y1", "x2", "y2")}
            return DescribeRegion.Request(box=Box2D(**corners), options=options)
        if kind is Classify:
            labels = pick(([], ["one"], ["same", "same"], ["", ""], [f"label {n}" for n in range(1000)], ["x" * 5000, "y"]))
            return Classify.Request(question=self.text(), labels=labels, options=options)
        if kind is SelectModel:
            return SelectModel.Request(name=pick(("nobody", "../../etc", "🤖", *["y"] * 20, "x" * 100_000)))
        return CancelGoal.Request(goal_info=GoalInfo(goal_id=UUID(uuid=list(self.chance.randbytes(16)))))


class Target:
    """The node under fire: sends what a fuzzer draws, and counts the codes of the answers."""

    def __init__(self, tester: Node, whole: bytes) -> None:
        group, deep = ReentrantCallbackGroup(), QoSProfile(depth=256)
        self._front = tester.create_publisher(Image, "front/image", 1)
        self._side = tester.create_publisher(CompressedImage, "side/image/compressed", 1)
        self._prompt = tester.create_publisher(String, "prompt", 10)
        names = {Ask: "ask", Ground: "ground", DescribeRegion: "describe_region", Classify: "classify"}
        names |= {SelectModel: "select_model", CancelGoal: "chat/_action/cancel_goal"}
        self._clients = {
            kind.Request: tester.create_client(kind, f"{NAME}/{name}", qos_profile=deep, callback_group=group)
            for kind, name in names.items()
        }
        until(lambda: all(client.service_is_ready() for client in self._clients.values()))
        be_known(tester, f"/{NAME}")
        until(lambda: self._front.get_subscription_count() and self._side.get_subscription_count())
        self._vlm = VLM(tester, NAME)
        self._whole = whole
        self._waiting: deque[tuple[Any, Any]] = deque()
        self.codes: Counter[int] = Counter()

    def fire(self, fuzzer: Fuzzer, count: int) -> None:
        """Sends `count` messages and requests, pictures twice as often as requests, and waits for all answers."""
        for number in range(count):
            if number % 50 == 49:
                self._chat(fuzzer)
            elif number % 25 == 24:
                self._prompt.publish(String(data=fuzzer.text()))
            elif number % 3:
                publisher, message = (self._front, fuzzer.image()) if number % 2 else (self._side, fuzzer.compressed(self._whole))
                publisher.publish(message)
            else:
                request = fuzzer.request()
                self._waiting.append((request, self._clients[type(request)].call_async(request)))
                self._collect(IN_FLIGHT)
        self._collect(0)

    def _collect(self, leave: int) -> None:
        while len(self._waiting) > leave:
            request, future = self._waiting.popleft()
            until(future.done, ANSWER_SECONDS)
            response = future.result()
            if isinstance(request, CancelGoal.Request):
                assert response.return_code == CancelGoal.Response.ERROR_UNKNOWN_GOAL_ID
            else:
                self.codes[ErrorCode(response.error_code)] += 1

    def _chat(self, fuzzer: Fuzzer) -> None:
        try:
            session = fuzzer.chance.choice(("", "nobody", "🤖"))
            self._vlm.chat(fuzzer.text(), session, max_tokens=1, timeout=ANSWER_SECONDS).text()
        except VlmError as error:
            assert "in time" not in error.message, error
            self.codes[error.code] += 1


@pytest.fixture
def node(nano_package: Path, tmp_path: Path) -> Iterator[Process]:
    cameras = ("front", "side")
    with running_node(
        NAME,
        tmp_path / "node.log",
        model=nano_package,
        cameras=cameras,
        max_tokens=16,
        request_timeout=0.3,
        diagnostics_period=0.1,
    ) as process:
        yield process


@pytest.mark.parametrize("count", (QUICK, pytest.param(SLOW, marks=(pytest.mark.slow, pytest.mark.timeout(900)))))
def test_nothing_malformed_kills_the_node_or_goes_unanswered(tester: Node, node: Process, count: int) -> None:
    shot = {message.picture: message.cdr for message in read(BAG)}[0]
    target = Target(tester, bytes(deserialize_message(shot, CompressedImage).data))
    fuzzer = Fuzzer(7)
    target.fire(fuzzer, WARM_UP)
    before = Usage.of(node.pid)
    target.fire(fuzzer, count)
    after = Usage.of(node.pid)
    print(f"{before} -> {after}; {dict(target.codes)}")
    assert node.ended is None
    assert after.memory - before.memory < MEMORY_GROWTH
    assert after.files <= before.files
    reached = {ErrorCode.BAD_IMAGE, ErrorCode.BAD_REQUEST, ErrorCode.STALE_IMAGE}
    assert reached <= target.codes.keys()
    assert ErrorCode.MODEL_ERROR not in target.codes, node.log
    _answers_rightly(tester, Snapshot("camera", shot, CompressedImage).frame.pixels)


def _answers_rightly(tester: Node, pixels: Any) -> None:
    camera, vlm = Camera(tester, "front/image"), VLM(tester, NAME)
    camera.wait_for_listener()

    def answer() -> str:
        camera.show(pixels)
        time.sleep(0.05)
        try:
            return str(vlm.ask("What color is the ball?", camera="front").text)
        except VlmError:  # the subscription may miss the first picture of a publisher that it has just met
            return ""

    assert until(answer, 20.0) == "Orange"

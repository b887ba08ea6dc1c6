"""What the system tests share: the node as a process, a camera, and a node of the tests' own, all on real DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="the system tests need ROS 2")

import rclpy
from rcl_interfaces.srv import GetParameters
from rclpy.client import Client
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from mobilevlm_ros.client import VLM
from mobilevlm_ros.ros.annotate import image_message
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from tests.conftest import SIMULATED_TENSORRT

PATIENCE = 60.0
"""Seconds within which what must come has come, also on a slow and busy machine. It costs nothing where it does."""

SOON = 10.0
"""Seconds within which comes what waits for nothing, also on such a machine; what it is told apart from takes longer."""


def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Waits for the condition to become true and returns its value; fails the test where it does not."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain")
        time.sleep(0.01)
    return value


class Process:
    """A child process whose output goes to a file."""

    def __init__(self, command: Sequence[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self.log_file = log
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                list(command),
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """What it printed so far."""
        return self.log_file.read_text(errors="replace")

    @property
    def ended(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.poll()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, number: int) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Waits for the end; returns the exit code."""
        return self._process.wait(seconds)

    def stop(self) -> int:
        """Ends it with SIGINT, with SIGKILL where that does not help; returns the exit code."""
        if self.ended is None:
            self.send(signal.SIGINT)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self.wait()


ON_SIMULATED_TENSORRT = (sys.executable, "-m", "mobilevlm_ros.doctor.simulated.libraries", "mobilevlm_ros.ros.node:main")
"""The node's program on a machine that seems to have TensorRT and a device."""
PROGRAM = ON_SIMULATED_TENSORRT if os.environ.get(SIMULATED_TENSORRT) else (sys.executable, "-m", "mobilevlm_ros.ros.node")

BACKEND = "tensorrt-10.16.0-trt" if os.environ.get(SIMULATED_TENSORRT) else "onnxruntime-cpu"
"""What such a node runs its model on."""


def node_command(name: str, program: Sequence[str] = PROGRAM, **parameters: Any) -> list[str]:
    """The command line of the node's process; tuples become lists."""
    command = [*program, "--ros-args", "-r", f"__node:={name}"]
    for key, value in parameters.items():
        text = str(list(value)) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else str(value)
        command += ["-p", f"{key}:={text}"]
    return command


@contextmanager
def running_node(name: str, log: Path, remap: Sequence[str] = (), **parameters: Any) -> Iterator[Process]:
    """The node's process, with a clean end that the test checks."""
    command = node_command(name, **parameters)
    for rule in remap:
        command += ["-r", rule]
    process = Process(command, log)
    try:
        yield process
    finally:
        was_running = process.ended is None
        code = process.stop()
    if was_running:
        assert code == 0, process.log
        assert "Traceback" not in process.log


@contextmanager
def own_node(name: str = "tester") -> Iterator[Node]:
    """A node of the test process, spun in a thread."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context, signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    node = Node(name, context=context, use_global_arguments=False)
    executor = MultiThreadedExecutor(8, context=context)
    executor.add_node(node)
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            try:
                executor.spin_once(timeout_sec=0.2)
            except InvalidHandle:  # a test has just destroyed something of the node in its own thread
                continue
            except ExternalShutdownException:
                return

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield node
    finally:
        stop.set()
        executor.wake()
        thread.join()
        executor._executor.shutdown(wait=True)
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)


def picture(width: int = 96, height: int = 64, seed: int = 0) -> np.ndarray:
    """A random RGB picture."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


class Camera:
    """Publishes pictures on one topic."""

    def __init__(self, node: Node, topic: str, kind: type[Any] = Image) -> None:
        self._node = node
        self.publisher = node.create_publisher(kind, topic, 1)

    def wait_for_listener(self) -> None:
        """Waits until somebody listens."""
        until(self.publisher.get_subscription_count)

    def header(self, offset: float = 0.0) -> Header:
        """A header stamped now, or `offset` seconds later."""
        header = Header(frame_id="optical")
        stamp = self._node.get_clock().now().nanoseconds + round(offset * 1e9)
        header.stamp.sec, header.stamp.nanosec = divmod(stamp, 1_000_000_000)
        return header

    def show(self, pixels: np.ndarray | None = None, offset: float = 0.0) -> Header:
        """Publishes a picture and returns its header."""
        header = self.header(offset)
        self.publisher.publish(image_message(picture() if pixels is None else pixels, header))
        return header

    def show_compressed(self, data: bytes, form: str) -> Header:
        """Publishes compressed data and returns its header."""
        header = self.header()
        self.publisher.publish(CompressedImage(header=header, format=form, data=list(data)))
        return header

    @contextmanager
    def streaming(self, rate: float = 20.0, pixels: np.ndarray | None = None) -> Iterator[None]:
        """Publishes a picture over and over."""
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(1 / rate):
                self.show(pixels)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


class Listener:
    """Keeps what comes on a topic."""

    def __init__(self, node: Node, kind: type[Any], topic: str) -> None:
        self.messages: list[Any] = []
        self._subscription = node.create_subscription(kind, topic, self.messages.append, 10)
        be_known(node, *until(lambda: _publishers(node, topic)))

    def first(self, condition: Callable[[Any], bool] = lambda _: True) -> Any:
        """The first message that fits."""
        return until(lambda: next((message for message in list(self.messages) if condition(message)), None))


def _publishers(node: Node, topic: str) -> set[str]:
    """The names of the nodes that publish a topic; none while one of them has not told its name."""
    names = {f"{info.node_namespace.rstrip('/')}/{info.node_name}" for info in node.get_publishers_info_by_topic(topic)}
    return set() if any("UNKNOWN" in name for name in names) else names


def be_known(node: Node, *others: str) -> None:
    """Waits until other nodes, which are spun, have discovered all that `node` has made so far.

    What a node sends to a subscription or a client that it has not discovered is lost. Which there are is told in the order of
    their making, so a node that answers the one made last knows them all.
    """
    for other in others:
        greeting = node.create_client(GetParameters, f"{other}/get_parameters")
        until(greeting.service_is_ready)

        def answers_or_has_gone(greeting: Client = greeting) -> bool:
            answered = threading.Event()
            greeting.call_async(GetParameters.Request()).add_done_callback(lambda _: answered.set())
            return answered.wait(1.0) or not greeting.service_is_ready()

        until(answers_or_has_gone)
        node.destroy_client(greeting)


class Caller:
    """Calls one service of a node, which has discovered this client of it."""

    def __init__(self, node: Node, kind: type[Any], service: str) -> None:
        self._node = node
        self._client = node.create_client(kind, service)
        until(self._client.service_is_ready)
        be_known(node, service.rpartition("/")[0])

    def begin(self, request: Any) -> Future:
        """Sends a request."""
        return self._client.call_async(request)

    def __call__(self, request: Any) -> Any:
        """The response."""
        future = self.begin(request)
        until(future.done)
        return future.result()

    def close(self) -> None:
        """Calls no more."""
        self._node.destroy_client(self._client)


def until_seen(vlm: VLM, camera: Camera) -> None:
    """Shows pictures until the node answers from one: a subscription that has just matched may miss the first."""

    def answers() -> bool:
        camera.show()
        try:
            # Short, because an answer is lost where the node has not yet discovered the client that it is for.
            vlm.ask("Is somebody there?", max_tokens=1, max_age=1000.0, timeout=2.0)
        except VlmError as error:
            assert error.code in (ErrorCode.NO_IMAGE, ErrorCode.NOT_ACTIVE, ErrorCode.DEADLINE_EXCEEDED), error
            return False
        return True

    until(answers)


def is_taken_back(attempt: Callable[[], int]) -> bool:
    """Whether an answer that is taken back ends as CANCELLED.

    Args:
        attempt: begins a long answer, takes it back and returns its code. Where the machine is so slow that the answer was over
            before, it is made again, twice at most.
    """
    codes = (attempt() for _ in range(3))
    return next((code for code in codes if code != ErrorCode.NONE), ErrorCode.NONE) == ErrorCode.CANCELLED


@dataclass(frozen=True)
class Served:
    """A node that answers questions about the pictures of a camera."""

    process: Process
    camera: Camera
    vlm: VLM


@contextmanager
def serving(tester: Node, name: str, folder: Path, **parameters: Any) -> Iterator[Served]:
    """The node's process with one camera on `image`, after its first answer; its log lies in `folder`. Pictures do not age."""
    with running_node(name, folder / "node.log", **{"max_image_age": 1000.0, **parameters}) as process:
        camera, vlm = Camera(tester, "image"), VLM(tester, name)
        vlm.wait_until_ready(PATIENCE)
        until_seen(vlm, camera)
        yield Served(process, camera, vlm)


def fails(call: Callable[[], Any], code: ErrorCode, words: str = "") -> None:
    """Asserts that a request ends with this code, and a line that holds these words."""
    with pytest.raises(VlmError) as caught:
        call()
    assert caught.value.code is code
    assert words in caught.value.message
    assert "\n" not in caught.value.message

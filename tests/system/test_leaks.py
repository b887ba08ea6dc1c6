"""Up and down, and taken back, over and over: memory, threads and file descriptors stay where they were."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node

from mobilevlm_ros.client import VLM
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from tests.system.graph import PATIENCE, SOON, Caller, Camera, Process, running_node, until, until_seen
from tests.system.usage import Usage

NAME = "leaks_vlm"
UP_AND_DOWN = (
    Transition.TRANSITION_CONFIGURE,
    Transition.TRANSITION_ACTIVATE,
    Transition.TRANSITION_DEACTIVATE,
    Transition.TRANSITION_CLEANUP,
)
WARM_UP_CYCLES, LEAST_CYCLES, CYCLES, QUICK_SECONDS = 8, 10, 200, 20.0
GOALS, QUICK_GOALS = 500, 100
MEMORY_GROWTH = 24.0
"""MB that the process may grow after its warm-up: the allocator's own spread, far below one model or 200 leaked cameras."""

POOL = 7
"""Threads of the executor's pool with two requests at most: it starts them as it needs them, so some may come late."""


@pytest.fixture
def node(nano_package: Path, tmp_path: Path) -> Iterator[Process]:
    # One row and one place in the queue keep the executor's pool small.
    log = tmp_path / "node.log"
    with running_node(NAME, log, model=nano_package, max_image_age=1000.0, autostart=False, rows=1, queue_size=1) as process:
        yield process


@pytest.fixture
def change(tester: Node, node: Process) -> Iterator[Callable[..., None]]:
    """Makes lifecycle transitions, each of which must succeed."""
    call = Caller(tester, ChangeState, f"/{NAME}/change_state")

    def make(*transitions: int) -> None:
        for transition in transitions:
            assert call(ChangeState.Request(transition=Transition(id=transition))).success, node.log

    yield make
    call.close()


@pytest.fixture
def camera(tester: Node) -> Iterator[Camera]:
    camera = Camera(tester, "image")
    yield camera
    tester.destroy_publisher(camera.publisher)


def _cycle(change: Callable[..., None], camera: Camera) -> None:
    change(*UP_AND_DOWN[:2])
    camera.show()
    change(*UP_AND_DOWN[2:])


def _go_up_and_down(change: Callable[..., None], node: Process, camera: Camera, least: int, seconds: float) -> None:
    """Cycles `least` times and on until the time is over, and compares what is used with what it was after the warm-up."""
    for _ in range(WARM_UP_CYCLES):
        _cycle(change, camera)
    before, end, cycles = Usage.of(node.pid), time.monotonic() + seconds, 0
    while cycles < least or (cycles < CYCLES and time.monotonic() < end):
        _cycle(change, camera)
        cycles += 1
    print(f"{cycles} cycles")
    _same_usage(before, node)


def _same_usage(before: Usage, node: Process) -> None:
    """Asserts that the process uses no more than before, as soon as what ended last is gone."""
    end = time.monotonic() + SOON
    while (after := Usage.of(node.pid)).files > before.files and time.monotonic() < end:
        time.sleep(0.1)
    print(f"{before} -> {after}")
    assert after.memory - before.memory < MEMORY_GROWTH
    assert after.threads <= before.threads + POOL
    assert after.files <= before.files


def test_going_up_and_down_leaks_nothing(change: Callable[..., None], node: Process, camera: Camera) -> None:
    _go_up_and_down(change, node, camera, LEAST_CYCLES, QUICK_SECONDS)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_going_up_and_down_two_hundred_times_leaks_nothing(change: Callable[..., None], node: Process, camera: Camera) -> None:
    _go_up_and_down(change, node, camera, CYCLES, 0.0)


def _cancel_goals(node: Process, vlm: VLM, count: int) -> None:
    """Takes goals back at once, on their way and after their end; each has a result, and then the node is as it was."""
    chance = random.Random(4)
    for _ in range(20):
        _cancel_one(vlm, chance.random() * 0.2)
    before = Usage.of(node.pid)
    codes = [_cancel_one(vlm, chance.choice((0.0, chance.random() * 0.05, chance.random() * 0.3))) for _ in range(count)]
    assert set(codes) == {ErrorCode.NONE, ErrorCode.CANCELLED}  # both too early and too late came about
    assert vlm.ask("What is on the table?", max_tokens=4).error_code == ErrorCode.NONE
    _same_usage(before, node)


def _cancel_one(vlm: VLM, delay: float) -> int:
    stream = vlm.chat("What is on the table?", timeout=PATIENCE, max_tokens=64)
    time.sleep(delay)
    late = stream._turn._handle.cancel_goal_async() if stream._turn.done() else None
    stream.close()
    if late:
        until(late.done)
    assert stream.answer is not None
    return int(stream.answer.error_code)


@pytest.mark.parametrize("count", (QUICK_GOALS, pytest.param(GOALS, marks=(pytest.mark.slow, pytest.mark.timeout(600)))))
def test_goals_taken_back_at_any_moment_leave_the_node_ready(
    tester: Node, node: Process, camera: Camera, change: Callable[..., None], count: int
) -> None:
    change(*UP_AND_DOWN[:2])
    vlm = VLM(tester, NAME)
    vlm.wait_until_there(PATIENCE)
    until_seen(vlm, camera)
    _cancel_goals(node, vlm, count)


def test_a_request_between_up_and_down_ends_with_a_code(
    tester: Node, node: Process, camera: Camera, change: Callable[..., None]
) -> None:
    vlm = VLM(tester, NAME)
    vlm.wait_until_there(PATIENCE)
    for _ in range(3):
        change(*UP_AND_DOWN[:2])
        camera.show()
        stream = vlm.chat("What is on the table?", timeout=10.0)
        change(*UP_AND_DOWN[2:])
        try:
            stream.text()
        except VlmError as error:
            assert error.code in (ErrorCode.CANCELLED, ErrorCode.NO_IMAGE, ErrorCode.NOT_ACTIVE), error

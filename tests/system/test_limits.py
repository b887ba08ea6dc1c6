"""Many requests at once, deadlines and priorities, against a node with one row and one place in its queue."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from builtin_interfaces.msg import Duration
from diagnostic_msgs.msg import DiagnosticArray
from mobilevlm_msgs.msg import RequestOptions
from mobilevlm_msgs.srv import Ask
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node

from mobilevlm_ros.client import VLM, ChatStream
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from tests.system.graph import PATIENCE, SOON, Caller, Camera, Listener, Process, Served, fails, serving, until

NAME = "limits_vlm"
LONG = 1800
NEXT = 1


@pytest.fixture(scope="module")
def served(tester: Node, random_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("limits")
    with serving(
        tester, NAME, folder, model=random_package, rows=1, queue_size=1, max_tokens=4, diagnostics_period=0.1
    ) as served:
        yield served


@pytest.fixture(scope="module")
def diagnostics(tester: Node, node: Process) -> Listener:
    return Listener(tester, DiagnosticArray, "/diagnostics")


def _occupy(vlm: VLM, diagnostics: Listener, stack: ExitStack) -> None:
    """Fills the row's and the queue's place with requests that wait for a picture, and waits until both are inside."""
    for message in ("What comes?", "And then?"):
        stack.enter_context(vlm.chat(message, frame_policy=NEXT, timeout=PATIENCE))
    _wait_until_both_are_inside(diagnostics)


def _wait_until_both_are_inside(diagnostics: Listener) -> None:
    diagnostics.messages.clear()
    diagnostics.first(lambda array: {value.key: value.value for value in array.status[0].values}["requests inside"] == "2")


def iter_without_closing(stream: ChatStream) -> Iterator[str]:
    """The stream's pieces; unlike its own iterator it does not take the request back when it is dropped."""
    while (piece := stream._next()) is not None:
        yield piece


def test_one_request_too_many_is_busy_at_once(vlm: VLM, diagnostics: Listener) -> None:
    with ExitStack() as stack:
        _occupy(vlm, diagnostics, stack)
        started = time.monotonic()
        fails(lambda: vlm.ask("Me too?"), ErrorCode.BUSY)
        assert time.monotonic() - started < SOON
    assert vlm.ask("And now?").error_code == ErrorCode.NONE


def test_many_at_once_are_answered_or_told_that_the_node_is_busy(vlm: VLM) -> None:
    def ask(number: int) -> ErrorCode:
        try:
            vlm.ask(f"What is number {number}?")
        except VlmError as error:
            return error.code
        return ErrorCode.NONE

    with ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(ask, range(64)))
    assert set(codes) <= {ErrorCode.NONE, ErrorCode.BUSY}
    assert codes.count(ErrorCode.NONE) >= 2


def test_a_deadline_ends_a_request_that_waits(vlm: VLM, tester: Node) -> None:
    ask = Caller(tester, Ask, f"/{NAME}/ask")  # unlike `VLM` it has no deadline of its own
    options = RequestOptions(timeout=Duration(nanosec=200_000_000))
    with ExitStack() as stack:
        stack.enter_context(first := vlm.chat("Tell me a long story.", max_tokens=LONG))
        next(iter_without_closing(first))
        started = time.monotonic()
        assert ask(Ask.Request(question="Quickly?", options=options)).error_code == ErrorCode.DEADLINE_EXCEEDED
        assert 0.15 < time.monotonic() - started < SOON


def test_a_deadline_ends_an_answer_on_its_way(vlm: VLM) -> None:
    for seconds in (0.3, 1.0, 3.0):  # on a slow machine the first word may take longer
        stream = vlm.chat("Tell me a long story.", max_tokens=LONG, timeout=seconds)
        fails(stream.text, ErrorCode.DEADLINE_EXCEEDED)
        if stream.answer and stream.answer.text:
            break
    assert stream.answer
    assert 0 < stream.answer.info.answer_tokens < LONG
    assert stream.answer.text


def test_requests_that_wait_for_a_picture_do_not_keep_others_from_being_refused(
    vlm: VLM, camera: Camera, diagnostics: Listener
) -> None:
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(vlm.ask, "What comes?", frame_policy=RequestOptions.NEXT, timeout=PATIENCE) for _ in range(2)]
        _wait_until_both_are_inside(diagnostics)
        started = time.monotonic()
        fails(lambda: vlm.ask("Me too?"), ErrorCode.BUSY)
        assert time.monotonic() - started < SOON
        with camera.streaming():
            assert [answer.result().error_code for answer in waiting] == [ErrorCode.NONE] * 2
    assert vlm.ask("And now?").error_code == ErrorCode.NONE


def test_parameters_can_be_read_while_every_place_is_taken(vlm: VLM, diagnostics: Listener, tester: Node) -> None:
    get = Caller(tester, GetParameters, f"/{NAME}/get_parameters")
    with ExitStack() as stack:
        _occupy(vlm, diagnostics, stack)
        future = get.begin(GetParameters.Request(names=["rows"]))
        until(future.done, SOON)
    assert future.result().values[0].integer_value == 1

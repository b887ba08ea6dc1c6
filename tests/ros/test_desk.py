"""What every request passes through: options, picture, model, and an outcome whatever happens."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from mobilevlm_msgs.msg import RequestOptions

from mobilevlm_ros.ros.admission import Gate
from mobilevlm_ros.ros.desk import Job
from mobilevlm_ros.ros.messages import Outcome, duration
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.requests import Priority
from mobilevlm_ros.tasks import Answer
from tests.ros.fakes import NOW, Office, snapshot


@pytest.fixture
def office() -> Office:
    return Office(Gate())


def ask(office: Office, job: Job | None = None, **options: Any) -> Outcome[Answer]:
    return office.desk.serve(
        RequestOptions(**options), lambda model, shot, settings: model.ask(shot.frame, "What?", settings), job
    )


def test_an_outcome_tells_where_it_comes_from(office: Office) -> None:
    outcome = ask(office)
    assert outcome.result is not None
    assert (outcome.result.text, outcome.error, outcome.error_msg) == ("What?!", ErrorCode.NONE, "")
    assert (outcome.source.camera, outcome.source.model) == ("camera", "fake")
    assert (outcome.source.width, outcome.source.height) == (6, 4)
    assert outcome.source.header.stamp.sec == NOW
    assert office.reported == [outcome]


def test_what_a_request_leaves_open_is_up_to_the_parameters() -> None:
    office = Office(Gate(), max_tokens=17, temperature=0.5, top_p=0.9, seed=3, request_timeout=12.0)
    ask(office)
    settings = office.model.asked[0][1]
    sampling = settings.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.seed) == (17, 0.5, 0.9, 3)
    assert settings.timeout == pytest.approx(12.0, abs=0.5)
    assert settings.priority is Priority.NORMAL


def test_what_a_request_asks_for_counts(office: Office) -> None:
    ask(office, max_tokens=5, temperature=0.0, timeout=duration(3.0), priority=RequestOptions.PRIORITY_HIGH)
    settings = office.model.asked[0][1]
    assert (settings.sampling.max_tokens, settings.sampling.temperature) == (5, 0.0)
    assert settings.timeout == pytest.approx(3.0, abs=0.5)
    assert settings.priority is Priority.HIGH


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"frame_policy": 3}, "frame_policy is 3"),
        ({"priority": 3}, "priority is 3"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"camera": "rear"}, "rear"),
    ],
)
def test_an_option_out_of_its_range_is_a_bad_request(office: Office, options: dict[str, Any], words: str) -> None:
    outcome = ask(office, **options)
    assert outcome.error is ErrorCode.BAD_REQUEST
    assert words in outcome.error_msg
    assert not office.model.asked


def test_a_negative_time_is_a_bad_request(office: Office) -> None:
    options = RequestOptions()
    options.timeout.sec = -1
    outcome = office.desk.serve(options, lambda model, shot, settings: model.ask(shot.frame, "What?", settings))
    assert outcome.error is ErrorCode.BAD_REQUEST


def test_two_requests_about_one_picture_share_its_pixels(office: Office) -> None:
    ask(office)
    ask(office)
    first, second = office.model.frames
    assert first is second


def test_the_same_policy_keeps_the_picture_of_before_however_old_it_is(office: Office) -> None:
    old = snapshot(NOW - 500.0)
    outcome = ask(office, Job(same=old), frame_policy=2)
    assert outcome.source.header.stamp.sec == NOW - 500
    assert ask(office, frame_policy=2).source.header.stamp.sec == NOW


def test_a_deadline_that_passed_while_a_picture_was_awaited_does_not_reach_the_model(office: Office) -> None:
    outcome = ask(office, frame_policy=RequestOptions.NEXT, timeout=duration(0.05))
    assert outcome.error is ErrorCode.STALE_IMAGE
    assert not office.model.asked


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (VlmError(ErrorCode.PROMPT_TOO_LONG, "too long"), ErrorCode.PROMPT_TOO_LONG),
        (MemoryError(), ErrorCode.OUT_OF_MEMORY),
        (RuntimeError("broken"), ErrorCode.MODEL_ERROR),
        (KeyError("x"), ErrorCode.MODEL_ERROR),
    ],
)
def test_whatever_the_model_raises_ends_this_request_alone(office: Office, failure: Exception, code: ErrorCode) -> None:
    office.model.fail = failure
    outcome = ask(office)
    assert (outcome.result, outcome.error) == (None, code)
    assert outcome.error_msg
    assert outcome.source.camera == "camera"
    office.model.fail = None
    assert ask(office).error is ErrorCode.NONE


def test_without_a_model_a_request_is_not_active(office: Office) -> None:
    office.desk.attach(None)
    assert ask(office).error is ErrorCode.NOT_ACTIVE


def test_more_requests_than_the_node_takes_are_busy_at_once() -> None:
    office = Office(Gate(), rows=1, queue_size=2)
    office.model.hold.clear()
    threads = [threading.Thread(target=ask, args=(office,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 5.0
    while len(office.model.asked) < 3 and time.monotonic() < end:
        time.sleep(0.005)
    started = time.monotonic()
    assert ask(office).error is ErrorCode.BUSY
    assert time.monotonic() - started < 0.5
    office.model.hold.set()
    for thread in threads:
        thread.join()
    assert [outcome.error for outcome in office.reported].count(ErrorCode.NONE) == 3

"""What diagnostics say about a node and its cameras."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus

from mobilevlm_ros.ros.camera import Listening
from mobilevlm_ros.ros.diagnostics import CameraView, Diagnostics, NodeView
from mobilevlm_ros.ros.ledger import Ledger
from mobilevlm_ros.ros.messages import NOWHERE, Outcome
from mobilevlm_ros.ros.model import ModelStats
from mobilevlm_ros.runtime.errors import ErrorCode
from mobilevlm_ros.runtime.requests import Timing
from tests.ros.fakes import answer

ACTIVE = NodeView("active", "", "nano", ModelStats("onnxruntime-cpu", 1, 2, 3 << 20), 3, 4)
CAMERA = CameraView("front", ("/image",), 30, 0.1, 1.0)


def statuses(ledger: Ledger | None = None, node: NodeView = ACTIVE, camera: CameraView = CAMERA) -> list[DiagnosticStatus]:
    diagnostics = Diagnostics("/mobilevlm", "mobilevlm", ledger or Ledger())
    return list(diagnostics.message(Time(sec=5), 10.0, node, [camera]).status)


def values(status: DiagnosticStatus) -> dict[str, str]:
    return {value.key: value.value for value in status.values}


def failed(code: ErrorCode, words: str) -> Outcome[Any]:
    return Outcome(None, code, words)


def test_an_active_node_is_ok_and_tells_its_numbers() -> None:
    ledger = Ledger()
    ledger.note(Outcome.of(answer("What?", "That."), NOWHERE))
    ledger.note(failed(ErrorCode.BUSY, "full"))
    status = statuses(ledger)[0]
    assert (status.level, status.name, status.message) == (DiagnosticStatus.OK, "/mobilevlm: model", "active")
    told = values(status)
    assert (told["requests ended well"], told["requests ended BUSY"], told["requests inside"]) == ("1", "1", "3")
    assert (told["backend"], told["prefix cache MiB"], told["last decode ms"]) == ("onnxruntime-cpu", "3.0", "4.0")


def test_a_node_that_is_not_active_is_a_warning() -> None:
    assert statuses(node=NodeView("inactive", "", "nano", None, 0, 0))[0].level == DiagnosticStatus.WARN


def test_a_node_that_could_not_be_configured_is_an_error_with_the_reason() -> None:
    status = statuses(node=NodeView("unconfigured", "no such package", "", None, 0, 0))[0]
    assert (status.level, status.message) == (DiagnosticStatus.ERROR, "no such package")


@pytest.mark.parametrize("code", [ErrorCode.OUT_OF_MEMORY, ErrorCode.MODEL_ERROR])
def test_a_fault_of_the_node_is_an_error_until_a_request_ends_well(code: ErrorCode) -> None:
    ledger = Ledger()
    ledger.note(failed(code, "it broke"))
    ledger.note(failed(ErrorCode.BUSY, "full"))
    assert (statuses(ledger)[0].level, statuses(ledger)[0].message) == (DiagnosticStatus.ERROR, "it broke")
    ledger.note(Outcome.of(answer("What?", "That."), NOWHERE))
    assert statuses(ledger)[0].level == DiagnosticStatus.OK


@pytest.mark.parametrize(
    ("age", "level"),
    [
        (0.1, DiagnosticStatus.OK),
        (None, DiagnosticStatus.WARN),
        (1.5, DiagnosticStatus.STALE),
        (-1.5, DiagnosticStatus.STALE),
    ],
)
def test_a_cameras_level_follows_the_age_of_its_newest_picture(age: float | None, level: bytes) -> None:
    assert statuses(camera=CameraView("front", ("/image",), 1, age, 1.0))[1].level == level


@pytest.mark.parametrize("age", [None, 1000.0])
@pytest.mark.parametrize(("listening", "words"), [(Listening.NO, "idle"), (Listening.OPENING, "no picture yet")])
def test_a_camera_that_nobody_asks_about_or_that_has_just_been_opened_is_in_order(
    listening: Listening, words: str, age: float | None
) -> None:
    status = statuses(camera=CameraView("front", ("/image",), 1, age, 1.0, listening))[1]
    assert status.level == DiagnosticStatus.OK
    assert words in status.message
    assert values(status)["listened to"] == listening.value


def test_the_rate_is_what_came_since_the_last_message() -> None:
    diagnostics = Diagnostics("/mobilevlm", "mobilevlm", Ledger())
    diagnostics.message(Time(), 10.0, ACTIVE, [CAMERA])
    later = CameraView("front", ("/image",), 90, 0.1, 1.0)
    status = diagnostics.message(Time(), 12.0, ACTIVE, [later]).status[1]
    assert values(status)["rate Hz"] == "30.0"


def test_times_are_of_the_requests_since_the_last_message() -> None:
    ledger = Ledger()
    diagnostics = Diagnostics("/mobilevlm", "mobilevlm", ledger)
    for decode_ms in (2.0, 8.0):
        ledger.note(Outcome.of(replace(answer("What?", "That."), timing=Timing(1.0, 2.0, 3.0, decode_ms)), NOWHERE))
    diagnostics.message(Time(), 10.0, ACTIVE, [])
    ledger.note(Outcome.of(replace(answer("What?", "That."), timing=Timing(1.0, 2.0, 3.0, 4.0)), NOWHERE))
    ledger.note(Outcome.of(replace(answer("What?", "That."), timing=Timing(3.0, 2.0, 3.0, 6.0)), NOWHERE))
    ledger.note(failed(ErrorCode.BUSY, "full"))
    told = values(diagnostics.message(Time(), 12.0, ACTIVE, []).status[0])
    assert (told["mean queue ms"], told["mean decode ms"], told["longest decode ms"]) == ("2.0", "5.0", "6.0")
    assert (told["last decode ms"], told["requests per s"]) == ("6.0", "1.5")
    told = values(diagnostics.message(Time(), 13.0, ACTIVE, []).status[0])
    assert (told["last decode ms"], told["requests per s"]) == ("6.0", "0.0")
    assert "mean decode ms" not in told


def test_an_answer_that_names_nothing_shows_that_the_model_works_again() -> None:
    ledger = Ledger()
    ledger.note(failed(ErrorCode.OUT_OF_MEMORY, "full"))
    ledger.note(failed(ErrorCode.NO_GROUNDING, "nothing there"))
    assert statuses(ledger)[0].level == DiagnosticStatus.OK


def test_a_camera_whose_newest_picture_cannot_be_read_is_an_error_with_the_reason() -> None:
    status = statuses(camera=replace(CAMERA, problem="the encoding 'rgb9' is not known"))[1]
    assert (status.level, status.message) == (DiagnosticStatus.ERROR, "the encoding 'rgb9' is not known")

"""What diagnostics say about a node and its cameras."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus

from mobilevlm_ros.ros.diagnostics import CameraView, Diagnostics, Ledger, NodeView
from mobilevlm_ros.ros.messages import NOWHERE, Outcome
from mobilevlm_ros.ros.model import ModelStats
from mobilevlm_ros.runtime.errors import ErrorCode
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


def test_the_rate_is_what_came_since_the_last_message() -> None:
    diagnostics = Diagnostics("/mobilevlm", "mobilevlm", Ledger())
    diagnostics.message(Time(), 10.0, ACTIVE, [CAMERA])
    later = CameraView("front", ("/image",), 90, 0.1, 1.0)
    status = diagnostics.message(Time(), 12.0, ACTIVE, [later]).status[1]
    assert values(status)["rate Hz"] == "30.0"

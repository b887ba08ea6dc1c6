"""What the node tells of itself on /diagnostics, over real DDS."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import Image

from mobilevlm_ros.client import VLM
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from tests.system.graph import BACKEND, PATIENCE, Camera, Listener, Process, fails, running_node, until, until_seen

NAME = "diagnosed_vlm"


@pytest.fixture(scope="module")
def node(random_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    log = tmp_path_factory.mktemp("diagnostics") / "node.log"
    with running_node(NAME, log, model=random_package, max_image_age=0.5, max_tokens=4, diagnostics_period=0.2) as process:
        yield process


@pytest.fixture(scope="module")
def diagnostics(tester: Node, node: Process) -> Listener:
    return Listener(tester, DiagnosticArray, "/diagnostics")


def _next(diagnostics: Listener, what: str, **fields: Any) -> dict[str, str]:
    """The values of the next status of this part whose fields are as given."""
    diagnostics.messages.clear()

    def status(message: DiagnosticArray) -> DiagnosticStatus | None:
        named = (status for status in message.status if status.name == f"/{NAME}: {what}")
        return next((s for s in named if all(getattr(s, name) == value for name, value in fields.items())), None)

    found = status(diagnostics.first(lambda message: status(message) is not None))
    assert found
    return {value.key: value.value for value in found.values}


def test_a_serving_node_tells_its_state_model_backend_and_times(diagnostics: Listener, tester: Node) -> None:
    camera = Camera(tester, "image")
    vlm = VLM(tester, NAME, connect_timeout=PATIENCE)
    until_seen(vlm, camera)
    with camera.streaming(20.0):
        vlm.ask("What is it?")
        values = _next(diagnostics, "model", level=DiagnosticStatus.OK)
        assert (values["state"], values["model"], values["backend"]) == ("active", "random", BACKEND)
        assert int(values["requests ended well"]) >= 1
        assert float(values["last decode ms"]) > 0
        assert float(values["memory MiB"]) > 20
        _next(diagnostics, "camera camera", level=DiagnosticStatus.OK)

        def rate_is_told() -> bool:
            values.update(_next(diagnostics, "camera camera", level=DiagnosticStatus.OK))
            return 10.0 < float(values["rate Hz"]) < 30.0

        until(rate_is_told)  # where the machine is busy for a moment, so is this test's camera
        assert values["topics"] == "/image"


def test_times_by_stage_are_told_of_the_requests_since_the_last_message(diagnostics: Listener, tester: Node) -> None:
    camera, vlm = Camera(tester, "image"), VLM(tester, NAME)
    with camera.streaming(20.0):
        until(lambda: _code(vlm) is ErrorCode.NONE)
        diagnostics.messages.clear()
        for _ in range(5):
            vlm.ask("What is it?")
        told = until(lambda: next((v for v in map(_model_values, list(diagnostics.messages)) if "mean decode ms" in v), None))
        for stage in ("queue", "encode", "prefill", "decode"):
            assert 0 <= float(told[f"mean {stage} ms"]) <= float(told[f"longest {stage} ms"])
        assert float(told["requests per s"]) > 0
        until(lambda: "mean decode ms" not in _model_values(diagnostics.messages[-1]))  # nobody asks any longer


def test_every_key_is_documented(diagnostics: Listener) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "failures.md").read_text()
    documented = set(re.findall(r"`([^`]+)`", text.split("## Diagnostics")[1]))
    array = diagnostics.first(lambda array: array.status[0].name == f"/{NAME}: model")
    for key in (value.key for status in array.status for value in status.values):
        stages, codes = (
            re.match(r"(last|mean|longest) (queue|encode|prefill|decode) ms$", key),
            re.match("requests ended [A-Z_]+$", key),
        )
        assert stages or codes or key in documented, key


def test_a_camera_whose_picture_cannot_be_read_is_told(diagnostics: Listener, tester: Node) -> None:
    camera, vlm = Camera(tester, "image"), VLM(tester, NAME)

    def asked() -> ErrorCode:
        camera.publisher.publish(Image(header=camera.header(), width=4, height=4, step=12, encoding="rgb9", data=bytes(48)))
        return _code(vlm)

    until(lambda: asked() is ErrorCode.BAD_IMAGE)
    status = until(lambda: _camera_status(diagnostics, DiagnosticStatus.ERROR))
    assert "rgb9" in status.message
    with camera.streaming(20.0):
        _next(diagnostics, "camera camera", level=DiagnosticStatus.OK)


def test_the_same_cause_is_logged_now_and_then_and_not_each_time(diagnostics: Listener, tester: Node, node: Process) -> None:
    vlm = VLM(tester, NAME)
    for _ in range(20):
        fails(lambda: vlm.select_model("nobody"), ErrorCode.BAD_REQUEST)
        fails(lambda: vlm.ask("What is it?", camera="nobody"), ErrorCode.BAD_REQUEST)
    for words in ("'nobody' cannot be selected", "a request ended with BAD_REQUEST"):
        assert 1 <= sum(words in line for line in node.log.splitlines()) <= 2


def _code(vlm: VLM) -> ErrorCode:
    try:
        vlm.ask("Is somebody there?", timeout=2.0)
    except VlmError as error:
        return error.code
    return ErrorCode.NONE


def _model_values(array: DiagnosticArray) -> dict[str, str]:
    status = next((status for status in array.status if status.name == f"/{NAME}: model"), DiagnosticStatus())
    return {value.key: value.value for value in status.values}


def _camera_status(diagnostics: Listener, level: bytes) -> DiagnosticStatus | None:
    statuses = (status for array in diagnostics.messages[-3:] for status in array.status)
    return next((s for s in statuses if s.name == f"/{NAME}: camera camera" and s.level == level), None)


def test_a_camera_that_stalls_is_told(diagnostics: Listener, tester: Node) -> None:
    values = _next(diagnostics, "camera camera", level=DiagnosticStatus.STALE)
    assert float(values["newest frame's age s"]) > 0.5


def test_errors_are_counted_by_their_code(diagnostics: Listener, tester: Node) -> None:
    fails(lambda: VLM(tester, NAME).ask("What is it?", camera="nobody"), ErrorCode.BAD_REQUEST)
    assert int(_next(diagnostics, "model")["requests ended BAD_REQUEST"]) >= 1


def test_a_node_that_cannot_be_configured_says_why(tester: Node, tmp_path: Path) -> None:
    name = "broken_vlm"
    with running_node(name, tmp_path / "node.log", model=tmp_path / "nothing", diagnostics_period=0.2):
        heard = Listener(tester, DiagnosticArray, "/diagnostics")
        message = heard.first(lambda array: array.status[0].name == f"/{name}: model" and array.status[0].level == b"\x02")
        assert str(tmp_path / "nothing") in message.status[0].message

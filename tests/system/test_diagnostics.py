"""What the node tells of itself on /diagnostics, over real DDS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node

from mobilevlm_ros.client import VLM
from mobilevlm_ros.runtime.errors import ErrorCode
from tests.system.graph import Camera, Listener, Process, fails, running_node, until_seen

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
    vlm = VLM(tester, NAME, connect_timeout=30.0)
    until_seen(vlm, camera)
    with camera.streaming(20.0):
        vlm.ask("What is it?")
        values = _next(diagnostics, "model", level=DiagnosticStatus.OK)
        assert (values["state"], values["model"], values["backend"]) == ("active", "random", "onnxruntime-cpu")
        assert int(values["requests ended well"]) >= 1
        assert float(values["last decode ms"]) > 0
        _next(diagnostics, "camera camera", level=DiagnosticStatus.OK)
        values = _next(diagnostics, "camera camera", level=DiagnosticStatus.OK)
        assert 10.0 < float(values["rate Hz"]) < 30.0
        assert values["topics"] == "/image"


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

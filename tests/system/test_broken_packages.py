"""A model package that is missing, damaged or not for this machine: one line that says so, and a node that takes the next one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter

from mobilevlm_ros.client import VLM
from mobilevlm_ros.runtime.errors import ErrorCode
from tests.system.graph import Caller, Camera, Listener, Process, fails, running_node, until_seen

NAME = "unlucky_vlm"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    log = tmp_path_factory.mktemp("broken") / "node.log"
    with running_node(NAME, log, autostart=False, diagnostics_period=0.1, max_image_age=1000.0) as process:
        yield process


@pytest.fixture(scope="module")
def call(tester: Node, node: Process) -> Callable[[type[Any], str, Any], Any]:
    callers: dict[str, Caller] = {}

    def make(kind: type[Any], name: str, request: Any) -> Any:
        if name not in callers:
            callers[name] = Caller(tester, kind, f"/{NAME}/{name}")
        return callers[name](request)

    return make


@pytest.fixture(scope="module")
def heard(tester: Node, node: Process) -> Listener:
    return Listener(tester, DiagnosticArray, "/diagnostics")


def _missing(package: Path) -> None:
    shutil.rmtree(package)


def _truncated(package: Path) -> None:
    weights = package / "decoder.cpu.onnx.data"
    weights.write_bytes(weights.read_bytes()[:-1])


def _changed(package: Path) -> None:
    weights = bytearray((package / "decoder.cpu.onnx.data").read_bytes())
    weights[len(weights) // 2] ^= 1
    (package / "decoder.cpu.onnx.data").write_bytes(weights)


def _for_another_backend(package: Path) -> None:
    manifest = json.loads((package / "manifest.json").read_text())
    manifest["files"] = {name: entry for name, entry in manifest["files"].items() if not name.startswith("decoder.cpu")}
    (package / "manifest.json").write_text(json.dumps(manifest))


HARMS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "missing": (_missing, ("package",)),
    "truncated": (_truncated, ("decoder.cpu.onnx.data", "truncated")),
    "changed": (_changed, ("decoder.cpu.onnx.data", "SHA-256")),
    "for another backend": (_for_another_backend, ("decoder.cpu.onnx",)),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_package_that_is_no_use_is_named_with_what_is_wrong(
    call: Callable[..., Any], heard: Listener, node: Process, tester: Node, nano_package: Path, tmp_path: Path, harm: str
) -> None:
    package = Path(shutil.copytree(nano_package, tmp_path / "package"))
    spoil, words = HARMS[harm]
    spoil(package)
    assert not _configure(call, package)
    status = heard.first(lambda array: bool(_told(array, str(package))))
    assert all(word in _told(status, str(package)) for word in words)
    lines = [line for line in node.log.splitlines() if str(package) in line and "[ERROR]" in line]
    assert len(lines) == 1
    assert all(word in lines[0] for word in words)
    fails(lambda: VLM(tester, NAME).ask("Are you there?"), ErrorCode.NOT_ACTIVE, str(package))


def test_a_whole_package_is_taken_after_them(call: Callable[..., Any], heard: Listener, tester: Node, nano_package: Path) -> None:
    assert _configure(call, nano_package)
    assert _change(call, Transition.TRANSITION_ACTIVATE)
    until_seen(VLM(tester, NAME), Camera(tester, "image"))
    heard.messages.clear()
    heard.first(lambda array: any(s.name == f"/{NAME}: model" and s.level == DiagnosticStatus.OK for s in array.status))


def _configure(call: Callable[..., Any], package: Path) -> bool:
    request = SetParameters.Request(parameters=[Parameter("model", value=str(package)).to_parameter_msg()])
    assert call(SetParameters, "set_parameters", request).results[0].successful
    return _change(call, Transition.TRANSITION_CONFIGURE)


def _change(call: Callable[..., Any], transition: int) -> bool:
    return bool(call(ChangeState, "change_state", ChangeState.Request(transition=Transition(id=transition))).success)


def _told(array: DiagnosticArray, words: str) -> str:
    """What the node says is wrong with its model, where it is about these words."""
    errors = (
        status.message for status in array.status if status.name == f"/{NAME}: model" and status.level == DiagnosticStatus.ERROR
    )
    return next((message for message in errors if words in message), "")

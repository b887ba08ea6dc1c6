"""The lifecycle: autostart, transitions in every order, and the process's end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter

from mobilevlm_ros.client import VLM
from mobilevlm_ros.runtime.errors import ErrorCode
from tests.system.graph import PATIENCE, Caller, Camera, Process, fails, running_node, until_seen

NAME = "lifecycle_vlm"
UP = (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
DOWN = (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)


class Lifecycle:
    """Calls a node's lifecycle and parameter services."""

    def __init__(self, tester: Node, name: str) -> None:
        self._change = Caller(tester, ChangeState, f"/{name}/change_state")
        self._get = Caller(tester, GetState, f"/{name}/get_state")
        self._set = Caller(tester, SetParameters, f"/{name}/set_parameters")

    def change(self, *transitions: int) -> bool:
        """Makes transitions; whether all were made."""
        return all(self._change(ChangeState.Request(transition=Transition(id=transition))).success for transition in transitions)

    def state(self) -> str:
        """The state's label."""
        return str(self._get(GetState.Request()).current_state.label)

    def set(self, name: str, value: Any) -> str | None:
        """Sets a parameter; returns the reason where it is refused."""
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        result = self._set(request).results[0]
        return None if result.successful else str(result.reason)


@pytest.fixture(scope="module")
def node(random_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    log = tmp_path_factory.mktemp("lifecycle") / "node.log"
    with running_node(NAME, log, model=random_package, autostart=False, max_image_age=1000.0, max_tokens=4) as process:
        yield process


@pytest.fixture(scope="module")
def lifecycle(tester: Node, node: Process) -> Lifecycle:
    return Lifecycle(tester, NAME)


@pytest.fixture(scope="module")
def camera(tester: Node) -> Camera:
    return Camera(tester, "image")


@pytest.fixture
def active(lifecycle: Lifecycle, vlm: VLM, camera: Camera) -> Iterator[None]:
    assert lifecycle.change(*UP)
    until_seen(vlm, camera)
    yield
    assert lifecycle.state() != "active" or lifecycle.change(*DOWN)


@pytest.fixture(scope="module")
def vlm(tester: Node, node: Process) -> VLM:
    return VLM(tester, NAME)


def test_without_autostart_the_node_waits_and_says_that_it_is_not_active(lifecycle: Lifecycle, vlm: VLM) -> None:
    assert lifecycle.state() == "unconfigured"
    fails(lambda: vlm.ask("Are you there?"), ErrorCode.NOT_ACTIVE, "not been activated")
    fails(vlm.chat("Are you there?").text, ErrorCode.NOT_ACTIVE)
    fails(vlm.list_models, ErrorCode.NOT_ACTIVE)
    fails(vlm.select_model, ErrorCode.NOT_ACTIVE, "not configured")


def test_a_configured_node_is_not_active_yet(lifecycle: Lifecycle, vlm: VLM) -> None:
    assert lifecycle.change(Transition.TRANSITION_CONFIGURE)
    fails(lambda: vlm.ask("Are you there?"), ErrorCode.NOT_ACTIVE, "configured")
    assert lifecycle.change(Transition.TRANSITION_CLEANUP)


@pytest.mark.usefixtures("active")
def test_an_active_node_answers_and_a_deactivated_one_does_not(lifecycle: Lifecycle, vlm: VLM) -> None:
    assert vlm.ask("Are you there?").error_code == ErrorCode.NONE
    assert lifecycle.change(*DOWN)
    fails(lambda: vlm.ask("Are you there?"), ErrorCode.NOT_ACTIVE)


def test_after_an_activation_no_answer_comes_from_a_picture_of_before(
    lifecycle: Lifecycle, vlm: VLM, camera: Camera, active: None
) -> None:
    assert lifecycle.change(Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE)
    fails(lambda: vlm.ask("What was it?"), ErrorCode.NO_IMAGE)


@pytest.mark.usefixtures("active")
def test_deactivating_ends_an_answer_on_its_way_with_cancelled(lifecycle: Lifecycle, vlm: VLM) -> None:
    stream = vlm.chat("Tell me a long story.", max_tokens=1500)
    pieces = iter(stream)
    next(pieces)
    assert lifecycle.change(Transition.TRANSITION_DEACTIVATE)
    fails(lambda: list(pieces), ErrorCode.CANCELLED)
    assert lifecycle.change(Transition.TRANSITION_CLEANUP)


def test_up_and_down_twenty_times_leaves_a_node_that_answers(
    lifecycle: Lifecycle, vlm: VLM, camera: Camera, node: Process
) -> None:
    lifecycle.change(*UP, *DOWN)
    before = _threads(node.pid)
    for _ in range(20):
        assert lifecycle.change(*UP)
        assert lifecycle.change(*DOWN)
    assert _threads(node.pid) <= before + 4
    assert lifecycle.change(*UP)
    until_seen(vlm, camera)
    assert vlm.ask("Are you there?").error_code == ErrorCode.NONE
    assert lifecycle.change(*DOWN)


def test_a_transition_that_is_not_possible_now_is_answered_with_a_no(lifecycle: Lifecycle) -> None:
    assert lifecycle.state() == "unconfigured"
    assert not lifecycle.change(Transition.TRANSITION_ACTIVATE)
    assert not lifecycle.change(99)
    assert lifecycle.state() == "unconfigured"


def test_a_broken_model_package_fails_to_configure_with_one_line_and_a_good_one_works_after_it(
    lifecycle: Lifecycle, vlm: VLM, node: Process, random_package: Path, tmp_path: Path
) -> None:
    assert lifecycle.set("model", str(tmp_path)) is None
    assert not lifecycle.change(Transition.TRANSITION_CONFIGURE)
    assert lifecycle.state() == "unconfigured"
    fails(lambda: vlm.ask("Are you there?"), ErrorCode.NOT_ACTIVE, str(tmp_path))
    assert sum(str(tmp_path) in line and "[ERROR]" in line for line in node.log.splitlines()) == 1
    assert lifecycle.set("model", str(random_package)) is None
    assert lifecycle.change(*UP, *DOWN)


@pytest.mark.usefixtures("active")
def test_parameters_are_refused_with_the_reason(lifecycle: Lifecycle) -> None:
    assert "unconfigured" in (lifecycle.set("model", "/elsewhere") or "")
    assert "max_image_age" in (lifecycle.set("max_image_age", -1.0) or "")
    assert lifecycle.set("autostart", True)
    assert lifecycle.set("max_tokens", 0)
    assert lifecycle.set("max_tokens", "many")


@pytest.mark.usefixtures("active")
def test_a_parameter_that_may_change_at_run_time_counts_from_the_next_request_on(lifecycle: Lifecycle, vlm: VLM) -> None:
    assert lifecycle.set("max_tokens", 7) is None
    assert vlm.ask("What is it?").info.answer_tokens == 7
    assert lifecycle.set("max_tokens", 4) is None
    assert vlm.ask("What is it?").info.answer_tokens == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_with_0_and_a_goal_on_its_way_as_cancelled(
    random_package: Path, tmp_path: Path, tester: Node, number: int
) -> None:
    name = f"mortal_{number}"
    with running_node(name, tmp_path / "node.log", [f"image:=/{name}/image"], model=random_package, max_image_age=100.0) as node:
        camera = Camera(tester, f"/{name}/image")
        vlm = VLM(tester, name, connect_timeout=PATIENCE)
        until_seen(vlm, camera)
        while True:
            stream = vlm.chat("Tell me a long story.", max_tokens=1800)
            pieces = iter(stream)
            next(pieces)
            if stream.answer is None:  # else this test was too slow
                break
        node.send(number)
        fails(lambda: list(pieces), ErrorCode.CANCELLED)
        assert node.wait() == 0
        assert "Traceback" not in node.log
        assert "never retrieved" not in node.log


def test_a_process_whose_parameters_do_not_fit_says_so_in_one_line_and_ends_with_1(tmp_path: Path) -> None:
    with running_node("misfit", tmp_path / "node.log", max_image_age=-5.0) as node:
        assert node.wait() == 1
    assert "max_image_age" in node.log
    assert "Traceback" not in node.log


def _threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))

"""Every parameter over real DDS: described with its range, changed with effect from the next request on, or refused and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from mobilevlm_msgs.action import Chat
from mobilevlm_msgs.msg import RequestOptions
from mobilevlm_msgs.srv import Ask
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParameters, SetParametersAtomically
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
from rclpy.parameter import parameter_value_to_python

from mobilevlm_ros.client import VLM
from mobilevlm_ros.ros.parameters import PARAMETERS, Change, Parameter
from mobilevlm_ros.runtime.errors import ErrorCode
from tests.system.graph import PATIENCE, SOON, Caller, Camera, Listener, Process, fails, running_node, until, until_seen

NAME = "set_vlm"
WORDS = 12


class Served:
    """The node's parameters, its lifecycle, and what one can ask it."""

    def __init__(self, tester: Node) -> None:
        self._tester = tester
        kinds = {DescribeParameters: "describe_parameters", GetParameters: "get_parameters", SetParameters: "set_parameters"}
        kinds |= {SetParametersAtomically: "set_parameters_atomically", ChangeState: "change_state", Ask: "ask"}
        self._chat = ActionClient(tester, Chat, f"{NAME}/chat")
        until(self._chat.server_is_ready)
        self._callers = {kind: Caller(tester, kind, f"/{NAME}/{name}") for kind, name in kinds.items()}
        self.diagnostics = Listener(tester, DiagnosticArray, "/diagnostics")
        self.camera = Camera(tester, "image")
        self.vlm = VLM(tester, NAME, connect_timeout=PATIENCE)

    def call(self, kind: Any, request: Any) -> Any:
        """Calls a service."""
        return self._callers[kind](request)

    def set(self, name: str, value: Any) -> str:
        """Sets a parameter; returns the reason where it is refused, and nothing where it is not."""
        request = SetParameters.Request(parameters=[RosParameter(name, value=value).to_parameter_msg()])
        result = self.call(SetParameters, request).results[0]
        assert result.successful or result.reason
        return str(result.reason) if not result.successful else ""

    def set_together(self, **values: Any) -> str:
        """Sets all of them or none; as `set`."""
        changes = [RosParameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        result = self.call(SetParametersAtomically, SetParametersAtomically.Request(parameters=changes)).result
        return str(result.reason) if not result.successful else ""

    def get(self, name: str) -> Any:
        """The parameter's value, as the node tells it."""
        return parameter_value_to_python(self.call(GetParameters, GetParameters.Request(names=[name])).values[0])

    def change_state(self, *transitions: int) -> None:
        """Makes transitions of the lifecycle."""
        for transition in transitions:
            assert self.call(ChangeState, ChangeState.Request(transition=Transition(id=transition))).success

    def down(self) -> None:
        """Brings the node to where nothing is loaded."""
        self.change_state(Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)

    def up(self) -> None:
        """Brings the node to where it answers."""
        self.change_state(Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
        until_seen(self.vlm, self.camera)

    def text(self) -> str:
        """An answer to a question whose options say nothing but how long it may be."""
        return str(self.vlm.ask("What is it?", max_tokens=WORDS).text)

    def turn(self, session: str) -> int:
        """Sends a message of a conversation; returns how many earlier turns were taken into account."""
        goal = Chat.Goal(message="What is it?", session=session, options=RequestOptions(max_tokens=1))
        sent = self._chat.send_goal_async(goal)
        until(sent.done)
        done = sent.result().get_result_async()
        until(done.done)
        return int(done.result().result.turns)

    def status(self, key: str) -> str:
        """The next value that diagnostics tell of the model or the camera."""
        self.diagnostics.messages.clear()
        array = self.diagnostics.first(lambda array: array.status[0].name == f"/{NAME}: model")
        return next(str(value.value) for status in array.status for value in status.values if value.key == key)


@pytest.fixture(scope="module")
def node(random_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    log = tmp_path_factory.mktemp("parameters") / "node.log"
    with running_node(NAME, log, model=random_package, max_image_age=1000.0, max_tokens=4, diagnostics_period=0.1) as process:
        yield process


@pytest.fixture(scope="module")
def served(tester: Node, node: Process) -> Served:
    served = Served(tester)
    until_seen(served.vlm, served.camera)
    return served


def _max_image_age(served: Served) -> None:
    assert not served.set("max_image_age", 0.1)
    time.sleep(0.2)
    fails(served.text, ErrorCode.STALE_IMAGE, "0.10 s are allowed")


def _request_timeout(served: Served) -> None:
    assert not served.set("request_timeout", 0.3)
    began = time.monotonic()
    options = RequestOptions(frame_policy=RequestOptions.NEXT)  # no picture comes
    assert served.call(Ask, Ask.Request(question="What is it?", options=options)).error_code == ErrorCode.STALE_IMAGE
    assert 0.2 < time.monotonic() - began < SOON


def _max_tokens(served: Served) -> None:
    assert not served.set("max_tokens", 7)
    assert served.vlm.ask("What is it?").info.answer_tokens == 7


def _temperature(served: Served) -> None:
    likeliest = served.text()
    assert served.text() == likeliest
    assert not served.set("temperature", 5.0)
    assert served.text() != likeliest


def _top_p(served: Served) -> None:
    likeliest = served.text()
    assert not served.set("temperature", 1.0)
    assert served.text() != likeliest
    assert not served.set("top_p", 0.01)
    assert served.text() == likeliest
    assert not served.set("temperature", 0.0)


def _seed(served: Served) -> None:
    assert not served.set_together(temperature=5.0, seed=3)
    drawn = served.text()
    assert served.text() == drawn
    assert not served.set("seed", 4)
    assert served.text() != drawn
    assert not served.set("temperature", 0.0)


def _chat_sessions(served: Served) -> None:
    assert [served.turn("a"), served.turn("b"), served.turn("a")] == [0, 0, 1]
    assert not served.set("chat_sessions", 1)
    assert [served.turn("b"), served.turn("a")] == [1, 0]


def _chat_turns(served: Served) -> None:
    assert not served.set("chat_turns", 2)
    assert [served.turn("long") for _ in range(4)] == [0, 1, 2, 2]


def _chat_timeout(served: Served) -> None:
    assert served.turn("late") == 0
    assert not served.set("chat_timeout", 1.0)
    time.sleep(1.2)
    assert served.turn("late") == 0


EFFECTS: dict[str, Callable[[Served], None]] = {
    "max_image_age": _max_image_age,
    "request_timeout": _request_timeout,
    "max_tokens": _max_tokens,
    "temperature": _temperature,
    "top_p": _top_p,
    "seed": _seed,
    "chat_sessions": _chat_sessions,
    "chat_turns": _chat_turns,
    "chat_timeout": _chat_timeout,
}
ELSEWHERE = ("camera_linger", "depth_tolerance", "picture_geometry", "transform_timeout", "standing_min_change", "hang_timeout")
"""Parameters whose effect needs what only other modules have: idle cameras, depth, standing queries, a model that hangs."""


def _of(*changes: Change) -> list[Parameter]:
    return [parameter for parameter in PARAMETERS if parameter.change in changes]


def _other(parameter: Parameter) -> Any:
    """A value that the parameter takes, and that it does not have in these tests."""
    if parameter.name == "model":
        return "/elsewhere"
    if parameter.choices:
        return next(choice for choice in parameter.choices if choice != parameter.default)
    if isinstance(parameter.default, bool):
        return not parameter.default
    if isinstance(parameter.default, (int, float)):
        return parameter.default + 1
    return {
        "adapters": ["/elsewhere"],
        "cameras": ["front"],
        "standing_queries": ["a; ask: what?; every: 1 s"],
        "cpu_affinity": "0",
    }.get(parameter.name, "elsewhere")


@pytest.mark.parametrize("parameter", _of(Change.ANY_TIME), ids=lambda parameter: parameter.name)
def test_what_may_change_at_any_time_counts_from_the_next_request_on(served: Served, parameter: Parameter) -> None:
    if parameter.name in ELSEWHERE:
        changed, before = _other(parameter), served.get(parameter.name)
        assert not served.set(parameter.name, changed)
        assert served.get(parameter.name) == changed
        assert not served.set(parameter.name, before)
    else:
        before = served.get(parameter.name)
        EFFECTS[parameter.name](served)
        assert not served.set(parameter.name, before)


@pytest.mark.parametrize("parameter", _of(Change.UNCONFIGURED, Change.NEVER), ids=lambda parameter: parameter.name)
def test_what_may_not_change_now_is_refused_with_the_reason_and_stays(served: Served, parameter: Parameter) -> None:
    before = served.get(parameter.name)
    reason = served.set(parameter.name, _other(parameter))
    assert parameter.name in reason
    assert ("unconfigured" if parameter.change is Change.UNCONFIGURED else "read-only") in reason
    assert served.get(parameter.name) == before


@pytest.mark.parametrize("parameter", [p for p in PARAMETERS if p.low is not None and p.high is not None], ids=lambda p: p.name)
def test_a_number_outside_its_range_is_refused_with_the_parameters_name(served: Served, parameter: Parameter) -> None:
    kind = type(parameter.default)
    for value in (kind(parameter.low - 1), kind(parameter.high + 1)):  # type: ignore[operator]
        assert parameter.name in served.set(parameter.name, value)
    if kind is float:
        assert parameter.name in served.set(parameter.name, float("nan"))


def test_a_value_of_another_kind_or_none_is_refused(served: Served) -> None:
    for parameter in _of(Change.ANY_TIME):
        wrong: Any = 1 if isinstance(parameter.default, str) else "many"
        assert served.set(parameter.name, wrong)
        assert served.set(parameter.name, None)
    assert served.text()


def test_values_that_do_not_fit_together_are_refused_as_a_set_and_nothing_is_changed(served: Served) -> None:
    reason = served.set_together(temperature=1.0, max_tokens=99_999)
    assert "max_tokens" in reason
    assert (served.get("temperature"), served.get("max_tokens")) == (0.0, 4)


def test_every_parameter_is_described_with_its_range(served: Served) -> None:
    names = [parameter.name for parameter in PARAMETERS]
    descriptors = served.call(DescribeParameters, DescribeParameters.Request(names=names)).descriptors
    for parameter, descriptor in zip(PARAMETERS, descriptors):
        assert descriptor.description == parameter.description
        ranges = list(descriptor.integer_range) + list(descriptor.floating_point_range)
        assert [(bound.from_value, bound.to_value) for bound in ranges] == (
            [] if parameter.low is None else [(parameter.low, parameter.high)]
        )
        assert descriptor.read_only == (parameter.change is Change.NEVER)


def test_what_needs_a_new_model_is_changed_between_two_and_counts_then(served: Served, nano_package: Path) -> None:
    served.down()
    assert not served.set_together(
        model=str(nano_package), context_length=512, prefix_cache_mb=0, image_transport="raw", rows=1, queue_size=1, threads=1
    )
    assert "max_tokens" in served.set("max_tokens", 512)
    served.up()
    assert served.vlm.ask("What is it?", max_tokens=1).info.model == "mobilevlm-nano"
    fails(lambda: served.vlm.ask("word " * 400), ErrorCode.PROMPT_TOO_LONG, "512")
    assert (served.status("prefix cache MiB"), served.status("topics")) == ("0.0", "/image")

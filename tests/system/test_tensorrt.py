"""The node on the TensorRT backend over pretended libraries: it builds its engines, tells so, and answers as on the CPU.

`pytest tests/system --simulated-tensorrt` runs every other system test so, too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.node import Node

from mobilevlm_ros import tasks
from mobilevlm_ros.client import VLM, Conversation
from mobilevlm_ros.pictures.files import read_picture
from mobilevlm_ros.runtime.backends import BackendChoice
from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.errors import ErrorCode
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.runtime.prompt import Turn
from mobilevlm_ros.runtime.sampling import GREEDY
from tests.system.graph import ON_SIMULATED_TENSORRT, PATIENCE, Caller, Camera, Process, fails, running_node, until, until_seen

NAME = "tensorrt_vlm"
TABLETOP = Path(__file__).resolve().parents[2] / "mobilevlm_ros" / "doctor" / "tabletop.jpg"
QUESTIONS = ("What is on the table?", "What color is the ball?", "How many things are there?", "Is there a cup?")
SETTINGS = tasks.Settings(GREEDY)
NEVER_BUILT = """
import sys
from dataclasses import replace
from mobilevlm_ros.doctor.simulated.libraries import simulated_libraries
from mobilevlm_ros.ros.node import main
from mobilevlm_ros.runtime.tensorrt.library import use_instead
slow = (sys.executable, "-c", "import sys, time; open(sys.argv[2], 'w').write('half'); time.sleep(300)")
use_instead(replace(simulated_libraries()[0], build_command=slow))
sys.exit(main())
"""
"""The node where building an engine does not come to an end."""


@pytest.fixture(scope="module")
def diagnostics(tester: Node) -> list[DiagnosticArray]:
    """All that nodes tell, from before the first of these begins."""
    heard: list[DiagnosticArray] = []
    tester.create_subscription(DiagnosticArray, "/diagnostics", heard.append, 100)
    return heard


@pytest.fixture(scope="module")
def node(
    nano_on_tensorrt: Path, diagnostics: list[DiagnosticArray], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Process]:
    log = tmp_path_factory.mktemp("tensorrt") / "node.log"
    parameters: dict[str, Any] = {"backend": "tensorrt", "max_image_age": 1000.0, "diagnostics_period": 0.1, "autostart": False}
    remap = ["image:=/tensorrt/image"]
    with running_node(NAME, log, remap, program=ON_SIMULATED_TENSORRT, model=nano_on_tensorrt, **parameters) as process:
        yield process


@pytest.fixture(scope="module")
def brought_up(node: Process, tester: Node, diagnostics: list[DiagnosticArray]) -> list[str]:
    """What the node told of its state while it was configured, which took a service call; it is active afterwards."""
    change = Caller(tester, ChangeState, f"/{NAME}/change_state")
    state = Caller(tester, GetState, f"/{NAME}/get_state")
    until(lambda: statuses(diagnostics, NAME))
    before = len(statuses(diagnostics, NAME))
    configured = change.begin(ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE)))
    until(lambda: len(statuses(diagnostics, NAME)) > before + 3)
    assert state(GetState.Request()).current_state.label == "configuring"
    assert not configured.done(), "the build is over before anything could be seen of it"
    until(configured.done)
    assert configured.result().success
    told = [status.message for status in statuses(diagnostics, NAME)[before:]]
    assert change(ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVATE))).success
    return told


@pytest.fixture(scope="module")
def vlm(tester: Node, brought_up: list[str], frame: Frame) -> VLM:
    camera = Camera(tester, "/tensorrt/image")
    client = VLM(tester, NAME)
    client.wait_until_there(PATIENCE)
    until_seen(client, camera)
    header = camera.show(np.asarray(frame.pixels))
    until(lambda: client.ask("Which?", max_tokens=1).info.header == header)
    return client


@pytest.fixture(scope="module")
def frame() -> Frame:
    return read_picture(TABLETOP)


@pytest.fixture(scope="module")
def cpu(nano_on_tensorrt: Path) -> Iterator[Engine]:
    with Engine.open(nano_on_tensorrt, EngineConfig(threads=1, backend=BackendChoice.CPU)) as engine:
        yield engine


def ball(cpu: Engine, frame: Frame) -> Box:
    """Where it is, as the CPU says."""
    (region,) = tasks.ground(cpu, frame, "the orange ball", SETTINGS).regions
    return region.box


def statuses(diagnostics: list[DiagnosticArray], node: str) -> list[Any]:
    return [status for message in list(diagnostics) for status in message.status if status.name == f"/{node}: model"]


def test_while_it_builds_its_engines_it_tells_what_it_is_at(
    brought_up: list[str], node: Process, diagnostics: list[DiagnosticArray]
) -> None:
    assert any(message.startswith("building vision.trt.onnx") for message in brought_up)
    assert any(message.startswith("building decoder.trt.onnx") for message in brought_up)
    until(lambda: statuses(diagnostics, NAME)[-1].message == "active")
    values = {value.key: value.value for value in statuses(diagnostics, NAME)[-1].values}
    assert values["backend"] == "tensorrt-10.16.0-trt"
    assert "building decoder.trt.onnx with TensorRT 10.16.0 for Simulated Orin" in node.log


def test_questions_get_the_cpus_answers(vlm: VLM, cpu: Engine, frame: Frame) -> None:
    assert [vlm.ask(question).text for question in QUESTIONS] == [tasks.ask(cpu, frame, one, SETTINGS).text for one in QUESTIONS]


def test_questions_at_once_get_what_each_gets_alone(vlm: VLM) -> None:
    alone = [vlm.ask(question).text for question in QUESTIONS]
    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        assert list(pool.map(lambda question: vlm.ask(question).text, QUESTIONS)) == alone


def test_a_thing_is_found_where_the_cpu_finds_it(vlm: VLM, cpu: Engine, frame: Frame) -> None:
    (region,) = vlm.ground("the orange ball").regions
    box = ball(cpu, frame)
    assert region.box == pytest.approx((box.x1, box.y1, box.x2, box.y2))


def test_a_label_is_chosen_and_a_region_described(vlm: VLM, cpu: Engine, frame: Frame) -> None:
    assert vlm.classify("Which of these?", ["an orange ball", "a purple bowl"]).label == "an orange ball"
    box = ball(cpu, frame)
    described = vlm.describe((box.x1, box.y1, box.x2, box.y2)).text
    assert described == tasks.describe_region(cpu, frame, box, SETTINGS).text


def test_a_conversation_goes_on_as_on_the_cpu_after_a_turn_that_was_taken_back(vlm: VLM, cpu: Engine, frame: Frame) -> None:
    talk = Conversation(vlm)
    first = talk.say(QUESTIONS[0]).text()
    talk.say(QUESTIONS[2]).close()
    expected = tasks.chat(cpu, frame, [Turn(QUESTIONS[0], first)], QUESTIONS[1], SETTINGS).text
    assert talk.say(QUESTIONS[1]).text() == expected


def test_a_request_over_the_context_is_refused_and_the_next_is_served(vlm: VLM) -> None:
    fails(lambda: vlm.ask("word " * 3000), ErrorCode.PROMPT_TOO_LONG)
    assert vlm.ask(QUESTIONS[0]).text


def test_a_node_that_is_stopped_while_it_builds_ends_at_once_and_leaves_nothing(nano_on_tensorrt: Path, tmp_path: Path) -> None:
    engines = tmp_path / "engines"
    parameters: dict[str, Any] = {"model": nano_on_tensorrt, "backend": "tensorrt", "engine_cache": engines}
    program = (sys.executable, "-c", NEVER_BUILT)
    with running_node("slow_vlm", tmp_path / "node.log", ["image:=/slow/image"], program=program, **parameters) as process:
        until(lambda: "building vision.trt.onnx with" in process.log)
    assert [path.name for path in engines.iterdir()] == [".lock"]


def test_a_node_without_tensorrt_that_may_run_on_the_processor_warns_of_it(
    nano_on_tensorrt: Path, diagnostics: list[DiagnosticArray], tmp_path: Path
) -> None:
    parameters: dict[str, Any] = {"backend": "tensorrt", "backend_fallback": True, "diagnostics_period": 0.1}
    with running_node("fallen_vlm", tmp_path / "node.log", ["image:=/fallen/image"], model=nano_on_tensorrt, **parameters):
        wanted = "runs on the CPU instead of TensorRT: tensorrt is not installed"
        until(lambda: any(status.message.startswith(wanted) for status in statuses(diagnostics, "fallen_vlm")))


def test_a_node_without_tensorrt_that_must_not_is_not_configured(
    nano_on_tensorrt: Path, diagnostics: list[DiagnosticArray], tmp_path: Path
) -> None:
    parameters: dict[str, Any] = {"backend": "tensorrt", "diagnostics_period": 0.1}
    with running_node("strict_vlm", tmp_path / "node.log", ["image:=/strict/image"], model=nano_on_tensorrt, **parameters):
        wanted = "tensorrt is not installed"
        until(lambda: any(status.message.startswith(wanted) for status in statuses(diagnostics, "strict_vlm")))
        assert statuses(diagnostics, "strict_vlm")[-1].level == b"\x02"

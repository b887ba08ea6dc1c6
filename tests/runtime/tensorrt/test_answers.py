"""The engine and the tasks on the TensorRT backend over pretended libraries: the answers are the CPU backend's."""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mobilevlm_ros.doctor.simulated.libraries import NEWEST, OLDEST, simulated_libraries
from mobilevlm_ros.pictures.files import read_picture
from mobilevlm_ros.runtime.backends import BackendChoice
from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.errors import BackendError, ErrorCode, PackageError, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.prompt import Turn
from mobilevlm_ros.runtime.requests import CancelToken, FinishReason, Limits
from mobilevlm_ros.runtime.sampling import GREEDY
from mobilevlm_ros.runtime.tensorrt.library import use_instead
from mobilevlm_ros.tasks import Settings, ask, chat, classify, ground
from tests.tensorrt_package import takes_fused

TABLETOP = Path(__file__).resolve().parents[3] / "mobilevlm_ros" / "doctor" / "tabletop.jpg"
ON_TENSORRT = EngineConfig(context_length=512, backend=BackendChoice.TENSORRT)
ON_CPU = replace(ON_TENSORRT, backend=BackendChoice.CPU, threads=1)
SETTINGS = Settings(GREEDY)
QUESTIONS = ("What is on the table?", "What color is the ball?", "How many things are there?", "Is there a cup?")


@pytest.fixture(params=[pytest.param(NEWEST, marks=takes_fused), OLDEST], ids=["fused", "portable"])
def on_a_device(request: pytest.FixtureRequest) -> Iterator[None]:
    """The machine seems to have TensorRT; afterwards nothing is left on the device."""
    libraries, cuda = simulated_libraries(request.param)
    use_instead(libraries)
    yield
    use_instead(None)
    assert cuda.problems == []
    assert cuda.live == 0


@pytest.fixture
def device(on_a_device: None, package: ModelPackage) -> Iterator[Engine]:
    with Engine.open(package.path, ON_TENSORRT) as engine:
        yield engine


@pytest.fixture(scope="module")
def cpu(package: ModelPackage) -> Iterator[Engine]:
    with Engine.open(package.path, ON_CPU) as engine:
        yield engine


@pytest.fixture(scope="module")
def frame() -> Frame:
    return read_picture(TABLETOP)


def test_questions_one_after_the_other_get_the_cpus_answers(device: Engine, cpu: Engine, frame: Frame) -> None:
    for question in QUESTIONS:
        answer, expected = (ask(engine, frame, question, SETTINGS) for engine in (device, cpu))
        assert answer.text == expected.text
        assert answer.confidence == pytest.approx(expected.confidence, abs=0.01)
    assert device.backend_name.startswith("tensorrt-")


def test_questions_at_once_get_the_answers_that_each_gets_alone(device: Engine, cpu: Engine, frame: Frame) -> None:
    picture = device.picture(frame)
    running = [device.generate(picture, question, GREEDY, Limits()) for question in QUESTIONS]
    texts = [device.tokenizer.decode(one.result().tokens).strip() for one in running]
    assert texts == [ask(cpu, frame, question, SETTINGS).text for question in QUESTIONS]


def test_things_are_found_where_the_cpu_finds_them(device: Engine, cpu: Engine, frame: Frame) -> None:
    found, expected = (ground(engine, frame, "the orange ball", SETTINGS) for engine in (device, cpu))
    (region,), (wanted,) = found.regions, expected.regions
    assert region.box == wanted.box
    assert region.score == pytest.approx(wanted.score, abs=0.02)


def test_labels_are_chosen_with_the_cpus_probabilities(device: Engine, cpu: Engine, frame: Frame) -> None:
    labels = ["ball", "mug", "a very long label of many tokens that is not there at all"]
    chosen, expected = (classify(engine, frame, "", labels, SETTINGS) for engine in (device, cpu))
    assert chosen.label == expected.label
    assert chosen.probabilities == pytest.approx(expected.probabilities, abs=0.01)


def test_a_conversation_goes_on_as_on_the_cpu(device: Engine, cpu: Engine, frame: Frame) -> None:
    history = [Turn(QUESTIONS[0], "A ball.")]
    answer, expected = (chat(engine, frame, history, QUESTIONS[1], SETTINGS) for engine in (device, cpu))
    assert answer.text == expected.text


def test_a_cancelled_request_ends_and_the_next_is_served(device: Engine, frame: Frame) -> None:
    limits = Limits(cancel=CancelToken())
    limits.cancel.cancel()
    with pytest.raises(VlmError) as caught:
        device.generate(device.picture(frame), QUESTIONS[0], GREEDY, limits).result()
    assert caught.value.code is ErrorCode.CANCELLED
    assert ask(device, frame, QUESTIONS[0], SETTINGS).text


def test_a_running_answer_that_is_taken_back_ends_at_the_next_token(package: ModelPackage, frame: Frame) -> None:
    libraries, cuda = simulated_libraries()
    use_instead(libraries)
    at_once = cuda._finish

    def slowly(stream: Any) -> None:
        time.sleep(0.05)
        at_once(stream)

    try:
        with Engine.open(package.path, ON_TENSORRT) as engine:
            cuda._finish = slowly  # type: ignore[method-assign]
            limits = Limits(cancel=CancelToken())
            running = engine.generate(engine.picture(frame), QUESTIONS[0], GREEDY, limits)
            next(iter(running))
            limits.cancel.cancel()
            assert running.result().finish is FinishReason.CANCELLED
    finally:
        use_instead(None)


def test_where_no_memory_is_left_to_keep_a_picture_its_question_is_answered_all_the_same(
    package: ModelPackage, frame: Frame
) -> None:
    libraries, cuda = simulated_libraries()
    use_instead(libraries)
    try:
        with Engine.open(package.path, ON_TENSORRT) as engine:
            first = ask(engine, frame, QUESTIONS[0], SETTINGS).text
            assert engine.stats().prefix_cache_bytes > 0
            cuda.total = cuda.used + 1000
            other = Frame(frame.pixels[:, ::-1].copy())
            assert ask(engine, other, QUESTIONS[0], SETTINGS).text
            assert engine.stats().prefix_cache_bytes == 0, "what was kept made room"
            assert ask(engine, frame, QUESTIONS[0], SETTINGS).text == first
    finally:
        use_instead(None)


def test_a_request_for_which_no_memory_is_left_fails_alone(package: ModelPackage, frame: Frame) -> None:
    """What stands before every picture is kept by the first request, which cannot do without."""
    libraries, cuda = simulated_libraries()
    use_instead(libraries)
    try:
        with Engine.open(package.path, ON_TENSORRT) as engine:
            cuda.total = cuda.used + 1000
            with pytest.raises(VlmError, match="a kept prefix: cudaMalloc: out of memory") as caught:
                ask(engine, frame, QUESTIONS[0], SETTINGS)
            assert caught.value.code is ErrorCode.OUT_OF_MEMORY
            cuda.total = 1 << 30
            assert ask(engine, frame, QUESTIONS[0], SETTINGS).text
    finally:
        use_instead(None)


def test_without_tensorrt_auto_is_the_cpu_and_nothing_is_amiss(package: ModelPackage) -> None:
    with Engine.open(package.path, replace(ON_CPU, backend=BackendChoice.AUTO)) as engine:
        assert (engine.backend_name, engine.notice) == ("onnxruntime-cpu", "")


def test_a_tensorrt_that_cannot_be_used_or_a_jetson_without_one_is_told(
    package: ModelPackage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def notice() -> str:
        with Engine.open(package.path, replace(ON_CPU, backend=BackendChoice.AUTO)) as engine:
            assert engine.backend_name == "onnxruntime-cpu"
            return engine.notice

    (tmp_path / "release").write_text("# R36 (release), REVISION: 4.3, GCID: 1\n")
    with monkeypatch.context() as jetson:
        jetson.setattr("mobilevlm_ros.runtime.tensorrt.builder._L4T_RELEASE", tmp_path / "release")
        assert "instead of TensorRT: tensorrt is not installed" in notice()
    old = types.ModuleType("tensorrt")
    old.__version__ = "8.5.2.2"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    assert "instead of TensorRT: tensorrt is 8.5.2.2, needed is 10.3 or later" in notice()


def test_tensorrt_that_is_wanted_and_not_there_is_an_error_that_says_where_it_comes_from(package: ModelPackage) -> None:
    with pytest.raises(BackendError, match="tensorrt is not installed .* on a Jetson it comes with JetPack"):
        Engine.open(package.path, ON_TENSORRT)


def test_the_cpu_steps_in_only_where_that_is_asked_for_and_it_is_told(package: ModelPackage) -> None:
    said: list[str] = []
    with Engine.open(package.path, replace(ON_TENSORRT, backend_fallback=True), said.append) as engine:
        assert engine.backend_name == "onnxruntime-cpu"
        assert engine.notice.startswith("runs on the CPU instead of TensorRT: tensorrt is not installed")
        assert said == [engine.notice]


@pytest.mark.usefixtures("on_a_device")
def test_a_package_for_the_cpu_runs_there_and_tells_a_user_with_a_device_why(fresh: ModelPackage) -> None:
    manifest = replace(fresh.manifest, files={name: file for name, file in fresh.manifest.files.items() if "trt" not in name})
    (fresh.path / "manifest.json").write_text(manifest.to_json())
    with Engine.open(fresh.path, replace(ON_TENSORRT, backend=BackendChoice.AUTO)) as engine:
        assert engine.backend_name == "onnxruntime-cpu"
        assert "has no graphs for TensorRT; convert the checkpoint with --backend all" in engine.notice
    with pytest.raises(PackageError, match="has no graphs for TensorRT"):
        Engine.open(fresh.path, ON_TENSORRT)


@pytest.mark.usefixtures("on_a_device")
def test_auto_takes_tensorrt_where_there_is_a_device(package: ModelPackage) -> None:
    with Engine.open(package.path, replace(ON_TENSORRT, backend=BackendChoice.AUTO)) as engine:
        assert engine.backend_name.startswith("tensorrt-")


def test_a_failure_of_tensorrt_is_an_error_unless_the_cpu_may_step_in(package: ModelPackage) -> None:
    libraries, _ = simulated_libraries(memory=1 << 12)
    use_instead(libraries)
    try:
        for choice in (BackendChoice.AUTO, BackendChoice.TENSORRT):
            with pytest.raises(BackendError) as caught:
                Engine.open(package.path, replace(ON_TENSORRT, backend=choice))
            assert caught.value.code is ErrorCode.OUT_OF_MEMORY
        with Engine.open(package.path, replace(ON_TENSORRT, backend_fallback=True)) as engine:
            assert engine.backend_name == "onnxruntime-cpu"
    finally:
        use_instead(None)

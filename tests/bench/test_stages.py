"""The user's benchmark: what is measured, with the model that ships, and how it is told."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from mobilevlm_ros.bench.report import facts, markdown, table, values
from mobilevlm_ros.bench.stages import ANSWER_TOKENS, BenchOptions, Measurement, Stage, measure, steps
from mobilevlm_ros.bench.unending import Unending
from mobilevlm_ros.cli import main
from mobilevlm_ros.machine import Machine, read_machine
from mobilevlm_ros.models import shipped_package
from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.errors import VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.manifest import Precision
from mobilevlm_ros.runtime.requests import FinishReason, Limits
from mobilevlm_ros.runtime.sampling import SamplingParams
from tests.fakes import FakeBackend, fake_engine, manifest, reply

STAGES = [
    *("load_ms", "encode_ms", "prefill_ms", "prefill_tokens_per_s", "decode_tokens_per_s"),
    *("first_question_ms", "follow_up_ms", "four_at_once_ms", "peak_memory_mib"),
]
OPTIONS = BenchOptions(runs=2, warm_up=1)


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def measured(told: list[str]) -> Measurement:
    return measure(shipped_package(), OPTIONS, told.append)


def test_an_answer_goes_on_to_its_longest_length_though_the_model_would_end_it() -> None:
    with fake_engine(FakeBackend(reply("yes"))) as engine:
        picture = engine.picture(Frame(np.zeros((8, 8, 3), np.uint8)))
        sampling = SamplingParams(7, temperature=0.0)
        free = engine.generate(picture, "What?", sampling, Limits()).result()
        held = engine.generate(picture, "What?", sampling, Limits(), constraint=Unending(manifest())).result()
    assert (len(free.tokens), free.finish) == (3, FinishReason.STOP)
    assert (len(held.tokens), held.finish) == (7, FinishReason.LENGTH)


def test_the_nano_model_s_answers_have_the_length_that_is_claimed() -> None:
    with Engine.open(shipped_package(), EngineConfig(rows=1)) as engine:
        picture = engine.picture(Frame(np.zeros((8, 8, 3), np.uint8)))
        sampling = SamplingParams(ANSWER_TOKENS, temperature=0.0)
        answer = engine.generate(picture, "What?", sampling, Limits(), constraint=Unending(engine.manifest)).result()
    assert len(answer.tokens) == ANSWER_TOKENS


def test_every_stage_is_measured_as_often_as_asked(measured: Measurement) -> None:
    assert [stage.name for stage in measured.stages] == STAGES
    once = {"load_ms", "peak_memory_mib"}
    assert all(len(stage.values) == (1 if stage.name in once else 2) for stage in measured.stages)
    assert all(value > 0 for stage in measured.stages for value in stage.values)
    assert measured.prompt_tokens > measured.manifest.vision.tokens


def test_a_follow_up_is_spared_what_the_first_question_had_to_compute(measured: Measurement) -> None:
    medians = {stage.name: stage.median for stage in measured.stages}
    assert medians["first_question_ms"] > medians["encode_ms"] + medians["prefill_ms"]
    assert medians["follow_up_ms"] < medians["first_question_ms"]


def test_progress_is_told_as_many_steps_as_announced(measured: Measurement, told: list[str]) -> None:
    assert len(told) == steps(OPTIONS)
    assert told[:2] == ["load", "first question"]


def test_the_middle_value_is_told_and_not_the_mean() -> None:
    assert Stage("encode_ms", (1.0, 100.0, 2.0)).median == 2.0


@pytest.mark.parametrize("wrong", [{"runs": 0}, {"warm_up": -1}])
def test_a_number_of_runs_that_makes_no_sense_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(VlmError, match="--runs"):
        BenchOptions(**wrong)


class TestReport:
    MACHINE = Machine("Arm Cortex-A78AE", 12, 32 << 30, 30 << 30, ("asimddp",), "NVIDIA Jetson AGX Orin")

    def test_it_names_machine_versions_package_and_precision(self, measured: Measurement) -> None:
        told = facts(measured, self.MACHINE, OPTIONS)
        assert told["machine"] == "Arm Cortex-A78AE, NVIDIA Jetson AGX Orin, 12 cores, asimddp, 32.0 GiB"
        assert told["model"] == "mobilevlm-nano"
        assert told["precision"] == "fp16"
        assert told["backend"].startswith("onnxruntime-cpu ")

    def test_two_precisions_are_both_named(self, measured: Measurement) -> None:
        mixed = replace(measured, manifest=replace(measured.manifest, decoder_precision=Precision.INT4))
        assert facts(mixed, self.MACHINE, OPTIONS)["precision"] == "int4 decoder, fp16 vision"

    def test_markdown_is_a_table_and_the_facts(self, measured: Measurement) -> None:
        lines = markdown(measured, self.MACHINE, OPTIONS).splitlines()
        assert sum(line.startswith("| ") for line in lines) == 1 + len(STAGES)
        assert sum(line.startswith("- ") for line in lines) == len(facts(measured, self.MACHINE, OPTIONS))
        assert json.loads(lines[-1].strip("`")) == json.loads(json.dumps(values(measured, self.MACHINE, OPTIONS)))

    def test_a_line_a_stage_for_the_terminal(self, measured: Measurement) -> None:
        lines = table(measured)
        assert len(lines) == len(STAGES)
        assert "tokens/s" in lines[4]

    def test_values_hold_median_and_range(self, measured: Measurement) -> None:
        stages = values(measured, read_machine(), OPTIONS)["stages"]
        assert isinstance(stages, dict)
        assert all(one["min"] <= one["median"] <= one["max"] for one in stages.values())


class TestCommand:
    def test_json_is_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", "--runs", "1", "--warm-up", "0", "--json"]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        found = json.loads(line)
        assert list(found["stages"]) == STAGES
        assert found["answer_tokens"] == ANSWER_TOKENS

    def test_a_package_that_is_not_there_is_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", "--model", "nowhere", "--runs", "1"]) == 1
        assert capsys.readouterr().err.count("\n") == 1

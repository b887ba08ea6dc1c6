"""The benchmark against other engines: who takes turns with whom, what follows from the times, and processes that are real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import cpu_files
from bench.cpu import groups, main
from bench.cpu_files import check_installed, our_package
from bench.cpu_process import EngineProcess, Memory
from bench.cpu_report import markdown, summary, table
from bench.cpu_rounds import Group, Measured, Plan, Start, stages_of, take
from bench.cpu_stages import DECODE_TOKENS, PROMPT_TOKENS, BenchError, Stage
from mobilevlm_ros.bench.bandwidth import MemoryReader

Q4, KM = "llama.cpp-Q4_0", "llama.cpp-Q4_K_M"


def measured(times: dict[str, dict[Stage, list[float]]], bandwidth: float = 10.0) -> Measured:
    """What would have been measured of engines that read a gigabyte a token."""
    flat = {(engine, stage): values for engine, stages in times.items() for stage, values in stages.items()}
    return Measured(flat, dict.fromkeys(times, 10**9), dict.fromkeys(times, 0.01), (bandwidth,))


def every_stage(milliseconds: float) -> dict[Stage, list[float]]:
    return {stage: [milliseconds] for stage in Stage}


MEMORY = Memory(1_500_000_000, 1_200_000_000, 300_000_000)
START = Start(load_ms=900.0, ready_s=1.5, answered_s=2.5, one_at_a_time=MEMORY, memory=MEMORY)


class TestGroups:
    def test_ours_and_llama_cpp_take_turns_and_each_of_torch_with_ours_alone(self) -> None:
        found = groups(["ours", Q4, "torch-bfloat16", "torch-float32"], rounds=7)
        assert found[0] == Group(("ours", Q4), 7)
        assert [group.engines for group in found[1:]] == [("ours", "torch-bfloat16"), ("ours", "torch-float32")]
        assert all(group.rounds <= 3 for group in found[1:])

    def test_the_official_code_is_not_asked_for_what_it_does_not_have(self) -> None:
        assert set(Stage) - set(stages_of("torch-bfloat16")) == {Stage.FOLLOW_UP, Stage.FOUR_AT_ONCE}
        assert set(stages_of(Q4)) == set(stages_of("ours")) == set(Stage)


class TestSummary:
    def test_ratios_are_to_the_best_of_llama_cpp_stage_by_stage(self) -> None:
        ours, fast, slow = every_stage(100.0), every_stage(300.0), every_stage(400.0)
        slow[Stage.DECODE] = [50.0]  # the slower one is the best at decoding
        found = summary({}, [measured({"ours": ours, Q4: fast, KM: slow})])
        assert found["first_question_ratio"] == pytest.approx(100 / 300, rel=1e-3)
        assert found["followup_ratio"] == pytest.approx(100 / 300, rel=1e-3)
        assert found["prefill_ratio"] == pytest.approx(3.0)
        assert found["decode_ratio"] == pytest.approx(0.5)

    def test_the_median_counts_and_not_the_mean(self) -> None:
        ours = every_stage(100.0)
        ours[Stage.FIRST_QUESTION] = [100.0, 90.0, 9000.0]
        assert summary({}, [measured({"ours": ours})])["engines"]["ours"]["first_question_s"] == pytest.approx(0.1)

    def test_speeds_and_shares_follow_from_times(self) -> None:
        ours = summary({}, [measured({"ours": every_stage(1000.0)}, bandwidth=64.0)])["engines"]["ours"]
        assert ours["prefill_tokens_per_s"] == PROMPT_TOKENS
        assert ours["decode_tokens_per_s"] == DECODE_TOKENS
        assert ours["decode_bandwidth_share"] == pytest.approx(DECODE_TOKENS / 64.0)

    def test_a_follow_up_and_four_at_once_are_told_as_shares_of_one_first_question(self) -> None:
        ours = every_stage(100.0)
        ours[Stage.FOLLOW_UP], ours[Stage.FOUR_AT_ONCE] = [30.0], [150.0]
        found = summary({}, [measured({"ours": ours})])
        assert (found["followup_of_first"], found["four_at_once_ratio"]) == (pytest.approx(0.3), pytest.approx(1.5))

    def test_starts_tell_memory_by_kind_and_the_time_to_the_first_answer(self) -> None:
        found = summary({"ours": [START]}, [measured({"ours": every_stage(100.0)})])
        assert (found["peak_memory_gb"], found["warm_start_s"]) == (1.5, 1.5)
        assert found["first_answer_after_start_s"] == 2.5
        assert (found["engines"]["ours"]["anonymous_gb"], found["engines"]["ours"]["mapped_gb"]) == (1.2, 0.3)

    def test_the_official_way_is_compared_with_what_ran_beside_it(self) -> None:
        first = measured({"ours": every_stage(100.0)})
        official = {stage: [1000.0] for stage in stages_of("torch-bfloat16")}
        second = measured({"ours": every_stage(200.0), "torch-bfloat16": official})
        found = summary({}, [first, second])
        assert found["first_question_ratio_to_torch-bfloat16"] == pytest.approx(0.2)
        assert found["engines"]["ours"]["first_question_s"] == pytest.approx(0.1)

    def test_all_keys_that_the_command_promises_are_there(self) -> None:
        found = summary({"ours": [START], Q4: [START]}, [measured({"ours": every_stage(100.0), Q4: every_stage(300.0)})])
        promised = {
            *("first_question_ratio", "followup_ratio", "prefill_ratio", "decode_ratio", "decode_bandwidth_share"),
            *("four_at_once_ratio", "peak_memory_gb", "warm_start_s", "followup_of_first"),
        }
        assert promised <= set(found)

    def test_ours_with_a_decoder_for_prompts_is_compared_apart(self) -> None:
        times = {"ours": every_stage(200.0), "ours-int8-prefill": every_stage(100.0), Q4: every_stage(300.0)}
        found = summary({}, [measured(times)])
        assert found["first_question_ratio"] == pytest.approx(2 / 3, rel=1e-3)
        assert found["with_int8_prefill"]["first_question_ratio"] == pytest.approx(1 / 3, rel=1e-3)
        assert sum("first_question_ratio" in line for line in table(found)) == 2

    def test_table_and_markdown_have_a_line_for_each_engine(self) -> None:
        found = summary({"ours": [START]}, [measured({"ours": every_stage(100.0), Q4: every_stage(300.0)})])
        assert sum(line.split()[:1] in (["ours"], [Q4]) for line in table(found)) == 2
        text = markdown({**found, "machine": "a machine", "threads": 2, "rounds": 7, "versions": "onnxruntime 1.32.0"})
        assert sum(line.startswith(("| ours |", f"| {Q4} |")) for line in text.splitlines()) == 2
        assert "a machine; 2 threads; memory 10 GB/s" in text


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch", reason="the package is made by the converter")
    from bench.skeleton import build_skeleton
    from tests.make_checkpoint import tiny_config

    folder = tmp_path_factory.mktemp("bench")
    cpu_files.keep_package(build_skeleton("tiny", tiny_config(vocab=2000)), folder)
    return folder


class TestMeasuring:
    def test_an_engine_in_a_process_of_its_own_is_started_timed_and_watched(self, work: Path) -> None:
        told: list[str] = []
        plan = Plan((Group(("ours",), 2),), starts=1, threads=1, work=work)
        starts, (found,) = take(plan, MemoryReader(1, 1 << 26), told.append)
        assert len(told) == plan.steps
        assert {stage for _, stage in found.times} == set(Stage)
        assert all(len(times) == 2 and min(times) > 0 for times in found.times.values())
        assert found.bandwidth[0] > 0
        (start,) = starts["ours"]
        assert start.answered_s > start.load_ms / 1e3 > 0
        assert start.memory.resident > start.memory.anonymous > 10_000_000

    def test_a_process_that_died_is_one_line(self, work: Path) -> None:
        with EngineProcess("ours", work, 1) as process:
            process._process.kill()
            process._process.wait()
            with pytest.raises(BenchError, match="ours: the process ended"):
                process.run(Stage.ENCODE, 0)

    def test_an_engine_that_does_not_load_says_why(self, tmp_path: Path) -> None:
        with pytest.raises(BenchError, match="no package here"):
            EngineProcess("ours", tmp_path, 1)

    def test_the_package_of_an_older_converter_is_removed(self, work: Path, tmp_path: Path) -> None:
        from bench.skeleton import build_skeleton
        from tests.make_checkpoint import tiny_config

        for layers in (1, 2):
            cpu_files.keep_package(build_skeleton("tiny", tiny_config(layers=layers, vocab=1000)), tmp_path)
        assert [path.parent for path in tmp_path.glob("*/manifest.json")] == [our_package(tmp_path)]


class TestCommand:
    def test_a_library_that_is_missing_is_named_with_what_installs_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(cpu_files.NEEDED, "llama.cpp", ("no_such_module",))
        with pytest.raises(BenchError, match=r"no_such_module: pip install -r requirements/bench\.txt"):
            check_installed(["ours", Q4])
        check_installed(["ours"])

    @pytest.mark.parametrize("wrong", [["--engines", "llama.cpp-Q4_0"], ["--engines", "ours,other"], ["--rounds", "0"]])
    def test_arguments_that_make_no_sense_are_refused(self, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="2"):
            main(wrong)
        assert capsys.readouterr().err

    def test_the_recorded_run_has_all_ratios(self) -> None:
        from bench.cpu import RESULT

        recorded = json.loads(RESULT.read_text(encoding="utf-8"))
        assert {"first_question_ratio", "prefill_ratio", "decode_ratio", "machine", "versions"} <= set(recorded)
        assert markdown(recorded).count("\n") > len(recorded["engines"])

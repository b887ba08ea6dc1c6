"""`mobilevlm doctor --jetson` over pretended libraries: it passes where all is well, and each fault makes it fail.

This proves the doctor. It proves nothing about TensorRT or a Jetson.
"""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilevlm_ros.cli import main
from mobilevlm_ros.doctor.check import Check, Status
from mobilevlm_ros.doctor.jetson import Wish, examine_jetson, subjects
from mobilevlm_ros.doctor.jetson_compare import Outcome, agreement
from mobilevlm_ros.doctor.jetson_run import Run, looked_at
from mobilevlm_ros.doctor.jetson_site import Nature, Site
from mobilevlm_ros.doctor.jetson_speed import BRIEF
from mobilevlm_ros.doctor.jetson_subjects import Look, Shipped, Subject, opened
from mobilevlm_ros.doctor.simulated import tensorrt as simulated_tensorrt
from mobilevlm_ros.doctor.simulated.cuda import SimulatedCuda
from mobilevlm_ros.doctor.simulated.graph import Graph
from mobilevlm_ros.doctor.simulated.jetson import MakeLibraries, Pretended, found_wrong, pretended_jetson
from mobilevlm_ros.doctor.simulated.libraries import NEWEST, OLDEST, simulated_libraries
from mobilevlm_ros.doctor.work_folder import work_folder
from mobilevlm_ros.models import shipped_package
from mobilevlm_ros.runtime.errors import BackendError, VlmError
from mobilevlm_ros.runtime.tensorrt.library import Libraries, open_libraries
from tests.tensorrt_package import takes_fused

MAIN = [sys.executable, "-c", "import sys; from mobilevlm_ros.cli import main; sys.exit(main())"]
NANO = Subject("nano fp16", shipped_package(), frozenset({Look.ANSWERS}))


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MAIN, "doctor", *arguments], capture_output=True, text=True)


def fails(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.detail for check in checks if check.status is Status.FAIL}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where engines stay from test to test."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture
def look(engines: Path) -> Callable[..., list[Check]]:
    """Looks at the nano model over libraries that may have a fault, with the engines of an earlier look or in a new folder."""

    def look(make: MakeLibraries = simulated_libraries, subject: Subject = NANO, folder: Path = engines) -> list[Check]:
        with pretended_jetson(Pretended.SEVEN, make) as site:
            run = Run(site, site.open_libraries(), None, folder, BRIEF, lambda line: None)
            return list(looked_at(run, subject))

    return look


@pytest.mark.parametrize("jetpack", ["6", pytest.param("7", marks=takes_fused)])
def test_a_pretended_jetson_passes_everything_that_can_be_checked_and_every_line_says_that_it_is_pretended(
    jetpack: str, tmp_path: Path
) -> None:
    done = doctor("--jetson", "--simulate", jetpack, "--json", "--work", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert (told["healthy"], told["simulated"]) == (True, True)
    assert all(check["detail"].startswith("simulated: ") for check in told["checks"])
    found = {(check["group"], check["name"]): check for check in told["checks"]}
    assert {check["status"] for check in told["checks"]} == {"PASS", "SKIP"}
    skipped = {name for name, check in found.items() if check["status"] == "SKIP"}
    assert skipped == {("1.7B", "all"), ("in all", "TensorRT's kernels")}, "what a simulation cannot show"
    for name in ("engines", "visual tokens", "logits", "greedy tokens", "CUDA graphs", "cache in place"):
        assert {("nano fp16", name), ("small INT4", name)} <= found.keys()
    assert "'Orange', which is right" in found["nano fp16", "nano model"]["detail"]
    assert {"6": "10.3.0", "7": "10.16.0"}[jetpack] in found["Jetson", "TensorRT"]["detail"]
    decode = found["small INT4", "decode"]
    assert decode["value"] > 0
    assert (decode["unit"], decode["conditions"]) == ("tokens/s", "MAXN, GPU 1300 MHz, memory 3199 MHz, CPU 2201 MHz")
    assert list(tmp_path.iterdir()) == []


def test_without_tensorrt_a_line_each_says_what_is_missing_and_what_was_not_looked_at(tmp_path: Path) -> None:
    done = doctor("--jetson", "--work", str(tmp_path))
    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if "FAIL" in line]
    assert len(failed) == 2
    assert "tensorrt is not installed" in failed[0]
    assert "no CUDA device can be used" in failed[1]
    assert "1.7B fp16       SKIP     all" in done.stdout
    assert "simulated" not in done.stdout


def test_a_fault_in_the_simulation_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Graph, "compute", lambda *arguments: None)
    assert main(["doctor", "--jetson", "--simulate", "--model", str(shipped_package()), "--work", str(tmp_path)]) == 1
    assert "FAIL     visual tokens" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_engines_run_ends_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [*MAIN, "doctor", "--jetson", "--simulate", "--work", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "comparing with the processor" not in process.stderr.readline():
            assert process.poll() is None, "it ended before"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told.splitlines()[-1] == "mobilevlm: interrupted"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--jetson", "--graph"], "name one of them"),
        (["--simulate"], "--simulate is for --jetson"),
        (["--quick"], "--quick is for --jetson"),
        (["--jetson", "--work", "/proc/nothing"], "/proc/nothing: No such file or directory; name another folder"),
    ],
)
def test_options_that_do_not_fit_end_with_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


class TestFaults:
    def test_without_any_it_passes(self, look: Callable[..., list[Check]]) -> None:
        checks = look()
        assert fails(checks) == {}
        names = ["engines", "visual tokens", "logits", "greedy tokens", "CUDA graphs", "cache in place"]
        assert [check.name for check in checks] == names

    def test_too_little_memory(self, look: Callable[..., list[Check]], tmp_path: Path) -> None:
        (check,) = look(lambda version, memory: simulated_libraries(version, 4 << 20), folder=tmp_path)
        assert check.status is Status.FAIL
        assert "does not fit" in check.detail or "MiB are available" in check.detail or "out of memory" in check.detail

    def test_engines_that_another_version_has_built(self, look: Callable[..., list[Check]], tmp_path: Path) -> None:
        def mixed(version: str, memory: int) -> tuple[Libraries, SimulatedCuda]:
            libraries, cuda = simulated_libraries(version, memory)
            return Libraries(libraries.tensorrt, libraries.cudart, simulated_libraries(OLDEST)[0].build_command), cuda

        found = fails(look(mixed, folder=tmp_path))
        assert "the engine is of version 10.3.0" in found["comparison"]

    @takes_fused
    def test_a_version_that_does_not_say_that_the_cache_is_shared(
        self, look: Callable[..., list[Check]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begin = simulated_tensorrt.Engine.__init__

        def silent(engine: simulated_tensorrt.Engine, *arguments: Any) -> None:
            begin(engine, *arguments)
            engine.get_aliased_input_tensor = lambda name: ""  # type: ignore[attr-defined]

        monkeypatch.setattr(simulated_tensorrt.Engine, "__init__", silent)
        assert fails(look()) == {
            "cache in place": "TensorRT does not say that present_key_0 shares the cache's memory",
        }

    @takes_fused
    def test_an_engine_that_leaves_the_cache_as_it_is(
        self, look: Callable[..., list[Check]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compute = Graph.compute

        def elsewhere(graph: Graph, places: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> None:
            kept = {name: np.empty(graph.outputs[name].nbytes(shapes[name]), np.uint8) for name in graph.outputs}
            cache = {name: array.ctypes.data for name, array in kept.items() if name.startswith("present_")}
            for name, place in cache.items():
                past = name.replace("present", "past")
                ctypes.memmove(place, places[past], len(kept[name]))
            pasts = {name.replace("present", "past"): place for name, place in cache.items()}
            compute(graph, {**places, **cache, **pasts}, shapes)

        monkeypatch.setattr(Graph, "compute", elsewhere)
        found = fails(look())
        assert found["cache in place"] == "what a prefill computed is not in the cache's memory"
        assert {"logits", "greedy tokens"} <= found.keys()

    def test_numbers_that_are_none(self, look: Callable[..., list[Check]], monkeypatch: pytest.MonkeyPatch) -> None:
        def poisoned(graph: Graph, places: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> None:
            for name, value in graph.outputs.items():
                ctypes.memset(places[name], 0xFF, value.nbytes(shapes[name]))

        monkeypatch.setattr(Graph, "compute", poisoned)
        assert fails(look())["logits"] == "some are no numbers"

    def test_graphs_that_do_nothing(self, look: Callable[..., list[Check]]) -> None:
        def broken(version: str, memory: int) -> tuple[Libraries, SimulatedCuda]:
            libraries, cuda = simulated_libraries(version, memory)
            cuda._launch = lambda *arguments: None  # type: ignore[method-assign]
            cuda._functions = cuda._make_functions()
            libraries.cudart.__init__(cuda)  # type: ignore[misc]
            return libraries, cuda

        assert "other tokens" in fails(look(broken))["CUDA graphs"]

    def test_graphs_that_cannot_be_captured_are_a_warning(self, look: Callable[..., list[Check]]) -> None:
        def refusing(version: str, memory: int) -> tuple[Libraries, SimulatedCuda]:
            libraries, cuda = simulated_libraries(version, memory)
            refuse = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(lambda stream, mode: 900)
            cuda._functions["cudaStreamBeginCapture"] = refuse
            return libraries, cuda

        checks = {check.name: check for check in look(refusing)}
        assert checks["CUDA graphs"].status is Status.WARN
        assert "decode runs without a CUDA graph" in checks["CUDA graphs"].detail

    def test_a_package_without_graphs_for_tensorrt(self, look: Callable[..., list[Check]], tmp_path: Path) -> None:
        (check,) = look(subject=Subject("other", tmp_path / "nothing", frozenset({Look.ANSWERS})))
        assert check.status is Status.FAIL
        assert "no such model package" in check.detail

    def test_a_device_that_does_not_answer(self, tmp_path: Path) -> None:
        def lost(version: str, memory: int) -> tuple[Libraries, SimulatedCuda]:
            libraries, cuda = simulated_libraries(version, memory)
            refuse = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(lambda to, which: 719)
            cuda._functions["cudaGetDeviceProperties_v2"] = refuse
            libraries.cudart.__init__(cuda)  # type: ignore[misc]
            return libraries, cuda

        with pretended_jetson(Pretended.SEVEN, lost) as site:
            groups = list(examine_jetson(site, Wish(), tmp_path))
        assert "launch failure" in fails([check for group in groups for check in group.checks])["CUDA"]
        assert [group.checks[0].status for group in groups if "nano" in group.title] == [Status.SKIP]

    def test_too_little_memory_for_the_reference_leaves_that_out_and_nothing_else(
        self, look: Callable[..., list[Check]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Site, "free_memory", lambda site, libraries: 1 << 20)
        checks = look()
        assert [check.name for check in checks] == ["engines", "comparison", "CUDA graphs", "cache in place"]
        assert checks[1].status is Status.SKIP
        assert fails(checks) == {}

    def test_what_the_driver_has_seen_and_what_was_not_given_back_is_told(self) -> None:
        cuda = SimulatedCuda()
        assert found_wrong(cuda) == []
        cuda.problems.append("a mistake")
        libraries, used = simulated_libraries()
        libraries.cudart.create_stream()
        assert found_wrong(cuda) == ["a mistake"]
        assert found_wrong(used) == ["1 blocks, streams, events or graphs were not given back"]


class TestAgreement:
    EXPECTED = Outcome(np.ones((2, 3), np.float32), (1, 2), np.array([[0, 9, 8.9, 0], [0, 1, 9, 0]], np.float32))

    def outcome(self, tokens: tuple[int, ...], change: float = 0.0) -> Outcome:
        return Outcome(self.EXPECTED.features, tokens, self.EXPECTED.logits + np.float32(change))

    def statuses(self, found: Outcome) -> list[Status]:
        return [check.status for check in agreement(found, self.EXPECTED, 0.02)]

    def test_the_same_passes(self) -> None:
        assert self.statuses(self.outcome((1, 2))) == [Status.PASS] * 3

    def test_a_token_that_was_all_but_chosen_may_be_another(self) -> None:
        assert self.statuses(self.outcome((2, 2))) == [Status.PASS] * 3
        assert self.statuses(self.outcome((1, 1))) == [Status.PASS, Status.PASS, Status.FAIL]

    def test_logits_further_off_than_the_tolerance_fail(self) -> None:
        assert self.statuses(self.outcome((1, 2), 0.17))[1] is Status.PASS
        assert self.statuses(self.outcome((1, 2), 0.19))[1] is Status.FAIL


class TestWhatIsLookedAt:
    def titles(self, nature: Nature, wish: Wish) -> list[str]:
        return [subject.title for subject in subjects(Site(nature=nature), wish)]

    def test_the_full_size_is_timed_on_a_device_only_and_not_where_it_is_to_be_quick(self) -> None:
        assert self.titles(Nature.REAL, Wish()) == ["nano fp16", "small INT4", "1.7B INT4", "1.7B fp16"]
        assert self.titles(Nature.REAL, Wish(full_size=False)) == ["nano fp16", "small INT4"]
        assert self.titles(Nature.SIMULATED, Wish()) == ["nano fp16", "small INT4"]

    def test_a_package_of_the_user_takes_their_place(self) -> None:
        (subject,) = subjects(Site(), Wish(Path("/models/mine")))
        assert (subject.title, subject.looks) == ("mine", {Look.ANSWERS, Look.SPEED})

    def test_a_disk_without_room_is_told_before_anything_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10**9}))
        subject = Subject("1.7B INT4", Shipped.FULL_INT4, frozenset({Look.SPEED}))
        with pytest.raises(VlmError, match=r"1.0 GB free, needed are \d+.\d GB"), opened(subject, tmp_path, lambda line: None):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_what_a_killed_doctor_left_is_removed_and_what_another_uses_is_not(self, tmp_path: Path) -> None:
        left = tmp_path / "jetson-dead"
        left.mkdir()
        (left / ".in-use").write_text("")
        (left / "weights").write_text("large")
        with work_folder(tmp_path) as used, work_folder(tmp_path) as second:
            assert {used, second} == set(tmp_path.iterdir())
        assert list(tmp_path.iterdir()) == []

    def test_an_interruption_leaves_nothing_behind(self, tmp_path: Path) -> None:
        def interrupt(line: str) -> None:
            raise KeyboardInterrupt

        def groups() -> Iterator[object]:
            with pretended_jetson(Pretended.SEVEN) as site:
                yield from examine_jetson(site, Wish(), tmp_path, interrupt)

        with pytest.raises(KeyboardInterrupt):
            list(groups())
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(BackendError):
            open_libraries()


def test_the_versions_that_are_pretended_take_a_decoder_each() -> None:
    assert (Pretended.SIX.jetpack.tensorrt, Pretended.SEVEN.jetpack.tensorrt) == (OLDEST, NEWEST)

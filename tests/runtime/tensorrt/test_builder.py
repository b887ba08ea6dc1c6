"""Engines for a package: built once in a process of their own, found again, and honest words where that does not work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mobilevlm_ros.doctor.simulated.libraries import NEWEST, OLDEST
from mobilevlm_ros.runtime.errors import BackendError, ErrorCode, PackageError
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.tensorrt import builder as module
from mobilevlm_ros.runtime.tensorrt.builder import EngineBuilder, EngineNeeds, Engines, l4t_release
from mobilevlm_ros.runtime.tensorrt.library import Libraries
from mobilevlm_ros.runtime.tensorrt.plan import Role, make_order
from tests.runtime.tensorrt.conftest import Simulate
from tests.tensorrt_package import takes_fused

NEEDS = EngineNeeds(rows=4, context_length=512)


def build(libraries: Libraries, package: ModelPackage, needs: EngineNeeds = NEEDS) -> tuple[Engines, list[str]]:
    said: list[str] = []
    return EngineBuilder(libraries, package, needs, said.append).engines(), said


def other_builder(libraries: Libraries, *command: str) -> Libraries:
    return replace(libraries, build_command=(sys.executable, *command))


@takes_fused
def test_engines_are_built_with_progress_once_and_found_from_then_on(simulate: Simulate, fresh: ModelPackage) -> None:
    libraries = simulate().libraries
    made, said = build(libraries, fresh)
    assert [line.split(" with ")[0] for line in said if " with " in line] == [
        "building vision.trt.onnx",
        "building decoder.trt.onnx",
    ]
    assert any("decoder.trt.onnx: Building Engine" in line for line in said)
    assert said[-1].startswith("built decoder.trt.onnx in")
    again, said = build(libraries, fresh)
    assert said == []
    assert [one.path for one in again.files] == [one.path for one in made.files]
    assert all(one.built_s == 0.0 for one in again.files)
    assert not list((fresh.path / "engines").glob("*.part"))


def test_another_tensorrt_or_longer_context_has_an_engine_of_its_own(simulate: Simulate, fresh: ModelPackage) -> None:
    simulation = simulate()
    first = build(simulation.libraries, fresh)[0]
    assert build(simulate("10.17.0").libraries, fresh)[0].vision.path != first.vision.path
    longer = build(simulation.libraries, fresh, replace(NEEDS, context_length=1024))[0]
    assert longer.vision.path == first.vision.path
    assert longer.decoder.path != first.decoder.path


def test_an_older_tensorrt_runs_the_portable_decoder_as_the_best_it_can(simulate: Simulate, fresh: ModelPackage) -> None:
    made, _ = build(simulate(OLDEST).libraries, fresh)
    assert (made.decoder.role, made.notice) == (Role.PORTABLE, "")


@takes_fused
def test_a_fused_decoder_that_cannot_be_built_gives_way_to_the_portable_one_and_is_not_tried_again(
    simulate: Simulate, fresh: ModelPackage
) -> None:
    newest, oldest = simulate(NEWEST).libraries, simulate(OLDEST).libraries
    mixed = replace(newest, build_command=oldest.build_command)  # what builds does not take the fused decoder
    made, said = build(mixed, fresh)
    assert made.decoder.role is Role.PORTABLE
    assert "TensorRT 10.3.0 does not take decoder.trt.onnx: no importer for the operator TensorScatter" in made.notice
    assert made.notice in said
    again, said = build(mixed, fresh)
    assert (again.notice, said) == (made.notice, [made.notice])
    EngineBuilder(mixed, fresh, NEEDS, print).forget()
    assert build(newest, fresh)[0].decoder.role is Role.FUSED


def test_a_package_without_graphs_for_tensorrt_is_told_how_to_get_them(simulate: Simulate, fresh: ModelPackage) -> None:
    files = {name: entry for name, entry in fresh.manifest.files.items() if "trt" not in name}
    package = replace(fresh, manifest=replace(fresh.manifest, files=files))
    with pytest.raises(PackageError, match=r"no decoder.trt-portable.onnx in this package; convert with --backend trt-portable"):
        build(simulate(OLDEST).libraries, package)


def test_a_folder_that_is_named_is_the_only_one(simulate: Simulate, fresh: ModelPackage, tmp_path: Path) -> None:
    made, _ = build(simulate().libraries, fresh, replace(NEEDS, cache=tmp_path / "mine"))
    assert {one.path.parent for one in made.files} == {tmp_path / "mine"}
    with pytest.raises(BackendError, match=r"/sys/mine is read-only"):
        build(simulate().libraries, fresh, replace(NEEDS, cache=Path("/sys/mine")))


def test_a_build_that_is_killed_is_told_as_a_lack_of_memory_and_leaves_nothing(simulate: Simulate, fresh: ModelPackage) -> None:
    code = "import os, sys; open(sys.argv[2], 'w').write('half'); os.kill(os.getpid(), 9)"
    with pytest.raises(BackendError, match="ended by signal 9") as caught:
        build(other_builder(simulate().libraries, "-c", code), fresh)
    assert caught.value.code is ErrorCode.OUT_OF_MEMORY
    assert [path.name for path in (fresh.path / "engines").iterdir()] == [".lock"]


def test_whoever_is_told_of_the_progress_can_end_the_build(simulate: Simulate, fresh: ModelPackage, tmp_path: Path) -> None:
    code = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    def report(line: str) -> None:
        if line.startswith("building vision.trt.onnx: "):
            raise BackendError("enough")

    with pytest.raises(BackendError, match="enough"):
        EngineBuilder(other_builder(simulate().libraries, "-c", code), fresh, NEEDS, report).engines()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert [path.name for path in (fresh.path / "engines").iterdir()] == [".lock"]


def test_a_build_that_crashes_gives_its_last_words(simulate: Simulate, fresh: ModelPackage) -> None:
    with pytest.raises(BackendError, match="status 1: ValueError: what a pity"):
        build(other_builder(simulate().libraries, "-c", "raise ValueError('what a pity')"), fresh)


def test_a_disk_that_fills_while_an_engine_is_written_is_told_so(simulate: Simulate, fresh: ModelPackage) -> None:
    order = make_order(fresh, Role.VISION, 4, 512, 1 << 30)
    command = [*simulate().libraries.build_command, order.to_json(), "/dev/full", str(fresh.path / "timing")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        *_, last = process.stdout  # while its standard input is open
    assert process.returncode == 1
    assert "No space left on device" in json.loads(last)["error"]


def test_weights_that_the_device_cannot_hold_are_refused_before_anything_is_built(
    simulate: Simulate, fresh: ModelPackage
) -> None:
    with pytest.raises(
        BackendError, match=r"vision.trt.onnx does not fit: the weights take 6 MiB, the device has 4 MiB"
    ) as caught:
        build(simulate(memory=4 << 20).libraries, fresh)
    assert caught.value.code is ErrorCode.OUT_OF_MEMORY


def test_too_little_free_memory_is_refused_with_what_helps(
    simulate: Simulate, fresh: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_available_memory", lambda: 300 << 20)
    with pytest.raises(BackendError, match=r"523 MiB at least, 300 MiB are available: end other programs, add swap") as caught:
        build(simulate().libraries, fresh)
    assert caught.value.code is ErrorCode.OUT_OF_MEMORY


INTERRUPTED = """
import sys
from pathlib import Path
from mobilevlm_ros.doctor.simulated.libraries import simulated_libraries
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.tensorrt.builder import EngineBuilder, EngineNeeds
from dataclasses import replace
code = "import os, sys, time; open(sys.argv[2], 'w').write('half'); print(os.getpid(), flush=True); time.sleep(60)"
libraries = replace(simulated_libraries()[0], build_command=(sys.executable, "-c", code))
EngineBuilder(libraries, ModelPackage.open_unverified(sys.argv[1]), EngineNeeds(4, 512), print).engines()
"""


def test_ctrl_c_ends_the_build_and_leaves_nothing(fresh: ModelPackage) -> None:
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, str(fresh.path)], stderr=subprocess.PIPE)
    folder = fresh.path / "engines"
    wait_until(lambda: any(path.stat().st_size for path in folder.glob("*.part")))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert b"KeyboardInterrupt" in said
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_a_build_ends_with_the_process_that_wanted_it(simulate: Simulate, fresh: ModelPackage, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never.onnx")  # reading it waits for good
    order = replace(make_order(fresh, Role.VISION, 4, 512, 1 << 30), graph=tmp_path / "never.onnx")
    command = [*simulate().libraries.build_command, order.to_json(), str(tmp_path / "out"), str(tmp_path / "timing")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    time.sleep(0.2)
    assert process.poll() is None
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(20) == 1


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: ...\nmore", "36.4.3"),
        ("# R35 (release), REVISION: 6.0\n", "35.6.0"),
        ("nothing of the kind", ""),
    ],
)
def test_the_release_of_l4t_is_read(text: str, release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "release").write_text(text)
    monkeypatch.setattr(module, "_L4T_RELEASE", tmp_path / "release")
    assert l4t_release() == release


def test_a_machine_that_is_no_jetson_has_no_release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_L4T_RELEASE", tmp_path / "missing")
    assert l4t_release() == ""


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)

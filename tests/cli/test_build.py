"""`mobilevlm build`, and `--backend`: engines ahead of the first start, over pretended libraries."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobilevlm_ros.cli import main
from mobilevlm_ros.doctor.simulated.libraries import simulated_libraries
from mobilevlm_ros.models import shipped_package
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.tensorrt.library import use_instead
from tests.tensorrt_package import nano_for_tensorrt, takes_fused

TABLETOP = Path(__file__).resolve().parents[2] / "mobilevlm_ros" / "doctor" / "tabletop.jpg"
QUESTION = "What color is the ball?"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    pytest.importorskip("torch", reason="converting needs torch")
    return nano_for_tensorrt(tmp_path_factory.mktemp("build") / "nano")


@pytest.fixture
def device() -> Iterator[None]:
    libraries, cuda = simulated_libraries()
    use_instead(libraries)
    yield
    use_instead(None)
    assert cuda.problems == []
    assert cuda.live == 0


def build(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["build", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


@takes_fused
@pytest.mark.usefixtures("device")
def test_engines_are_built_with_progress_then_found_and_then_built_again_on_demand(
    package: ModelPackage, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = (package.path, "--context-length", 512, "--engine-cache", tmp_path)
    code, out, err = build(capsys, *given)
    assert code == 0
    assert [line.endswith("s") and "built in" in line for line in out.splitlines()] == [True, True]
    assert "mobilevlm: building decoder.trt.onnx with TensorRT 10.16.0 for Simulated Orin" in err
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.suffix) == [".cache", ".engine", ".engine"]
    code, out, err = build(capsys, *given)
    assert (code, err) == (0, "")
    assert [line.split("  ")[1] for line in out.splitlines()] == ["was there", "was there"]
    assert "built in" in build(capsys, *given, "--again", "--build-only")[1]


@takes_fused
@pytest.mark.usefixtures("device")
def test_json_tells_the_engines_and_the_memory_that_running_takes(
    package: ModelPackage, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = (package.path, "--engine-cache", tmp_path, "--json")
    told = json.loads(build(capsys, *given)[1])
    assert [engine["role"] for engine in told["engines"]] == ["vision", "trt"]
    assert all(Path(engine["path"]).is_file() for engine in told["engines"])
    keys_and_values = 4 * 1024 * 2 * 5 * 3 * 64 * 2  # rows, positions, layers, heads, width, bytes
    assert keys_and_values < told["device_bytes"] < keys_and_values + (8 << 20)
    assert json.loads(build(capsys, *given, "--build-only")[1])["device_bytes"] == 0


@takes_fused
@pytest.mark.usefixtures("device")
def test_what_was_built_ahead_is_what_a_question_runs_on(
    package: ModelPackage, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    build(capsys, package.path, "--engine-cache", tmp_path)
    asked = ["ask", str(TABLETOP), QUESTION, "--model", str(package.path), "--temperature", "0"]
    assert main([*asked, "--engine-cache", str(tmp_path), "--backend", "tensorrt"]) == 0
    answered, built = capsys.readouterr()
    assert built == "", "nothing had to be built"
    assert main([*asked, "--backend", "cpu"]) == 0
    assert capsys.readouterr().out == answered


def test_a_machine_without_tensorrt_is_told_where_it_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = build(capsys, shipped_package())
    assert (code, out) == (1, "")
    assert err.startswith("mobilevlm: tensorrt is not installed")
    assert "on a Jetson it comes with JetPack" in err
    assert err.count("\n") == 1


@pytest.mark.usefixtures("device")
def test_a_package_for_the_processor_alone_is_told_how_to_get_another(
    capsys: pytest.CaptureFixture[str], package: ModelPackage, tmp_path: Path
) -> None:
    from mobilevlm_ros.export.convert import ConvertOptions, convert
    from tests.conftest import PARITY

    plain = convert(PARITY / "ldpnetv2", tmp_path / "plain", ConvertOptions(verify=False)).package
    code, _, err = build(capsys, plain)
    assert code == 1
    assert "convert with --backend" in err


def test_ctrl_c_ends_with_130_and_leaves_nothing(package: ModelPackage, tmp_path: Path) -> None:
    program = f"""
import os, signal, sys, threading
from dataclasses import replace
from mobilevlm_ros.cli import main
from mobilevlm_ros.doctor.simulated.libraries import simulated_libraries
from mobilevlm_ros.runtime.tensorrt.library import use_instead
slow = (sys.executable, "-c", "import sys, time; open(sys.argv[2], 'w').write('half'); time.sleep(60)")
use_instead(replace(simulated_libraries()[0], build_command=slow))
threading.Timer(2.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
sys.exit(main(["build", {str(package.path)!r}, "--engine-cache", {str(tmp_path)!r}]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (130, "mobilevlm: interrupted")
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]

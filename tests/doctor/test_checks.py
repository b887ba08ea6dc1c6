"""The doctor's checks of libraries, ROS and models; and the command as a whole."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib import metadata, util
from pathlib import Path

import pytest

from mobilevlm_ros.cli import main
from mobilevlm_ros.doctor.check import Check, Group, Status, Surroundings
from mobilevlm_ros.doctor.examine import healthy, runtime_libraries
from mobilevlm_ros.doctor.imports import imported, installed, probe
from mobilevlm_ros.doctor.models import bytes_needed, catalogue_checks, fits, proof_of_life
from mobilevlm_ros.doctor.ros import domain, ros_checks
from mobilevlm_ros.hub.catalogue import catalogue
from mobilevlm_ros.machine import Machine
from mobilevlm_ros.models import shipped_package
from tests.environments import run_without

GIB = 2**30


class TestLibraries:
    def test_one_that_is_there_tells_its_version(self) -> None:
        check = installed("numpy", ["numpy"], Status.FAIL, "install it")
        assert check == Check("numpy", Status.PASS, metadata.version("numpy"))
        assert imported("numpy", "numpy", Status.FAIL, "install it") == check

    def test_one_that_is_not_there_tells_what_to_do(self) -> None:
        check = installed("no_such_library", ["no-such-library"], Status.MISSING, "install it")
        assert check == Check("no-such-library", Status.MISSING, "not installed", "install it")
        check = imported("no_such_library", "it", Status.FAIL, "install it")
        assert check == Check("it", Status.FAIL, "No module named 'no_such_library'", "install it")

    def test_one_that_breaks_the_process_breaks_the_check_only(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "library_that_crashes.py").write_text("import os\nos.kill(os.getpid(), 11)\n")
        (tmp_path / "library_that_raises.py").write_text("raise ImportError('libfast.so: cannot open')\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        assert "ends with code -11" in probe("library_that_crashes").error
        assert probe("library_that_raises").error == "ImportError: libfast.so: cannot open"

    def test_everything_that_answering_needs_is_here(self) -> None:
        checks = runtime_libraries()
        assert [check.name for check in checks] == ["onnxruntime", "llguidance", "numpy", "pillow", "sentencepiece"]
        assert {check.status for check in checks} == {Status.PASS}
        assert "CPU" in checks[0].detail
        assert checks[1].detail == metadata.version("llguidance")


class TestRos:
    def test_where_ros_is_set_up_the_node_s_needs_are_met(self) -> None:
        if probe("rclpy").error:
            pytest.skip("ROS 2 is not set up: . .venv/ros_env.sh")
        checks = {check.name: check for check in ros_checks(Surroundings({"ROS_DISTRO": "jazzy"}))}
        assert checks["rclpy"].status is Status.PASS
        assert checks["rclpy"].detail.startswith("ROS 2 jazzy, rmw_")
        assert set(checks) == {"rclpy", "ROS domain", "mobilevlm_msgs", "cv_bridge"}

    @pytest.mark.parametrize(
        ("value", "status"),
        [
            ("", Status.PASS),
            ("42", Status.PASS),
            ("101", Status.PASS),
            ("150", Status.WARN),
            ("lab", Status.WARN),
            ("-1", Status.WARN),
        ],
    )
    def test_a_domain_that_nodes_cannot_meet_in_is_a_warning(self, value: str, status: Status) -> None:
        check = domain(Surroundings({"ROS_DOMAIN_ID": value}))
        assert check.status is status
        assert check.detail == (value or "0")

    def test_a_graph_that_ends_at_this_machine_is_told(self) -> None:
        surroundings = Surroundings({"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"})
        assert domain(surroundings).detail == "0, discovery range LOCALHOST"


class TestModels:
    def test_the_model_that_ships_answers_right(self) -> None:
        check = proof_of_life()
        assert check.status is Status.PASS
        assert "'Orange', which is right, in " in check.detail

    def test_a_damaged_package_fails_with_what_is_damaged(self, tmp_path: Path) -> None:
        package = Path(shutil.copytree(shipped_package(), tmp_path / "package"))
        with (package / "vision.onnx.data").open("r+b") as stream:
            stream.seek(1000)
            stream.write(b"damage")
        check = proof_of_life(package)
        assert check.status is Status.FAIL
        assert "vision.onnx.data: SHA-256" in check.detail
        assert check.remedy

    def test_every_released_model_is_told_of(self) -> None:
        machine = Machine("CPU", 4, 64 * GIB, 60 * GIB, (), "")
        checks = catalogue_checks(machine)
        assert [check.name for check in checks] == [entry.title for entry in catalogue() if entry.hub_id]
        assert {check.status for check in checks} == {Status.PASS}

    def test_the_more_memory_the_more_precisions_fit(self) -> None:
        entry = next(entry for entry in catalogue() if entry.name == "v2-1.7b")
        told = [fits(entry, gibibytes * GIB) for gibibytes in (1, 4, 16)]
        assert [check.status for check in told] == [Status.MISSING, Status.PASS, Status.PASS]
        assert "or a smaller model" in told[0].remedy
        assert "int4" in told[1].detail
        assert "fp32" not in told[1].detail
        assert "fp32" in told[2].detail

    def test_memory_is_that_of_weights_and_of_keys_and_values(self) -> None:
        entry = next(entry for entry in catalogue() if entry.name == "v2-1.7b")
        longer = replace(entry, config=replace(entry.config, num_hidden_layers=2 * entry.config.num_hidden_layers))
        keys_and_values = 2 * 2048 * 24 * 2048 * 4  # both, positions, layers, hidden size, bytes
        assert bytes_needed(longer, "int4") - bytes_needed(entry, "int4") == keys_and_values
        assert bytes_needed(entry, "fp32") > keys_and_values + entry.package_bytes["fp32"]


class TestCommand:
    def test_only_a_failure_makes_a_machine_unhealthy(self) -> None:
        fine = Group("a", (Check("x", Status.MISSING, "", "get it"), Check("y", Status.WARN, "", "mend it")))
        assert healthy([fine])
        assert not healthy([fine, Group("b", (Check("z", Status.FAIL, "", "mend it"),))])

    def test_here_it_is_a_screenful_and_everything_that_answering_needs_passes(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert 25 <= len(lines) <= 45
        assert not any(" FAIL " in line for line in lines)
        assert sum("which is right" in line for line in lines) == 1

    def test_json_has_every_check_and_a_remedy_for_each_that_did_not_pass(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["healthy"] is True
        assert {"group", "name", "status", "detail", "remedy"} == set(found["checks"][0])
        assert all(bool(check["remedy"]) == (check["status"] != "PASS") for check in found["checks"])
        torch = next(check for check in found["checks"] if check["name"] == "torch")
        assert (torch["status"] == "PASS") == (util.find_spec("torch") is not None)

    def test_without_onnx_runtime_it_fails_and_says_so(self, tmp_path: Path) -> None:
        done = run_without(tmp_path, ["onnxruntime"], ["doctor", "--json"])
        assert done.returncode == 1
        checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
        assert checks["onnxruntime"]["status"] == checks["nano model"]["status"] == "FAIL"
        assert "mobilevlm_ros[cpu]" in checks["onnxruntime"]["remedy"]
        assert checks["numpy"]["status"] == "PASS"

    def test_a_graph_cannot_be_looked_at_without_ros_and_one_line_says_so(self, tmp_path: Path) -> None:
        done = run_without(tmp_path, ["rclpy"], ["doctor", "--graph"])
        assert (done.returncode, done.stderr) == (1, "")
        (line,) = done.stdout.splitlines()
        assert "FAIL" in line
        assert "No module named 'rclpy'" in line
        assert "setup.bash" in line

    @pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
    def test_a_graph_is_not_looked_at_for_no_time_or_for_ever(self, seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", "--graph", f"--seconds={seconds}"]) != 0
        assert "--seconds is" in capsys.readouterr().err

    def test_with_nothing_but_python_it_still_examines_everything(self, tmp_path: Path) -> None:
        done = run_without(tmp_path, ["*"], ["doctor", "--json"])
        assert (done.returncode, done.stderr) == (1, "")
        checks = json.loads(done.stdout)["checks"]
        assert {check["group"] for check in checks} >= {"machine", "answering", "ROS 2", "models"}
        assert {check["status"] for check in checks if check["group"] == "fetch, convert"} == {"MISSING"}

"""The commands that a user types: ./demo, ./test and mobilevlm; and how ./test goes through the layers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import run_tests
from run_tests import Outcome

import mobilevlm_ros

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["demo", "test", "tools/setup", ".ci/run"])
def test_entry_points_are_executable_and_sound_shell(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)
    assert subprocess.run(["bash", "-n", ROOT / name], capture_output=True, text=True).stderr == ""


def test_the_command_works_in_a_shell_that_knows_nothing_of_ros(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("mobilevlm")
    if not command.is_file():
        pytest.skip("the command is not installed beside this Python: tools/setup demo")
    done = subprocess.run([command, "--version"], env={"PATH": "/usr/bin:/bin"}, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"mobilevlm {mobilevlm_ros.__version__}\n", "")


def test_asking_for_an_unknown_part_of_set_up_fails_with_its_usage() -> None:
    done = subprocess.run([ROOT / "tools" / "setup", "nothing"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: tools/setup PART...")


class TestLayers:
    @pytest.fixture(autouse=True)
    def reports(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(run_tests, "_RESULTS", tmp_path / "reports")

    def test_a_layer_comes_after_what_it_stands_on_and_system_tests_come_last(self) -> None:
        names = [path.name for path in run_tests.layers()]
        present = [name for name in ("packaging", "runtime", "tasks", "ros", "system") if name in names]
        assert [name for name in names if name in present] == present
        assert names[-1] == "system"

    def test_every_folder_with_tests_is_run(self) -> None:
        assert {path.parent for path in (ROOT / "tests").glob("*/test_*.py")} == set(run_tests.layers())

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["-k", "letterbox"], False),
            (["-k", "test"], False),
            (["tests/packaging"], True),
            (["-x", "tests/packaging/test_entry_points.py::TestLayers"], True),
            (["tests/no/such/file.py"], False),
        ],
    )
    def test_a_path_below_tests_replaces_the_layers(self, arguments: list[str], named: bool) -> None:
        assert run_tests.names_tests(arguments) is named

    def test_a_process_that_dies_counts_as_a_failure(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        dying = tmp_path / "test_dying.py"
        dying.write_text("import os\n\ndef test_it():\n    os.kill(os.getpid(), 9)\n", encoding="utf-8")
        outcome = run_tests.run_pytest("dying", [str(dying)])
        assert (outcome.passed, outcome.failed) == (0, 1)
        assert "ended by SIGKILL" in capfd.readouterr().out

    def test_outcomes_are_counted(self, tmp_path: Path) -> None:
        mixed = tmp_path / "test_mixed.py"
        text = "import pytest\n\ndef test_a(): pass\n\ndef test_b(): assert 0\n\ndef test_c(): pytest.skip('why')\n"
        mixed.write_text(text, encoding="utf-8")
        outcome = run_tests.run_pytest("mixed", [str(mixed)])
        assert (outcome.passed, outcome.failed, outcome.skipped) == (1, 1, 1)

    def test_layers_beside_the_system_tests_have_a_lower_priority(self, tmp_path: Path) -> None:
        telling = tmp_path / "test_telling.py"
        lower = os.getpriority(os.PRIO_PROCESS, 0) + 3
        telling.write_text(f"import os\n\ndef test_it():\n    assert os.getpriority(os.PRIO_PROCESS, 0) == {min(lower, 19)}\n")
        assert run_tests.run_pytest("telling", [str(telling)], niceness=3).passed == 1

    def test_the_summary_ends_with_the_totals(self) -> None:
        text = run_tests.summary([Outcome("runtime", 1.5, passed=3, skipped=1), Outcome("ros", 2.0, passed=2, failed=1)])
        assert text.splitlines()[-1] == "5 passed, 1 failed, 1 skipped"


class TestRosDomain:
    def test_two_runs_at_once_have_different_domains(self, monkeypatch: pytest.MonkeyPatch) -> None:
        taken = set()
        holders = []
        for _ in range(3):
            monkeypatch.setenv("ROS_DOMAIN_ID", "")
            holders.append(run_tests.reserve_domain())
            taken.add(os.environ["ROS_DOMAIN_ID"])
        for holder in holders:
            assert holder is not None
            holder.close()
        assert len(taken) == 3

    def test_a_domain_that_the_user_has_set_is_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ROS_DOMAIN_ID", "42")
        assert run_tests.reserve_domain() is None
        assert os.environ["ROS_DOMAIN_ID"] == "42"

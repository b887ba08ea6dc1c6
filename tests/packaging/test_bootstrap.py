"""Set-up: which Python it takes, what it does again and what not, and what it says when it cannot go on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import bootstrap
import pytest
import ros_env
from bootstrap import Layout, RosSource, Runner, Step
from hypothesis import given
from hypothesis import strategies as st
from progress import Progress, SetupError

ROOT = Path(__file__).resolve().parents[2]
GOOD = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'
SHIM = "#!/bin/sh\necho 'shim: no such version' >&2\nexit 127\n"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A repository with what set-up reads, and nothing of what it makes."""
    root = tmp_path / "a repository"
    for name in ("requirements", "msg", "tools", "launch", "config", "resource"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "setup.cfg", "package.xml"):
        shutil.copy(ROOT / name, root / name)
    return Layout(root)


@pytest.fixture
def runner(layout: Layout) -> Runner:
    return Runner(layout, RosSource.WHEELS, Progress(), lock=os.open(os.devnull, os.O_RDONLY))


VARIABLES = [
    ros_env.Variable("LIST", "/a b/lib", ros_env.Rule.PREPEND),
    ros_env.Variable("LIST", "/it's", ros_env.Rule.PREPEND),
    ros_env.Variable("MINE", "ours", ros_env.Rule.DEFAULT),
    ros_env.Variable("FIXED", "ours", ros_env.Rule.SET),
]


class TestChoiceOfPython:
    @pytest.fixture
    def choose(self, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
        """Runs find_python with programs of the test's own on PATH; the real /usr/bin/python3 is not to be had."""
        script = (ROOT / "tools" / "find_python.sh").read_text(encoding="utf-8").replace("/usr/bin/python3", str(tmp_path / "no"))
        (tmp_path / "find_python.sh").write_text(script, encoding="utf-8")
        programs = tmp_path / "bin"
        programs.mkdir()
        (programs / "id").write_text("#!/bin/sh\necho 1000\n", encoding="utf-8")
        (programs / "id").chmod(0o755)

        def run(python: str = "", **files: str) -> subprocess.CompletedProcess[str]:
            for name, text in files.items():
                program = programs / name.replace("_", ".")
                program.write_text(text, encoding="utf-8")
                program.chmod(0o755)
            env = {"PATH": str(programs), "PYTHON": python, "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1"}
            command = ["/bin/bash", "-c", f'. "{tmp_path}/find_python.sh"; find_python "{tmp_path}"']
            return subprocess.run(command, env=env, capture_output=True, text=True)

        return run

    @staticmethod
    def version(text: str) -> str:
        """A program like this Python, that takes itself for another version."""
        code = f"import sys; sys.version_info = ({text}, 0); exec(sys.stdin.read())"
        return f'#!/bin/sh\nshift\nexec "{sys.executable}" -c "{code}" "$@"\n'

    def test_the_first_that_works_is_taken(self, choose: Callable[..., subprocess.CompletedProcess[str]]) -> None:
        assert choose(python3=GOOD, python3_11=GOOD).stdout == "python3\n"

    def test_a_shim_that_starts_nothing_is_passed_over(self, choose: Callable[..., subprocess.CompletedProcess[str]]) -> None:
        assert choose(python3=SHIM, python3_12=SHIM, python3_11=GOOD).stdout == "python3.11\n"

    def test_a_version_that_is_too_new_is_passed_over(self, choose: Callable[..., subprocess.CompletedProcess[str]]) -> None:
        assert choose(python3=self.version("3, 13"), python3_10=GOOD).stdout == "python3.10\n"

    def test_a_version_that_is_too_old_is_passed_over(self, choose: Callable[..., subprocess.CompletedProcess[str]]) -> None:
        assert choose(python3=self.version("3, 9"), python3_12=GOOD).stdout == "python3.12\n"

    def test_the_user_s_choice_comes_first(self, choose: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
        mine = tmp_path / "mine"
        mine.write_text(GOOD, encoding="utf-8")
        mine.chmod(0o755)
        assert choose(python=str(mine), python3=GOOD).stdout == f"{mine}\n"

    def test_a_choice_that_does_not_work_is_named(self, choose: Callable[..., subprocess.CompletedProcess[str]]) -> None:
        done = choose(python="/no/such/python", python3=GOOD)
        assert done.returncode == 1
        assert done.stderr == "error: PYTHON=/no/such/python does not start a Python 3.10, 3.11 or 3.12\n"

    def test_without_any_there_is_one_line_that_says_what_to_install(
        self, choose: Callable[..., subprocess.CompletedProcess[str]]
    ) -> None:
        done = choose(python3=SHIM)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert "python3-venv" in done.stderr


class TestStamps:
    def test_a_finished_step_is_fresh(self, runner: Runner) -> None:
        step = Step("one", "step one", "key", lambda _: None)
        assert not bootstrap.is_fresh(runner.layout, step)
        bootstrap.perform(runner, step)
        assert bootstrap.is_fresh(runner.layout, step)

    def test_other_inputs_make_it_stale(self, runner: Runner) -> None:
        bootstrap.perform(runner, Step("one", "step one", "key", lambda _: None))
        assert not bootstrap.is_fresh(runner.layout, Step("one", "step one", "another key", lambda _: None))

    def test_a_step_that_is_interrupted_is_done_again(self, runner: Runner) -> None:
        def interrupted(_: Runner) -> None:
            raise KeyboardInterrupt

        bootstrap.perform(runner, Step("one", "step one", "key", lambda _: None))
        with pytest.raises(KeyboardInterrupt):
            bootstrap.perform(runner, Step("one", "step one", "key", interrupted))
        assert not bootstrap.is_fresh(runner.layout, Step("one", "step one", "key", lambda _: None))

    def keys(self, layout: Layout) -> dict[str, str]:
        return {step.name: step.key for step in bootstrap.plan(layout, RosSource.WHEELS, ("demo", "convert", "test"))}

    @pytest.mark.parametrize(
        ("file", "redone"),
        [
            ("msg/srv/Ask.srv", {"interfaces"}),
            ("requirements/test.txt", {"test"}),
            ("requirements/convert.txt", {"convert"}),
            ("requirements/run.txt", {"packages", "environment", "convert", "test"}),
            ("requirements/build.txt", {"packages", "environment", "convert", "test"}),
            ("requirements/constraints.txt", {"packages", "environment", "convert", "test"}),
            ("setup.py", {"self"}),
            ("tools/ros_env.py", {"environment"}),
            ("config/another.yaml", {"self"}),
            ("README.md", set()),
        ],
    )
    def test_a_changed_file_redoes_what_was_made_from_it(self, layout: Layout, file: str, redone: set[str]) -> None:
        before = self.keys(layout)
        with (layout.root / file).open("a", encoding="utf-8") as sink:
            sink.write("# changed\n")
        after = self.keys(layout)
        assert {name for name in before if before[name] != after[name]} == redone

    def test_another_version_of_a_ros_wheel_builds_the_interfaces_again(self, layout: Layout) -> None:
        before = self.keys(layout)
        wheels = layout.requirements("ros")
        wheels.write_text(wheels.read_text(encoding="utf-8").replace("rclpy==7.1.6", "rclpy==7.1.7"), encoding="utf-8")
        assert self.keys(layout)["interfaces"] != before["interfaces"]

    def test_the_demo_installs_neither_torch_nor_test_tools(self, layout: Layout) -> None:
        names = {step.name for step in bootstrap.plan(layout, RosSource.WHEELS, ("demo",))}
        assert names == {"venv", "packages", "environment", "interfaces", "self"}
        wanted = "".join(layout.requirements(name).read_text() for name in bootstrap.base_requirements(RosSource.WHEELS))
        asked = set(re.findall(r"^[A-Za-z0-9._-]+", wanted, flags=re.MULTILINE))
        assert "onnxruntime" in asked
        assert asked & {"torch", "transformers", "onnx", "pytest", "ruff"} == set()

    def test_a_moved_repository_is_set_up_anew(self, layout: Layout, tmp_path: Path) -> None:
        before = self.keys(layout)
        after = self.keys(Layout(layout.root.rename(tmp_path / "moved")))
        assert before["venv"] != after["venv"]

    @given(one=st.lists(st.text("ab", max_size=3), max_size=3), other=st.lists(st.text("ab", max_size=3), max_size=3))
    def test_digests_are_equal_exactly_where_all_parts_are(self, one: list[str], other: list[str]) -> None:
        assert (bootstrap.digest(*one) == bootstrap.digest(*other)) == (one == other)


class TestTheWheelsCMakeFiles:
    SAMPLE = (
        'set_target_properties(x PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${_IMPORT_PREFIX}/include/x;'
        "/opt/python/cp311-cp311/include/python3.11;"
        '/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include")\n'
    )

    def test_headers_are_looked_for_on_this_machine(self) -> None:
        text = bootstrap.patched_cmake(self.SAMPLE, include="/usr/include/python3.10", numpy_include=r"/a b\1/numpy/include")
        assert "/opt/python" not in text
        assert r';/usr/include/python3.10;/a b\1/numpy/include")' in text
        assert "${_IMPORT_PREFIX}/include/x;" in text

    def test_correcting_twice_changes_nothing_more(self) -> None:
        once = bootstrap.patched_cmake(self.SAMPLE, "/i", "/n")
        assert bootstrap.patched_cmake(once, "/i", "/n") == once


class TestRefusals:
    def test_a_path_that_the_build_tools_cannot_take_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SetupError, match=r"a path with \( \) in it"):
            bootstrap.check_machine(Layout(tmp_path / "copy (1)"), RosSource.WHEELS, Progress())

    def test_another_architecture_is_sent_to_an_installed_ros(self, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bootstrap.platform, "machine", lambda: "aarch64")
        with pytest.raises(SetupError, match=r"x86_64.*aarch64.*install ROS 2") as caught:
            bootstrap.check_machine(layout, RosSource.WHEELS, Progress())
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(("lacking", "package"), [("cc", r"g\+\+"), ("venv", r"python3\.\d+-venv")])
    def test_a_missing_system_package_is_named(
        self, layout: Layout, monkeypatch: pytest.MonkeyPatch, lacking: str, package: str
    ) -> None:
        which, find = shutil.which, bootstrap.importlib.util.find_spec
        monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 1000)
        monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None if name == lacking else which(name))
        monkeypatch.setattr(bootstrap.importlib.util, "find_spec", lambda name: None if name == lacking else find(name))
        with pytest.raises(SetupError, match=f"sudo apt-get install {package}") as caught:
            bootstrap.check_machine(layout, RosSource.WHEELS, Progress())
        assert "\n" not in str(caught.value)

    def test_an_environment_that_it_did_not_make_is_left_alone(self, runner: Runner) -> None:
        theirs = runner.layout.venv / "precious.txt"
        theirs.parent.mkdir()
        theirs.write_text("mine", encoding="utf-8")
        with pytest.raises(SetupError, match="was not made by this set-up"):
            bootstrap.make_venv(runner)
        assert theirs.read_text(encoding="utf-8") == "mine"

    def test_a_failed_program_is_shown_with_the_end_of_its_output(self, tmp_path: Path) -> None:
        command = ["/bin/sh", "-c", "seq 100; echo no such package >&2; exit 3"]
        with pytest.raises(SetupError, match=r"(?s)sh failed with status 3.*\n    100\n    no such package$"):
            Progress().run(command, tmp_path / "log" / "sh.log", os.environ)
        assert (tmp_path / "log" / "sh.log").read_text(encoding="utf-8").startswith("1\n2\n")

    def test_an_unknown_part_is_answered_with_the_usage(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert bootstrap.main(["everything"]) == 2
        assert "demo, convert, test" in capsys.readouterr().err


class TestLock:
    def test_a_second_set_up_waits_for_the_first(self, layout: Layout) -> None:
        code = "import bootstrap, sys, pathlib; from progress import Progress; " + (
            "bootstrap.acquire_lock(bootstrap.Layout(pathlib.Path(sys.argv[1])), Progress()); print('in', flush=True)"
        )
        first = bootstrap.acquire_lock(layout, Progress())
        command = [sys.executable, "-c", code, str(layout.root)]
        with subprocess.Popen(command, cwd=ROOT / "tools", stdout=subprocess.PIPE, text=True) as second:
            assert second.stdout is not None
            assert "waiting" in second.stdout.readline()
            time.sleep(0.2)
            assert second.poll() is None
            os.close(first)
            assert "waiting for another set-up of this folder: done" in second.stdout.readline()
            assert second.stdout.readline() == "in\n"

    def test_what_a_killed_set_up_has_started_still_holds_it(self, layout: Layout, tmp_path: Path) -> None:
        """The program inherits the lock, so pip cannot run on beside a second set-up's pip."""
        started = tmp_path / "started"
        code = (
            "import sys, pathlib; from bootstrap import *; layout = Layout(pathlib.Path(sys.argv[1])); progress = Progress(); "
            "runner = Runner(layout, RosSource.WHEELS, progress, acquire_lock(layout, progress)); "
            f"runner.run('sleep', ['/bin/sh', '-c', 'echo $$ > \"{started}\"; exec sleep 60'])"
        )
        first = subprocess.Popen([sys.executable, "-c", code, str(layout.root)], cwd=ROOT / "tools")
        limit = time.monotonic() + 20
        while not (started.exists() and started.read_text().strip()) and time.monotonic() < limit:
            time.sleep(0.05)
        child = int(started.read_text())
        first.kill()
        first.wait()
        try:
            assert subprocess.run(["flock", "-n", layout.root / ".venv.lock", "true"]).returncode == 1
        finally:
            os.kill(child, 9)
        assert subprocess.run(["flock", "-w", "10", layout.root / ".venv.lock", "true"]).returncode == 0


class TestSourceOfRos:
    def test_wheels_where_nothing_is_sourced(self, layout: Layout) -> None:
        assert bootstrap.ros_source(layout, {}) is RosSource.WHEELS

    def test_an_installed_ros_that_is_sourced(self, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        module = tmp_path / "opt" / "rclpy"
        module.mkdir(parents=True)
        (module / "__init__.py").touch()
        monkeypatch.setattr(sys, "path", [str(module.parent)])
        monkeypatch.delitem(sys.modules, "rclpy", raising=False)
        assert bootstrap.ros_source(layout, {"ROS_DISTRO": "humble"}) is RosSource.INSTALLED
        assert bootstrap.ros_source(layout, {}) is RosSource.WHEELS

    def test_our_own_environment_when_it_is_sourced(self, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
        module = layout.venv / "lib" / "rclpy"
        module.mkdir(parents=True)
        (module / "__init__.py").touch()
        monkeypatch.setattr(sys, "path", [str(module.parent)])
        monkeypatch.delitem(sys.modules, "rclpy", raising=False)
        assert bootstrap.ros_source(layout, {"ROS_DISTRO": "jazzy"}) is RosSource.WHEELS


class TestEnvironmentFile:
    @pytest.mark.parametrize("shell", [name for name in ("sh", "bash", "zsh") if shutil.which(name)])
    @pytest.mark.parametrize(
        "before", [{}, {"LIST": "/old", "MINE": "user's", "FIXED": "user's"}, {"LIST": "/it's"}, {"MINE": ""}]
    )
    @pytest.mark.parametrize("times", [1, 2])
    def test_a_shell_gets_what_apply_says(self, tmp_path: Path, shell: str, before: dict[str, str], times: int) -> None:
        (tmp_path / "env.sh").write_text(ros_env.shell_text(VARIABLES), encoding="utf-8")
        script = "set -eu; " + ". ./env.sh; " * times + 'printf "%s\\n" "$LIST" "$MINE" "$FIXED"'
        done = subprocess.run(
            [shell, "-c", script], env={**before, "PATH": "/usr/bin:/bin"}, cwd=tmp_path, capture_output=True, text=True
        )
        expected = ros_env.apply(VARIABLES, before)
        assert done.stderr == ""
        assert done.stdout.splitlines() == [expected["LIST"], expected["MINE"], expected["FIXED"]]

    def test_the_user_s_discovery_range_is_kept(self, layout: Layout) -> None:
        variables = ros_env.wheel_variables(layout.venv, layout.root)
        assert ros_env.apply(variables, {})["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
        assert ros_env.apply(variables, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"})["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "SUBNET"

    def test_humble_is_kept_on_this_machine_by_its_own_variable(self, layout: Layout) -> None:
        assert ros_env.apply(ros_env.installed_variables(layout.venv, layout.root, "humble"), {})["ROS_LOCALHOST_ONLY"] == "1"

    def test_the_fast_dds_profile_is_named_for_every_version(self, layout: Layout) -> None:
        done = ros_env.apply(ros_env.wheel_variables(layout.venv, layout.root), {})
        assert done["FASTRTPS_DEFAULT_PROFILES_FILE"] == done["FASTDDS_DEFAULT_PROFILES_FILE"]
        assert Path(done["FASTDDS_DEFAULT_PROFILES_FILE"]).is_file()

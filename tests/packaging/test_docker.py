"""The Dockerfiles for Jetsons, as far as they can be checked without building: what they copy, install and start."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
ENTRYPOINT = ROOT / "docker" / "entrypoint.sh"
REQUIREMENTS = ROOT / "requirements"

pytestmark = pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)


def instructions(file: Path) -> list[tuple[str, str]]:
    """Each instruction's name and what follows it, lines that go on put together."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in whole.splitlines() if line)]


def said(file: Path, wanted: str) -> list[str]:
    return [rest for name, rest in instructions(file) if name == wanted]


def copies(file: Path) -> Iterator[tuple[list[str], str]]:
    """Sources and target of each COPY."""
    for rest in said(file, "COPY"):
        *sources, target = [word for word in rest.split() if not word.startswith("--")]
        yield sources, target


def test_there_is_one_for_each_jetpack(file: Path) -> None:
    assert [path.name for path in FILES] == ["jetpack6.Dockerfile", "jetpack7.Dockerfile"]
    number = file.name[len("jetpack")]
    assert f"JetPack {number}" in file.read_text(encoding="utf-8")


def test_it_says_that_it_was_never_built(file: Path) -> None:
    assert "# Never built: no Jetson was at hand." in file.read_text(encoding="utf-8")


def test_a_linter_finds_nothing(file: Path) -> None:
    linter = shutil.which("hadolint", path=Path(sys.executable).parent)
    if linter is None:
        pytest.skip("hadolint is not installed: tools/setup test")
    done = subprocess.run([linter, "--no-color", file], capture_output=True, text=True)
    assert done.stdout + done.stderr == ""


def test_its_base_has_a_version(file: Path) -> None:
    assert said(file, "FROM") == ["${BASE}"]
    (base,) = [rest for rest in said(file, "ARG") if rest.startswith("BASE=")]
    name, _, tag = base.removeprefix("BASE=").rpartition(":")
    assert name.startswith("nvcr.io/nvidia/")
    assert re.search(r"\d", tag)
    assert "latest" not in tag


def test_what_it_copies_is_there(file: Path) -> None:
    sources = [source for found, _ in copies(file) for source in found]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_what_it_copies_is_not_left_out_of_the_build(file: Path) -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")}
    sources = {source for found, _ in copies(file) for source in found}
    assert {source for source in sources if not any(source == name or source.startswith(f"{name}/") for name in kept)} == set()


def test_what_it_copies_is_all_that_both_packages_are_built_from(file: Path, tmp_path: Path) -> None:
    for sources, target in copies(file):
        for source in sources:
            place = tmp_path / target.rstrip("/")
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                place = place / Path(source).name if target.endswith("/") else place
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, place)
    assert (tmp_path / "src" / "mobilevlm_msgs" / "package.xml").is_file()
    code = (
        "from setuptools.dist import Distribution; from distutils.core import run_setup; "
        "d = run_setup('setup.py', stop_after='init'); print(*d.packages); print(*(f for _, fs in d.data_files for f in fs))"
    )
    sources_ = tmp_path / "src" / "mobilevlm_ros"
    done = subprocess.run([sys.executable, "-c", code], cwd=sources_, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    packages, files = (line.split() for line in done.stdout.splitlines()[-2:])
    assert {"mobilevlm_ros.runtime.tensorrt", "mobilevlm_ros.doctor", "mobilevlm_ros.ros"} <= set(packages)
    assert [name for name in files if not (sources_ / name).is_file()] == []
    assert "models/nano/package/manifest.json" in files
    assert "launch/mobilevlm.launch.py" in files


def test_pip_installs_only_what_is_pinned(file: Path) -> None:
    commands = [command.strip() for run in said(file, "RUN") for command in run.split("&&")]
    (asked,) = [command for command in commands if "pip install" in command]
    assert asked.endswith("venv/bin/python -m pip install --no-cache-dir -r requirements/jetson.txt")
    assert "/usr/bin/python3 -m venv --system-site-packages venv" in commands


def test_it_starts_without_a_shell_between(file: Path) -> None:
    (entrypoint,), (command,) = said(file, "ENTRYPOINT"), said(file, "CMD")
    assert json.loads(entrypoint) == ["/opt/mobilevlm/entrypoint.sh"]
    assert json.loads(command)[:4] == ["ros2", "launch", "mobilevlm_ros", "mobilevlm.launch.py"]
    assert ("--chmod=755 docker/entrypoint.sh /opt/mobilevlm/entrypoint.sh") in said(file, "COPY")
    assert subprocess.run(["bash", "-n", ENTRYPOINT], capture_output=True).returncode == 0
    assert ENTRYPOINT.read_text(encoding="utf-8").splitlines()[-1] == 'exec "$@"'


def test_ros_python_and_ubuntu_belong_together(file: Path) -> None:
    from mobilevlm_ros.doctor.jetson_machine import PYTHON_OF_ROS, ROS_OF_JETPACK

    ros = ROS_OF_JETPACK[file.name[len("jetpack")]]
    run, head = " ".join(said(file, "RUN")), file.read_text(encoding="utf-8").splitlines()[1]
    assert set(re.findall(r"ros-([a-z]+)-", run)) - {"archive"} == {ros}
    assert f"Python {PYTHON_OF_ROS[ros]}, ROS 2 {ros.capitalize()}" in head
    assert {"humble": "jammy main", "jazzy": "noble main"}[ros] in run


def test_a_jetson_gets_the_versions_that_other_robots_get(file: Path) -> None:
    jetson, robot = (set((REQUIREMENTS / name).read_text(encoding="utf-8").splitlines()) for name in ("jetson.txt", "robot.txt"))
    pins = {line for line in jetson if "==" in line}
    assert pins <= robot
    assert {line.split("==")[0] for line in robot - pins if "==" in line} == {"rosbags"}

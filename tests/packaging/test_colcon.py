"""That the colcon workspace builds both packages from the sources as they are, and installs what a ROS user expects."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ros, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
WORKSPACE = ROOT / "ros2_ws"
NAMES = ("mobilevlm_msgs", "mobilevlm_ros")


def colcon(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("colcon") is None or not os.environ.get("AMENT_PREFIX_PATH"):
        pytest.skip("colcon or ROS 2 is not set up here: ./test, or . .venv/ros_env.sh")
    command = ["colcon", "--log-base", ROOT / "test_results" / "colcon" / "log", *arguments]
    return subprocess.run(command, cwd=WORKSPACE, capture_output=True, text=True)


@pytest.fixture(scope="module")
def install() -> Path:
    """The install folder of a build apart from the user's own; the interfaces' objects are kept from run to run."""
    if " " in str(ROOT):
        pytest.skip("colcon's setup files do not work from a path with spaces")
    base = ROOT / "test_results" / "colcon"
    origin = base / "origin"
    made_from = f"{ROOT} {sys.version}"
    if not origin.is_file() or origin.read_text(encoding="utf-8") != made_from:
        shutil.rmtree(base, ignore_errors=True)
    for stale in (base / "install", base / "build" / "mobilevlm_ros"):
        shutil.rmtree(stale, ignore_errors=True)
    done = colcon("build", "--build-base", base / "build", "--install-base", base / "install")
    assert done.returncode == 0, done.stdout + done.stderr
    origin.write_text(made_from, encoding="utf-8")
    return base / "install"


def sourced(install: Path, script: str) -> list[str]:
    """Lines that a shell with the workspace's environment prints."""
    command = f'. "{install}/setup.bash" && cd / && {script}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_workspace_shows_each_package_once() -> None:
    done = colcon("list", "--names-only")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_links_lead_to_the_sources_wherever_the_repository_lies(name: str) -> None:
    link = WORKSPACE / "src" / name
    assert link.is_symlink()
    assert not Path(os.readlink(link)).is_absolute()
    assert f"<name>{name}</name>" in (link / "package.xml").read_text(encoding="utf-8")


def test_python_takes_both_packages_from_the_install(install: Path) -> None:
    code = "import mobilevlm_msgs.srv as s, mobilevlm_ros as r; print(s.__file__); print(r.__file__)"
    files = sourced(install, f"python3 -c '{code}'")
    assert [Path(file).is_relative_to(install) for file in files] == [True, True]


def test_the_message_types_load_with_their_type_support(install: Path) -> None:
    code = (
        "from rclpy.serialization import deserialize_message, serialize_message; from mobilevlm_msgs.srv import Ask; "
        'print(deserialize_message(serialize_message(Ask.Request(question="what?")), Ask.Request).question)'
    )
    assert sourced(install, f"python3 -c '{code}'") == ["what?"]


def test_the_node_is_where_ros2_run_looks(install: Path) -> None:
    node = install / "mobilevlm_ros" / "lib" / "mobilevlm_ros" / "mobilevlm_node"
    assert os.access(node, os.X_OK)


def test_the_index_leads_to_launch_and_config_files(install: Path) -> None:
    code = 'from ament_index_python import get_package_share_directory as share; print(share("mobilevlm_ros"))'
    (answer,) = sourced(install, f"python3 -c '{code}'")
    assert Path(answer) == install / "mobilevlm_ros" / "share" / "mobilevlm_ros"
    for folder in ("launch", "config"):
        ours = {
            path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts
        }
        assert ours, f"{folder}/ holds no files"
        assert [path for path in ours if not (Path(answer) / path).is_file()] == []


def test_the_shipped_model_is_installed(install: Path) -> None:
    if not (ROOT / "models" / "nano" / "package").is_dir():
        pytest.skip("models/nano/package is not there")
    share = install / "mobilevlm_ros" / "share" / "mobilevlm_ros" / "models" / "nano" / "package"
    assert (share / "manifest.json").is_file()


def test_colcon_test_finds_the_tests(install: Path) -> None:
    """A package that declares its test requirements wrongly runs no test there, and passes."""
    base = ROOT / "test_results" / "colcon"
    only = ["--packages-select", "mobilevlm_ros", "--pytest-args", "tests/packaging/test_layers.py"]
    done = colcon(
        "test", "--build-base", base / "build", "--install-base", base / "install", "--return-code-on-test-failure", *only
    )
    assert done.returncode == 0, done.stdout + done.stderr
    log = (base / "log" / "latest_test" / "mobilevlm_ros" / "stdout.log").read_text(encoding="utf-8")
    assert " passed" in log

"""That the files which describe the package agree with one another."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from importlib import metadata
from pathlib import Path

import pytest

import mobilevlm_ros

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = sorted((ROOT / "requirements").glob("*.txt"))
PIN = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!]+( ; (python_version [<>=]+ \"3\.\d+\"|platform_machine == \"x86_64\"))?"
)


def manifest(path: str) -> ElementTree.Element:
    return ElementTree.parse(ROOT / path / "package.xml").getroot()


def said(root: ElementTree.Element, tag: str) -> str:
    return (root.findtext(tag) or "").strip()


@pytest.fixture(scope="module")
def installed() -> metadata.PackageMetadata:
    try:
        return metadata.metadata("mobilevlm_ros")
    except metadata.PackageNotFoundError:
        pytest.skip("mobilevlm_ros is not installed here: tools/setup demo")


def test_what_is_installed_says_what_package_xml_says(installed: metadata.PackageMetadata) -> None:
    root = manifest(".")
    maintainer = root.findall("maintainer")[0]
    assert installed["Name"].replace("-", "_") == said(root, "name")
    assert installed["Version"] == said(root, "version")
    assert installed["Summary"] == said(root, "description")
    assert installed["License"] == said(root, "license")
    assert installed["Maintainer"] == maintainer.text
    assert installed["Maintainer-email"] == maintainer.attrib["email"]


def test_both_packages_and_the_module_have_one_version() -> None:
    assert said(manifest("."), "version") == said(manifest("msg"), "version") == mobilevlm_ros.__version__


def test_both_packages_have_one_licence_and_one_maintainer() -> None:
    ours, theirs = manifest("."), manifest("msg")
    assert said(ours, "license") == said(theirs, "license") == "Apache-2.0"
    assert ours.findall("maintainer")[0].attrib == theirs.findall("maintainer")[0].attrib
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize("folder", [".", "msg"])
def test_the_changelog_opens_with_the_version(folder: str) -> None:
    text = (ROOT / folder / "CHANGELOG.rst").read_text(encoding="utf-8")
    versions = re.findall(r"^(\d+\.\d+\.\d+) ", text, flags=re.MULTILINE)
    assert versions[0] == said(manifest(folder), "version")


def test_commands_are_installed(installed: metadata.PackageMetadata) -> None:
    entries = metadata.distribution("mobilevlm_ros").entry_points.select(group="console_scripts")
    scripts = {entry.name: entry.value for entry in entries}
    assert scripts == {"mobilevlm": "mobilevlm_ros.cli:main", "mobilevlm_node": "mobilevlm_ros.ros.node:main"}


def test_a_robot_needs_no_torch(installed: metadata.PackageMetadata) -> None:
    wanted = metadata.requires("mobilevlm_ros") or []
    always = {re.split(r"[^A-Za-z0-9._-]", line)[0] for line in wanted if "extra ==" not in line}
    assert always == {"setuptools", "llguidance", "numpy", "pillow", "sentencepiece"}
    assert {"torch", "transformers"} <= {re.split(r"[^A-Za-z0-9._-]", line)[0] for line in wanted if '"convert"' in line}
    assert {"cpu", "gpu", "tensorrt", "convert", "demo", "eval", "test", "dev"} <= set(installed.get_all("Provides-Extra") or [])


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_every_requirement_is_pinned_to_one_version(path: Path) -> None:
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    wanted = [line for line in lines if line and not line.startswith("#") and line != "-c constraints.txt"]
    assert wanted, "the file asks for nothing"
    assert [line for line in wanted if not PIN.fullmatch(line)] == []


def test_no_version_is_stated_twice() -> None:
    """Else the constraints of a package could contradict the file that asks for it."""

    def names(path: Path) -> set[str]:
        found = re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        return {re.sub(r"[-_.]+", "-", name).lower() for name in found}

    beneath = names(ROOT / "requirements" / "constraints.txt")
    asked = set().union(*(names(path) for path in REQUIREMENTS if path.name != "constraints.txt"))
    assert beneath & asked == set()


def test_a_ros_user_finds_the_node_and_its_files(installed: metadata.PackageMetadata) -> None:
    packages = pytest.importorskip("ament_index_python.packages", reason="ROS 2 is not set up: . .venv/ros_env.sh")
    prefix = Path(packages.get_package_prefix("mobilevlm_ros"))
    share = Path(packages.get_package_share_directory("mobilevlm_ros"))
    assert (prefix / "lib" / "mobilevlm_ros" / "mobilevlm_node").is_file()
    for folder in ("launch", "config"):
        ours = {path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"}
        assert ours, f"{folder}/ holds no files"
        assert [path for path in ours if not (share / path).is_file()] == []

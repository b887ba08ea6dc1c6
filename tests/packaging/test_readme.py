"""The README and ARCHITECTURE.md name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def test_every_parameter_stands_in_the_readme_with_its_default() -> None:
    parameters = pytest.importorskip("mobilevlm_ros.ros.parameters", reason="needs rclpy")
    for parameter in parameters.PARAMETERS:
        row = re.search(rf"^\| `{parameter.name}` \| (.*?) \| (.*) \|$", README, re.MULTILINE)
        assert row, f"{parameter.name} has no row"
        assert row.group(2) == parameter.description


def test_every_error_code_stands_in_the_readme() -> None:
    constants = re.findall(r"^uint16 (\w+)=", (ROOT / "msg" / "msg" / "ErrorCode.msg").read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name in constants if name != "NONE" and name not in README] == []


def test_every_launch_argument_stands_in_the_readme() -> None:
    text = (ROOT / "launch" / "mobilevlm.launch.py").read_text(encoding="utf-8")
    names = re.findall(r'^    \("(\w+)", "', text, re.MULTILINE)
    assert names
    assert [name for name in names if f"`{name}`" not in README] == []


def test_links_in_the_documents_lead_to_files() -> None:
    for text in (README, ARCHITECTURE):
        for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", text):
            assert (ROOT / target).exists(), target


def test_every_part_of_the_package_stands_in_the_architecture() -> None:
    parts = [path.name for path in (ROOT / "mobilevlm_ros").iterdir() if (path / "__init__.py").exists()]
    assert [name for name in parts if f"mobilevlm_ros/{name}/" not in ARCHITECTURE] == []

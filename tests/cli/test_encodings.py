"""Words that are no UTF-8, as a shell hands them over, are asked about like others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PARITY

CODE = "from mobilevlm_ros.cli.main import main; import sys; sys.exit(main(sys.argv[1:]))"
WORDS = b"ball\xe9?"


def run(package: Path, *words: str | bytes) -> str:
    """What the command prints in a terminal that takes UTF-8 only."""
    command = [sys.executable, "-c", CODE, *words, "--model", str(package)]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    result = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout.decode()


@pytest.fixture(scope="module")
def package() -> Path:
    from mobilevlm_ros.models import shipped_package

    return shipped_package()


def test_a_question_that_is_no_utf_8_is_answered_and_shown_as_an_escape(package: Path) -> None:
    picture = str(PARITY / "image.png")
    answer = json.loads(run(package, "ask", "--json", picture, WORDS))
    assert answer["question"] == "ball\udce9?"
    assert answer["error"] == "NONE"


def test_a_label_that_is_no_utf_8_is_listed(package: Path) -> None:
    assert "ball\\udce9" in run(package, "classify", str(PARITY / "image.png"), WORDS, "mug")

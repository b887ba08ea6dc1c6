"""docs/failures.md names a test for each failure; each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = sorted(set(re.findall(r"`([a-z]+/test_\w+\.py)::(test_\w+)`", (ROOT / "docs" / "failures.md").read_text())))


def test_there_are_many() -> None:
    assert len(TESTS) >= 25


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_each_test_that_is_named_is_there(file: str, name: str) -> None:
    assert f"def {name}(" in (ROOT / "tests" / file).read_text()


def test_every_row_of_the_table_has_one() -> None:
    table = (ROOT / "docs" / "failures.md").read_text().split("\n\n")[2]
    rows = table.splitlines()[2:]
    assert len(rows) > 15
    assert all("::test_" in row for row in rows)

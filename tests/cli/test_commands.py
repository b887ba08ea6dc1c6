"""The other commands about pictures, over a tiny model: what they print and how they end."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest

from mobilevlm_ros.cli import main
from tests.conftest import PARITY, PackageMaker

IMAGE = str(PARITY / "image.png")


@pytest.fixture(scope="module")
def model(parity_package: PackageMaker) -> list[str]:
    return ["--model", str(parity_package("ldpnetv2"))]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for name in ("b.png", "a.png"):
        shutil.copy(IMAGE, tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    return str(tmp_path)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_a_folder_is_asked_picture_by_picture_in_the_order_of_names(
    model: list[str], folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", folder, "What?", "--json", "--max-tokens", "4", *model]) == 0
    assert [Path(json.loads(line)["image"]).name for line in lines(capsys)] == ["a.png", "b.png"]


def test_a_folder_without_pictures_is_one_line(model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", str(tmp_path), "What?", *model]) == 1
    assert "no pictures in this folder" in capsys.readouterr().err


def test_ground_tells_boxes_or_that_nothing_was_found(model: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["ground", IMAGE, "the red mug", "--json", *model])
    found = json.loads(lines(capsys)[0])
    assert found["error"] in ("NONE", "NO_GROUNDING")
    assert status == (0 if found["regions"] else 1)


def test_classify_ranks_the_labels(model: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", IMAGE, "red", "blue", "green", "--question", "What color is it?", "--json", *model]) == 0
    result = json.loads(lines(capsys)[0])
    ranked = list(result["probabilities"].items())
    assert ranked == sorted(ranked, key=lambda pair: -pair[1])
    assert result["label"] == ranked[0][0]
    assert sum(result["probabilities"].values()) == pytest.approx(1)


def test_describe_wants_a_part_of_the_picture(model: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", IMAGE, "10", "10", "60", "60", "--max-tokens", "4", *model]) == 0
    assert main(["describe", IMAGE, "900", "900", "950", "950", *model]) == 1
    assert "covers nothing of the 320 x 240 picture" in capsys.readouterr().err


def test_chat_answers_each_line_until_an_empty_one(
    model: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("What?\nWhy?\n\nNever asked\n"))
    assert main(["chat", IMAGE, "--json", "--max-tokens", "4", *model]) == 0
    first, second = (json.loads(line) for line in lines(capsys))
    assert second["prompt_tokens"] > first["prompt_tokens"]


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(command in text for command in ("ask", "chat", "ground", "describe", "classify", "convert", "eval"))

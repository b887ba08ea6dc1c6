"""`mobilevlm ask`, as a shell sees it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilevlm_ros.cli import main
from mobilevlm_ros.pictures import read_picture
from tests.conftest import PARITY, PackageMaker

IMAGE = PARITY / "image.png"


@pytest.fixture(scope="module")
def package(parity_package: PackageMaker) -> str:
    return str(parity_package("ldpnetv2"))


def test_json_holds_the_official_tokens_and_the_time_of_each_stage(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = np.load(PARITY / "ldpnetv2" / "golden.npz")["tokens"].ravel().tolist()
    question = json.loads((PARITY / "ldpnetv2" / "golden.json").read_text())["question"]
    options = ["--model", package, "--json", "--temperature", "0", "--max-tokens", str(len(expected))]
    assert main(["ask", str(IMAGE), question, *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["token_ids"] == expected
    assert found["prompt_tokens"] == 184
    assert found["text"] == json.loads((PARITY / "ldpnetv2" / "golden.json").read_text())["text"]
    assert set(found["timing"]) == {"load_ms", "queue_ms", "encode_ms", "prefill_ms", "decode_ms"}
    assert found["timing"]["encode_ms"] > 0


def test_words_come_on_stdout_as_they_are_made(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", str(IMAGE), "What?", "--model", package, "--temperature", "0", "--max-tokens", "8"]) == 0
    assert capsys.readouterr().out.endswith("\n")


def test_a_seed_makes_sampling_repeatable(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for _ in range(2):
        main(["ask", str(IMAGE), "What?", "--model", package, "--temperature", "2", "--seed", "5", "--max-tokens", "8", "--json"])
        texts.append(json.loads(capsys.readouterr().out)["token_ids"])
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png", "What?"], "nowhere.png"),
        ([__file__, "What?"], "not a picture"),
        ([str(IMAGE), "What?", "--temperature", "-1"], "temperature is -1"),
        ([str(IMAGE), "What?", "--max-tokens", "0"], "max_tokens is 0"),
        ([str(IMAGE), "What?", "--model", "nowhere"], "nowhere: no such model package"),
        ([str(IMAGE), " "], "the question is empty"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_1(
    arguments: list[str], message: str, package: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments if "--model" in arguments else [*arguments, "--model", package]
    assert main(["ask", *given]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("mobilevlm: ")


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["ask", "--help"])
    assert done.value.code == 0
    assert "examples:" in capsys.readouterr().out


def test_a_picture_is_turned_as_its_exif_orientation_says(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    frame = read_picture(tmp_path / "turned.jpg")
    assert (frame.width, frame.height) == (2, 4)


def test_grey_and_transparent_pictures_become_rgb(tmp_path: Path) -> None:
    for mode in ("L", "LA", "RGBA", "P", "1", "I;16"):
        Image.new(mode, (3, 2)).save(tmp_path / "picture.png")
        assert read_picture(tmp_path / "picture.png").pixels.shape == (2, 3, 3)

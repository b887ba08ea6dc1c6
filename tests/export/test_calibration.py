"""What quantisers calibrate on: the shipped tabletops, a folder of pictures, or conversations in LLaVA's format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilevlm_ros.export.calibration import CONVERSATIONS, ExampleMaker, read_calibration, shipped_calibration
from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.models import shipped_package
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.prompt import PromptBuilder, Turn
from mobilevlm_ros.runtime.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def maker() -> ExampleMaker:
    package = ModelPackage.open(shipped_package())
    manifest, tokenizer = package.manifest, Tokenizer(package.tokenizer)
    prompts = PromptBuilder(manifest.prompt, manifest.tokens, tokenizer)
    size, color = manifest.vision.image_size, manifest.vision.pad_color
    return ExampleMaker(size, color, tokenizer, prompts, manifest.phrasings, manifest.tokens.eos)


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        Image.new("RGB", (40, 30), (number, 0, 0)).save(folder / f"{number}.png")
    return folder


def item(image: str, *values: object) -> dict[str, object]:
    return {"image": image, "conversations": [{"from": "human", "value": value} for value in values]}


def write(folder: Path, items: object) -> Path:
    (folder / CONVERSATIONS).write_text(items if isinstance(items, str) else json.dumps(items), encoding="utf-8")
    return folder


def text(maker: ExampleMaker, ids: Sequence[int]) -> str:
    return maker.tokenizer.decode([token for token in ids if token != maker.eos])


def test_the_shipped_tabletops_are_conversations_with_their_answers(maker: ExampleMaker) -> None:
    calibration = read_calibration(shipped_calibration(), maker, 64)
    assert (len(calibration.learn), len(calibration.measure)) == (48, 16)
    example = calibration.learn[0]
    assert example.pixels.shape == (168, 168, 3) and example.pixels.dtype == np.uint8
    assert example.tail.count(maker.eos) == 5
    assert "[0.40, 0.40, 0.47, 0.56]" in text(maker, example.tail)


def test_a_folder_of_pictures_is_asked_the_tasks_questions(maker: ExampleMaker, tmp_path: Path) -> None:
    calibration = read_calibration(pictures(tmp_path / "p", 8), maker, 100)
    assert (len(calibration.learn), len(calibration.measure)) == (6, 2)
    tails = [text(maker, example.tail) for example in calibration.learn]
    assert len(set(tails)) == 5 and all(tail.endswith("ASSISTANT:") for tail in tails)
    assert any("bounding box" in tail for tail in tails)


def test_no_more_than_asked_for_are_read(maker: ExampleMaker, tmp_path: Path) -> None:
    calibration = read_calibration(pictures(tmp_path / "p", 8), maker, 3)
    assert (len(calibration.learn), len(calibration.measure)) == (2, 1)


def test_a_conversation_gives_the_ids_that_inference_would_give(maker: ExampleMaker, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "p", 2)
    both = [item("0.png", "<image>\nWhat is it?", "a mug", "Which color?", "red"), item("1.png", "Is it a cube?\n<image>", "No")]
    calibration = read_calibration(write(folder, both), maker, 64)
    chat = maker.prompts.build("Which color?", [Turn("What is it?", "a mug")])
    assert calibration.learn[0].head == chat.head
    assert calibration.learn[0].tail == (*chat.tail, *maker.tokenizer.encode("red"), maker.eos)
    assert text(maker, calibration.measure[0].tail) == "\nIs it a cube? ASSISTANT: No"


@pytest.mark.parametrize(
    ("items", "complaint"),
    [
        ("{", "not readable as JSON"),
        ({}, "wanted a list"),
        ([item("0.png", "a")], "1 examples"),
        ([item("0.png", "a"), {"image": "1.png"}], "item 1 is no conversation"),
        ([item("0.png", "a"), item("1.png", 3)], "item 1 is no conversation"),
        ([item("0.png", "a"), item("1.png", "<image>")], "item 1 is no conversation"),
        ([item("0.png", "a"), item("none.png", "b")], "none.png"),
    ],
)
def test_what_is_wrong_with_conversations_is_one_line(maker: ExampleMaker, tmp_path: Path, items: object, complaint: str) -> None:
    with pytest.raises(ExportError, match=complaint) as caught:
        read_calibration(write(pictures(tmp_path / "p", 2), items), maker, 64)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_missing_or_holds_no_pictures_is_one_line(maker: ExampleMaker, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no such folder"):
        read_calibration(tmp_path / "none", maker, 64)
    with pytest.raises(ExportError, match="no pictures"):
        read_calibration(tmp_path, maker, 64)

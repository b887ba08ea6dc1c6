"""Pictures and conversations on which a quantiser sees what a model's layers are fed, and on which its loss is measured.

Reads a folder of pictures, or a JSON in LLaVA's format with its pictures beside it. Knows prompts and files; runs no model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobilevlm_ros.checkpoint.errors import first_line
from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.models import shipped_folder
from mobilevlm_ros.pictures import picture_files, read_picture
from mobilevlm_ros.runtime.errors import VlmError
from mobilevlm_ros.runtime.geometry import letterbox
from mobilevlm_ros.runtime.manifest import Phrasings
from mobilevlm_ros.runtime.prompt import PromptBuilder, Turn
from mobilevlm_ros.runtime.tokenizer import Tokenizer

CONVERSATIONS = "conversations.json"
"""The name under which a folder's conversations are found."""
HELD_BACK = 4
"""Every fourth example measures the loss and calibrates nothing."""
_PICTURE = "<image>"


@dataclass(frozen=True, eq=False)
class Example:
    """A picture, letterboxed uint8 [size, size, 3] RGB, with the token ids before it and behind it."""

    pixels: np.ndarray
    head: tuple[int, ...]
    tail: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a quantiser learns from, and what its loss is measured on; both hold at least one example."""

    source: str
    learn: tuple[Example, ...]
    measure: tuple[Example, ...]


@dataclass(frozen=True)
class ExampleMaker:
    """How this model wants pictures and conversations: its square's size and colour, its tokenizer, template and phrasings."""

    size: int
    pad_color: tuple[int, int, int]
    tokenizer: Tokenizer
    prompts: PromptBuilder
    phrasings: Phrasings
    eos: int

    def make(self, picture: Path, turns: Sequence[Turn]) -> Example:
        """An example of a conversation; a last turn with an empty answer stays a question.

        Raises ExportError naming a picture that cannot be read.
        """
        *history, last = turns
        prompt = self.prompts.build(last.question, history)
        answer = [*self.tokenizer.encode(last.answer), self.eos] if last.answer else []
        try:
            pixels = letterbox(read_picture(picture), self.size, self.pad_color)
        except VlmError as error:
            raise ExportError(error.message) from None
        return Example(pixels, prompt.head, (*prompt.tail, *answer))


def shipped_calibration() -> Path:
    """The rendered tabletops that ship with the package."""
    return shipped_folder("nano/calibration")


def read_calibration(path: Path, maker: ExampleMaker, limit: int) -> Calibration:
    """Reads up to `limit` examples from a folder of pictures, a folder with CONVERSATIONS in it, or such a JSON itself.

    Raises ExportError in one line where there are fewer than two, or one of them is not readable.
    """
    given = _conversations(path) if (path / CONVERSATIONS).is_file() or path.is_file() else _plain(path, maker.phrasings)
    examples = [maker.make(picture, turns) for _, (picture, turns) in zip(range(limit), given)]
    if len(examples) < 2:
        raise ExportError(f"{path}: {len(examples)} examples; quantising wants two at least, and some dozens to do well")
    period = min(HELD_BACK, len(examples))
    measure = tuple(examples[period - 1 :: period])
    learn = tuple(example for number, example in enumerate(examples) if number % period != period - 1)
    return Calibration(path.name, learn, measure)


def _plain(folder: Path, phrasings: Phrasings) -> Iterator[tuple[Path, list[Turn]]]:
    """Pictures alone are asked what robots ask: the tasks' questions in turn."""
    questions = (
        "Describe this image in detail.",
        phrasings.ground.format(expression="the largest object"),
        "What is in the foreground of this image?",
        phrasings.presence.format(expression="a person"),
        phrasings.describe_region.format(box="[0.25, 0.25, 0.75, 0.75]"),
        "What could a robot do here?",
    )
    if not folder.exists():
        raise ExportError(f"{folder}: no such folder")
    try:
        pictures = picture_files(folder)
    except VlmError as error:
        raise ExportError(error.message) from None
    for number, picture in enumerate(pictures):
        yield picture, [Turn(questions[number % len(questions)], "")]


def _conversations(path: Path) -> Iterator[tuple[Path, list[Turn]]]:
    file = path / CONVERSATIONS if path.is_dir() else path
    try:
        items = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"{file}: not readable as JSON ({first_line(error)})") from None
    if not isinstance(items, list):
        raise ExportError(f"{file}: wanted a list of conversations in LLaVA's format")
    for number, item in enumerate(items):
        turns = _turns(item)
        if turns is None:
            raise ExportError(f"{file}: item {number} is no conversation about an image in LLaVA's format")
        yield file.parent / item["image"], turns


def _turns(item: Any) -> list[Turn] | None:
    """The turns of an item of LLaVA's format; None where it is something else."""
    if not isinstance(item, dict) or not isinstance(item.get("image"), str) or not isinstance(item.get("conversations"), list):
        return None
    entries = item["conversations"]
    values = [entry["value"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("value"), str)]
    if not values or len(values) != len(entries):
        return None
    questions, answers = values[0::2], [*values[1::2], ""][: len(values[0::2])]
    turns = [Turn(question.replace(_PICTURE, "").strip(), answer.strip()) for question, answer in zip(questions, answers)]
    return turns if all(turn.question for turn in turns) else None

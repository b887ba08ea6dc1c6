"""Reads LLaVA-format training data: conversations, each about one picture or about none.

Checks everything before any training starts. Knows the JSON and the pictures' names; knows no tokens and no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from mobilevlm_ros.finetune.errors import FinetuneError
from mobilevlm_ros.runtime.prompt import Turn

IMAGE_MARK = "<image>"
_NAMED = 5  # how many bad pictures a line names


@dataclass(frozen=True)
class Sample:
    """One conversation: its picture's path below the picture folder (None for text alone), and at least one answered turn."""

    id: str
    image: str | None
    turns: tuple[Turn, ...]


def read_samples(path: Path) -> list[Sample]:
    """All conversations of a LLaVA-format JSON file, in its order.

    As in the official code, a first message that is not the user's is skipped, and wherever `<image>` stands in the first
    question, the picture goes before it. Blanks around an answer are left out.

    Raises:
        FinetuneError: names the file, and the item by number and id where one is at fault.
    """
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FinetuneError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise FinetuneError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(records, list) or not records:
        raise FinetuneError(f"{path}: wanted a list of conversations")
    return [_sample(record, number, path) for number, record in enumerate(records)]


def check_pictures(samples: Sequence[Sample], folder: Path, seen: Callable[[], None] = lambda: None) -> None:
    """Opens the header of every picture once, telling `seen` of each.

    Raises:
        FinetuneError: pictures are missing, or are none; some are named, all are counted.
    """
    missing, unreadable = [], []
    for name in picture_names(samples):
        try:
            with Image.open(folder / name):
                pass
        except FileNotFoundError:
            missing.append(name)
        except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError):
            unreadable.append(name)
        seen()
    for names, what in ((missing, "missing"), (unreadable, "not readable as a picture")):
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            raise FinetuneError(f"{folder}: {what}: {', '.join(names[:_NAMED])}{more}")


def picture_names(samples: Sequence[Sample]) -> list[str]:
    """Every picture once, in the order of its first sample."""
    return list(dict.fromkeys(sample.image for sample in samples if sample.image is not None))


def _sample(record: Any, number: int, path: Path) -> Sample:
    where = f"{path}: item {number}"
    if not isinstance(record, dict):
        raise FinetuneError(f"{where}: not a JSON object")
    name = str(record.get("id", number))
    where += f" (id {name})"
    image = record.get("image")
    if image is not None and (not isinstance(image, str) or not image):
        raise FinetuneError(f"{where}: 'image' is {image!r}, wanted a file's name")
    messages = _messages(record.get("conversations"), where)
    questions, answers = messages[::2], messages[1::2]
    if image is not None:
        if IMAGE_MARK not in questions[0]:
            raise FinetuneError(f"{where}: has a picture, but its first question lacks {IMAGE_MARK}")
        questions[0] = questions[0].replace(IMAGE_MARK, "").strip()
    if any(IMAGE_MARK in text for text in (*questions, *answers)):
        place = "has no picture" if image is None else "the picture belongs to the first question"
        raise FinetuneError(f"{where}: {IMAGE_MARK} where none can stand: {place}")
    turns = tuple(Turn(question, answer.strip()) for question, answer in zip(questions, answers))
    for turn in turns:
        if not turn.question.strip() or not turn.answer:
            raise FinetuneError(f"{where}: an empty {'answer' if turn.question.strip() else 'question'}")
    return Sample(name, image, turns)


def _messages(conversation: Any, where: str) -> list[str]:
    """The texts of a conversation, the user's and the model's in turn."""
    if not isinstance(conversation, list):
        raise FinetuneError(f"{where}: 'conversations' is no list")
    for message in conversation:
        if not isinstance(message, dict) or not isinstance(message.get("value"), str):
            raise FinetuneError(f"{where}: a message is not an object with 'from' and a text in 'value'")
    if conversation and conversation[0].get("from") != "human":
        conversation = conversation[1:]
    for place, message in enumerate(conversation):
        wanted = ("human", "gpt")[place % 2]
        if message.get("from") != wanted:
            raise FinetuneError(f"{where}: message {place} is from {message.get('from')!r}, wanted '{wanted}'")
    if not conversation or len(conversation) % 2:
        raise FinetuneError(f"{where}: {'no messages' if not conversation else 'the last question has no answer'}")
    return [message["value"] for message in conversation]

"""Reading datasets' files, with one clear line for whatever is wrong with them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilevlm_ros.evaluate.dataset import Item
from mobilevlm_ros.evaluate.errors import DatasetError

IMAGE_SUFFIXES = (".jpg", ".png", ".jpeg")


@dataclass(frozen=True)
class Source:
    """Where a dataset is and which part of it is wanted.

    Attributes:
        annotations: the file or folder that the format asks for.
        images: the folder that the pictures' names are relative to.
        split: which split, where a file holds several; None is the format's usual one.
        ocr: TextVQA's OCR tokens, a Rosetta JSON file.
    """

    annotations: Path
    images: Path
    split: str | None = None
    ocr: Path | None = None


class Record:
    """A JSON object of a dataset's file, whose fields are checked as they are read."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise DatasetError(f"{where}: expected an object, found {_kind(value)}")
        self.value: dict[str, Any] = value
        self.where = where

    def text(self, *keys: str, default: str | None = None) -> str:
        """The text under the first of `keys` that there is; a number is taken as its digits."""
        for key in keys:
            found = self.value.get(key)
            if isinstance(found, str):
                return _sound(found)
            if isinstance(found, int) and not isinstance(found, bool):
                return str(found)
        if default is not None:
            return default
        raise DatasetError(f"{self.where}: no text under {' or '.join(map(repr, keys))}")

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        found = self.value.get(key)
        if not isinstance(found, list) or not all(isinstance(part, str) for part in found):
            raise DatasetError(f"{self.where}: {key!r} is no list of texts")
        return tuple(map(_sound, found))

    def integer(self, key: str) -> int:
        """A whole number."""
        found = self.value.get(key)
        if not isinstance(found, int) or isinstance(found, bool):
            raise DatasetError(f"{self.where}: {key!r} is no whole number")
        return found

    def four(self, key: str) -> tuple[float, float, float, float]:
        """Four numbers, as of a box."""
        found = self.value.get(key)
        if not isinstance(found, list) or len(found) != 4 or not all(isinstance(part, (int, float)) for part in found):
            raise DatasetError(f"{self.where}: {key!r} is no list of four numbers")
        a, b, c, d = map(float, found)
        return a, b, c, d

    def fours(self, key: str) -> list[tuple[float, float, float, float]]:
        """A list of any number of boxes of four numbers each."""
        found = self.value.get(key)
        if not isinstance(found, list):
            raise DatasetError(f"{self.where}: {key!r} is no list of boxes")
        return [Record({"box": box}, f"{self.where}: {key}[{index}]").four("box") for index, box in enumerate(found)]

    def records(self, key: str) -> list[Record]:
        """A list of objects."""
        return records(self.value.get(key), f"{self.where}: {key}")


def records(value: Any, where: str) -> list[Record]:
    """A JSON list of objects."""
    if not isinstance(value, list):
        raise DatasetError(f"{where}: expected a list, found {_kind(value)}")
    return [Record(part, f"{where}[{index}]") for index, part in enumerate(value)]


def read_json(path: Path) -> Any:
    """A JSON file's content."""
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise DatasetError(f"{path}: not JSON: {error}") from error


def read_lines(path: Path) -> list[Record]:
    """A file with one JSON object a line; empty lines are passed over."""
    found = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            try:
                found.append(Record(json.loads(line), f"{path}, line {number}"))
            except ValueError as error:
                raise DatasetError(f"{path}, line {number}: not JSON: {error}") from error
    return found


def checked(items: list[Item], path: Path) -> tuple[Item, ...]:
    """The items of a dataset, which must have some and no id twice."""
    if not items:
        raise DatasetError(f"{path}: nothing to ask in this file")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise DatasetError(f"{path}: the id {item.id!r} stands there twice")
        seen.add(item.id)
    return tuple(items)


def image_below(folder: Path, name: str) -> Path:
    """A picture's path inside `folder`.

    Raises:
        DatasetError: the name leads out of the folder.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DatasetError(f"the picture name {name!r} leads out of {folder}")
    return folder / name


def read_text(path: Path) -> str:
    """A file's text, UTF-8 with or without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error


def _sound(text: str) -> str:
    """Text that can be encoded: JSON may hold halves of surrogate pairs, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a text", type(None): "nothing"}.get(type(value), type(value).__name__)

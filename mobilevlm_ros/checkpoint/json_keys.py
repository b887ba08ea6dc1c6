"""Typed reading of a checkpoint's JSON files, with errors that name file and key.

Knows JSON; knows nothing of what the keys mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobilevlm_ros.checkpoint.errors import CheckpointError, first_line

_MISSING = object()


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises CheckpointError naming the file if there is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({first_line(error)})") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return data


class JsonKeys:
    """Reads typed values from a JSON object and turns what is wrong with one into a line that names file and key."""

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        self._data = data
        self._where = where

    def get(self, key: str, default: Any = _MISSING) -> Any:
        """The value of `key`; absent or null means `default`, or CheckpointError if there is none. So do all below."""
        value = self._data.get(key)
        if value is None:
            if default is _MISSING:
                raise CheckpointError(f"{self._where}: key '{key}' is missing")
            return default
        return value

    def integer(self, key: str, default: Any = _MISSING, least: int = 1) -> int:
        """A whole number of at least `least`."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.wrong(key, value, f"a whole number of at least {least}")
        return value

    def number(self, key: str, default: Any = _MISSING) -> float:
        """A positive number."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise self.wrong(key, value, "a positive number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, value, "true or false")
        return value

    def text(self, key: str, default: Any = _MISSING) -> str:
        """A text."""
        value = self.get(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, value, "a text")
        return value

    def triple(self, key: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
        """Three numbers."""
        value = self.get(key, default)
        if (
            not isinstance(value, (list, tuple))
            or len(value) != 3
            or not all(isinstance(x, (int, float)) and math.isfinite(x) for x in value)
        ):
            raise self.wrong(key, value, "three numbers")
        return (float(value[0]), float(value[1]), float(value[2]))

    def must_be(self, key: str, default: Any, *allowed: Any) -> None:
        """Refuses every value but the `allowed`."""
        value = self.get(key, default)
        if value not in allowed:
            raise self.wrong(key, value, " or ".join(repr(x) for x in allowed))

    def wrong(self, key: str, value: Any, wanted: str) -> CheckpointError:
        """The error for a key whose value is not what was `wanted`."""
        return CheckpointError(f"{self._where}: key '{key}' is {value!r}, wanted {wanted}")

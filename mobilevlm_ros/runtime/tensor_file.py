"""Named float tensors in one file: the safetensors layout, in which adapters keep their weights.

Eight bytes with the header's length, a JSON header with each tensor's type, shape and place, then the values. What is read here
stays mapped from disk. Knows nothing of what the tensors mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobilevlm_ros.runtime.errors import PackageError

ALIGNMENT = 64
"""Bytes at which the values begin."""

_DTYPES: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
_LENGTH_BYTES = 8


@dataclass(frozen=True)
class TensorEntry:
    """A tensor's type (float16 or float32) and shape."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))


def tensor_header(entries: Mapping[str, TensorEntry]) -> bytes:
    """What stands before the values, which follow without gaps in the order of `entries`."""
    names = {dtype: name for name, dtype in _DTYPES.items()}
    table: dict[str, Any] = {}
    end = 0
    for name, entry in entries.items():
        start, end = end, end + entry.size
        table[name] = {"dtype": names[entry.dtype], "shape": list(entry.shape), "data_offsets": [start, end]}
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-(_LENGTH_BYTES + len(text)) % ALIGNMENT)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a file by name, read-only and mapped from disk.

    Raises:
        PackageError: one line with the path and what is wrong with the file.
    """
    try:
        content = np.memmap(path, np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise PackageError(f"{path}: {error}") from error
    try:
        return _parse(content)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise PackageError(f"{path}: not a file of float tensors in the safetensors layout ({error})") from error


def _parse(content: np.ndarray) -> dict[str, np.ndarray]:
    """Raises ValueError and its like for whatever does not fit."""
    length = int.from_bytes(content[:_LENGTH_BYTES].tobytes(), "little")
    begin = _LENGTH_BYTES + length
    if begin > len(content):
        raise ValueError("it is shorter than its header")
    table = json.loads(content[_LENGTH_BYTES:begin].tobytes())
    return {name: _tensor(content[begin:], entry) for name, entry in table.items() if name != "__metadata__"}


def _tensor(values: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    start, end = entry["data_offsets"]
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start <= end <= len(values)):
        raise ValueError("a tensor lies outside the file")
    flat = np.frombuffer(values[start:end], _DTYPES[entry["dtype"]])
    return flat.reshape([int(side) for side in entry["shape"]])

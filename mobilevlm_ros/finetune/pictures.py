"""The pictures of a training as the vision tower's features: read ahead in threads, encoded once as far as memory allows.

The tower is frozen, so what it says of a picture never changes. Knows files and arrays; what encodes is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobilevlm_ros.pictures import read_stored_picture
from mobilevlm_ros.runtime.geometry import letterbox

PAD_COLOR = (122, 116, 104)
"""CLIP's mean colour in the official code's rounding, with which the square is filled."""


class PictureReader:
    """Reads pictures as the model's square, ahead of their use."""

    def __init__(self, folder: Path, size: int, workers: int) -> None:
        self._folder = folder
        self._size = size
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="pictures")
        self._coming: dict[str, Future[np.ndarray]] = {}

    def expect(self, names: Iterable[str]) -> None:
        """Begins to read what will be asked for soon."""
        for name in names:
            if name not in self._coming:
                self._coming[name] = self._pool.submit(self._read, name)

    def take(self, name: str) -> np.ndarray:
        """The picture, uint8 [size, size, 3] RGB, padded and resized as the runtime does; orientation tags are not heeded.

        Raises:
            VlmError: BAD_IMAGE naming the file.
        """
        self.expect([name])
        return self._coming.pop(name).result()

    def close(self) -> None:
        """Ends the threads; what has not begun is left."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, name: str) -> np.ndarray:
        return letterbox(read_stored_picture(self._folder / name), self._size, PAD_COLOR)


class FeatureStore:
    """Features by picture name; those that fit in `room` bytes of the processor's memory are kept, the others made again."""

    def __init__(self, reader: PictureReader, encode: Callable[[Tensor], Tensor], room: int, at_once: int) -> None:
        """`encode` takes uint8 [N, S, S, 3] and returns [N, ...]; it gets at most `at_once` pictures."""
        self._reader = reader
        self._encode = encode
        self._room = room
        self._at_once = at_once
        self._kept: dict[str, Tensor] = {}

    def expect(self, names: Iterable[str]) -> None:
        """Begins to read those pictures that have to be encoded."""
        self._reader.expect(name for name in names if name not in self._kept)

    def features(self, names: Sequence[str], device: torch.device) -> Tensor:
        """The features of the pictures in the order asked, on `device`; at least one name."""
        fresh = list(dict.fromkeys(name for name in names if name not in self._kept))
        made: dict[str, Tensor] = {}
        for start in range(0, len(fresh), self._at_once):
            part = fresh[start : start + self._at_once]
            made.update(zip(part, self._encode(torch.from_numpy(np.stack([self._reader.take(name) for name in part])))))
        rows = torch.stack([(made[name] if name in made else self._kept[name]).to(device) for name in names])
        for name, features in made.items():
            size = features.numel() * features.element_size()
            if size <= self._room:
                self._room -= size
                self._kept[name] = features.cpu().clone()
        return rows

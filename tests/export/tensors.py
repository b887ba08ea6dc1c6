"""Checkpoints without files: one without tensors, for graphs whose weights come from elsewhere, given ones, and random ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.model import expected_shapes
from mobilevlm_ros.checkpoint.reader import Tensors
from tests.make_checkpoint import random_tensor


class NoTensors(Tensors):
    where = "nothing"
    files = ()

    def shape(self, name: str) -> tuple[int, ...]:
        raise KeyError(name)

    def __getitem__(self, name: str) -> Tensor:
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class Given(Tensors):
    """Tensors from a dictionary."""

    where = "test"
    files = ()

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


class RandomTensors(Tensors):
    """A random checkpoint of any size, of which no more than one tensor is in memory at a time."""

    where = "random"
    files = ()

    def __init__(self, config: MobileVlmConfig) -> None:
        self._shapes = expected_shapes(config)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def __getitem__(self, name: str) -> Tensor:
        generator = torch.Generator().manual_seed(sum(name.encode()))
        return random_tensor(name, self._shapes[name], generator, torch.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

"""A checkpoint without tensors, for graphs whose weights come from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from mobilevlm_ros.checkpoint.reader import Tensors


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

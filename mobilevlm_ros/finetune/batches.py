"""Which examples make a step, and how they lie in tensors.

The order follows from seed and step alone, so that a training that was interrupted needs no more than its step's number to go
on. Knows token ids; knows nothing of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from mobilevlm_ros.checkpoint.config import IMAGE_TOKEN
from mobilevlm_ros.finetune.examples import IGNORE_INDEX, Example

_HELD_OUT = 2**32 - 1  # seeds a drawing of its own, apart from those of the epochs


@dataclass(frozen=True)
class Order:
    """The order of `count` examples, `batch` a step, drawn anew for every epoch from `seed`."""

    count: int
    batch: int
    seed: int

    @cached_property
    def steps_per_epoch(self) -> int:
        """Steps until every example was seen once; the last of them may be smaller."""
        return -(-self.count // self.batch)

    def examples(self, step: int) -> list[int]:
        """The numbers of the examples of a step, counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(self.count)
        return [int(number) for number in order[place * self.batch : (place + 1) * self.batch]]


def held_out(images: Sequence[str | None], share: float, seed: int) -> list[int]:
    """The numbers of the examples to keep from training: about `share` of all, and all examples of a picture or none.

    Raises ValueError for a share outside 0 (included) to 1 (excluded).
    """
    if not 0 <= share < 1:
        raise ValueError(f"a share of {share} to hold out; wanted 0 to below 1")
    groups: dict[str, list[int]] = {}
    for number, image in enumerate(images):
        groups.setdefault(f"picture {image}" if image is not None else f"text {number}", []).append(number)
    kept: list[int] = []
    keys = list(groups)
    for place in np.random.default_rng((seed, _HELD_OUT)).permutation(len(keys)):
        if len(kept) >= share * len(images):
            break
        kept += groups[keys[int(place)]]
    return sorted(kept)


def micro_batches(examples: Sequence[Example], size: int) -> list[list[Example]]:
    """A step's examples in groups of `size` of similar length: little padding, and the one that needs most memory first."""
    ordered = sorted(examples, key=lambda example: -example.length)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples side by side, padded on the right.

    Attributes:
        ids: int64 [B, L]; 0 where visual tokens go and in the padding.
        labels: int64 [B, L]; IGNORE_INDEX but at the answers.
        pictured: int64 [P], the rows that have a picture.
        picture_at: where the visual tokens begin in those rows.
        images: the names of their pictures.
        tokens: how many of the B * L are no padding.
    """

    ids: Tensor
    labels: Tensor
    pictured: Tensor
    picture_at: int
    images: tuple[str, ...]
    tokens: int


def collate(examples: Sequence[Example], image_tokens: int) -> Batch:
    """Puts examples into one batch, `image_tokens` places for each picture."""
    length = max(example.length for example in examples)
    ids = np.zeros((len(examples), length), np.int64)
    labels = np.full((len(examples), length), IGNORE_INDEX, np.int64)
    pictured, images, picture_at = [], [], 0
    for row, example in enumerate(examples):
        given, learnt = example.ids, example.labels()
        if example.image is None:
            ids[row, : len(given)], labels[row, : len(given)] = given, learnt
            continue
        picture_at = int(np.flatnonzero(given == IMAGE_TOKEN)[0])
        after = picture_at + image_tokens
        ids[row, :picture_at] = given[:picture_at]
        ids[row, after : example.length] = given[picture_at + 1 :]
        labels[row, after : example.length] = learnt[picture_at + 1 :]
        pictured.append(row)
        images.append(example.image)
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(labels),
        torch.tensor(pictured, dtype=torch.int64),
        picture_at,
        tuple(images),
        sum(example.length for example in examples),
    )

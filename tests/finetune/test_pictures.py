"""Pictures reach the tower as at inference, and are encoded no oftener than memory demands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mobilevlm_ros.finetune.pictures import FeatureStore, PictureReader
from mobilevlm_ros.runtime.errors import VlmError
from tests.finetune.helpers import write_pictures
from tests.parity import PARITY, letterboxed

SIZE = 8
CPU = torch.device("cpu")


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[PictureReader]:
    write_pictures(tmp_path, 4)
    made = PictureReader(tmp_path, SIZE, workers=2)
    yield made
    made.close()


class Counting:
    """An encoder that gives a picture's mean, and counts what it was asked for."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, pixels: Tensor) -> Tensor:
        self.batches.append(len(pixels))
        return pixels.float().mean((1, 2))


def test_a_picture_is_padded_and_resized_as_the_official_code_does() -> None:
    reader = PictureReader(PARITY, 168, workers=1)
    assert np.array_equal(reader.take("image.png"), letterboxed(168)[0])
    reader.close()


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes((PARITY / "image.png").read_bytes()[:400])
    reader = PictureReader(tmp_path, SIZE, workers=1)
    with pytest.raises(VlmError, match=r"a\.png"):
        reader.take("a.png")
    reader.close()


def test_features_come_in_the_order_asked_and_are_made_once(reader: PictureReader) -> None:
    encode = Counting()
    store = FeatureStore(reader, encode, room=1 << 20, at_once=2)
    names = ["2.png", "0.png", "2.png", "1.png"]
    store.expect(names)
    first = store.features(names, CPU)
    again = store.features(names[::-1], CPU)
    assert encode.batches == [2, 1]
    assert torch.equal(again, first.flip(0))
    means = [reader.take(name).astype(np.float64).mean((0, 1)) for name in names]
    torch.testing.assert_close(first.double(), torch.from_numpy(np.stack(means)), rtol=1e-4, atol=1e-3)


def test_what_does_not_fit_is_made_again(reader: PictureReader) -> None:
    encode = Counting()
    store = FeatureStore(reader, encode, room=2 * 3 * 4, at_once=1)  # two pictures of three float32
    names = ["0.png", "1.png", "2.png"]
    first = store.features(names, CPU)
    second = store.features(names, CPU)
    assert len(encode.batches) == 3 + 1
    assert torch.equal(first, second)

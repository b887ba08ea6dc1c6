"""Depth messages as REP-118 has them, and as drivers send them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.space.depth_image import depth_image
from mobilevlm_ros.space.errors import NoPositionError, Reason
from tests.space.scenes import depth_message

ALL = slice(None)


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 7),
    st.booleans(),
    st.sampled_from([("16UC1", np.uint16), ("32FC1", np.float32)]),
    st.integers(0, 2**32 - 1),
)
def test_depths_are_read_whatever_the_padding_and_the_byte_order(
    width: int, height: int, padding: int, big_endian: bool, kind: tuple[str, Any], seed: int
) -> None:
    metres = np.random.default_rng(seed).integers(1, 60_000, (height, width)) / 1000.0
    samples = np.round(metres * 1000).astype(np.uint16) if kind[0] == "16UC1" else metres.astype(np.float32)
    image = depth_image(depth_message(samples, kind[0], padding, big_endian))
    assert (image.width, image.height) == (width, height)
    assert image.metres(ALL, ALL) == pytest.approx(metres, rel=1e-6)


def test_zero_millimetres_are_no_depth() -> None:
    image = depth_image(depth_message(np.array([[0, 1500]], np.uint16), "16UC1"))
    assert image.metres(ALL, ALL) == pytest.approx(np.array([[np.nan, 1.5]]), nan_ok=True)


@pytest.mark.parametrize("invalid", [np.nan, np.inf, -np.inf, 0.0, -1.0])
def test_what_is_no_distance_in_metres_is_no_depth(invalid: float) -> None:
    image = depth_image(depth_message(np.array([[invalid, 1.5]], np.float32), "32FC1"))
    assert image.metres(ALL, ALL) == pytest.approx(np.array([[np.nan, 1.5]]), nan_ok=True)


def test_only_the_part_that_is_asked_for_is_read() -> None:
    samples = np.arange(1, 21, dtype=np.uint16).reshape(4, 5) * 1000
    image = depth_image(depth_message(samples, "16UC1", padding=3))
    assert image.metres(slice(1, 4, 2), slice(2, 5)) == pytest.approx(np.array([[8, 9, 10], [18, 19, 20]]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoding": "rgb8"}, "'rgb8', it must be 16UC1 or 32FC1"),
        ({"step": 5}, "a step of 6 bytes or more, not 5"),
        ({"data": b"short"}, "it has 5"),
        ({"width": 0}, "empty"),
        ({"height": 1 << 20}, "too large"),
    ],
)
def test_a_message_that_contradicts_itself_is_refused_with_its_numbers(changes: dict[str, Any], words: str) -> None:
    message = depth_message(np.ones((2, 3), np.uint16), "16UC1")
    vars(message).update(changes)
    with pytest.raises(NoPositionError, match=words) as caught:
        depth_image(message)
    assert caught.value.reason is Reason.BAD_DEPTH

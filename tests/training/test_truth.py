"""The arithmetic of boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.truth import Box, Sight, Thing, box_of_mask, iou, mirrored, squared

sides = st.integers(16, 2000)


few = settings(max_examples=25, deadline=None)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Box, int, int]:
    width, height = draw(sides), draw(sides)
    x1, y1 = draw(st.integers(0, width - 2)), draw(st.integers(0, height - 2))
    x2, y2 = draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))
    return (float(x1), float(y1), float(x2), float(y2)), width, height


@few
@given(boxes())
def test_padded_square_keeps_order_and_bounds(case: tuple[Box, int, int]) -> None:
    x1, y1, x2, y2 = squared(*case)
    assert 0.0 <= x1 < x2 <= 1.0
    assert 0.0 <= y1 < y2 <= 1.0


def test_padding_is_above_and_below_a_wide_picture() -> None:
    assert squared((0.0, 0.0, 640.0, 480.0), 640, 480) == (0.0, 0.125, 1.0, 0.875)


def test_padding_is_beside_a_tall_picture() -> None:
    assert squared((0.0, 0.0, 480.0, 640.0), 480, 640) == (0.125, 0.0, 0.875, 1.0)


@few
@given(boxes())
def test_iou_of_a_box_with_itself_is_one(case: tuple[Box, int, int]) -> None:
    assert iou(case[0], case[0]) == pytest.approx(1.0)


@few
@given(boxes(), boxes())
def test_iou_is_symmetric_and_a_share(first: tuple[Box, int, int], second: tuple[Box, int, int]) -> None:
    value = iou(first[0], second[0])
    assert value == pytest.approx(iou(second[0], first[0]))
    assert 0.0 <= value <= 1.0 + 1e-9


@few
@given(boxes())
def test_mirroring_twice_changes_nothing(case: tuple[Box, int, int]) -> None:
    box, width, _ = case
    assert mirrored(mirrored(box, width), width) == box


def test_box_of_a_mask_has_exclusive_far_edges() -> None:
    mask = np.zeros((10, 12), bool)
    mask[2:5, 3:9] = True
    assert box_of_mask(mask) == (3.0, 2.0, 9.0, 5.0)
    assert box_of_mask(np.zeros((4, 4), bool)) is None


def test_sight_survives_json() -> None:
    sight = Sight(7, 256, 192, (Thing("mug", "red", (1.0, 2.0, 30.0, 40.0)),))
    assert Sight.from_json(sight.to_json()) == sight

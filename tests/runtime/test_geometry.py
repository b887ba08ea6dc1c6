"""Boxes and the letterbox: exact round trips for any size, and the official code's padding."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import Box, Letterbox, letterbox
from mobilevlm_ros.runtime.manifest import BoxFrame

PAD = (122, 116, 104)
sizes = st.integers(1, 5000)
units = st.floats(0, 1)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x1, x2 = sorted((draw(units), draw(units)))
    y1, y2 = sorted((draw(units), draw(units)))
    return Box(x1, y1, x2, y2)


@given(sizes, sizes, boxes(), st.sampled_from(BoxFrame))
def test_a_box_survives_the_way_to_the_model_and_back(width: int, height: int, box: Box, frame: BoxFrame) -> None:
    geometry = Letterbox(width, height)
    source = box.scaled(width, height)
    back = geometry.to_source(geometry.to_model(source, frame), frame)
    assert np.allclose(astuple(back), astuple(source), atol=1e-6 * max(width, height))


@given(sizes, sizes, boxes())
def test_a_box_inside_the_picture_stays_inside_the_padded_square(width: int, height: int, box: Box) -> None:
    model = Letterbox(width, height).to_model(box.scaled(width, height), BoxFrame.PADDED_SQUARE)
    assert -1e-9 <= model.x1 <= model.x2 <= 1 + 1e-9
    assert -1e-9 <= model.y1 <= model.y2 <= 1 + 1e-9


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (640, 480, Box(0.0, 0.125, 1.0, 0.875)),  # landscape: 80 rows above and below
        (480, 640, Box(0.125, 0.0, 0.875, 1.0)),  # portrait
        (500, 500, Box(0.0, 0.0, 1.0, 1.0)),  # square
        (5, 2, Box(0.0, 0.2, 1.0, 0.6)),  # odd remainder: the row that is over goes below
    ],
)
def test_the_whole_picture_in_the_padded_square(width: int, height: int, expected: Box) -> None:
    found = Letterbox(width, height).to_model(Box(0, 0, width, height), BoxFrame.PADDED_SQUARE)
    assert astuple(found) == pytest.approx(astuple(expected))


def test_boxes_relative_to_the_image_ignore_the_padding() -> None:
    assert Letterbox(640, 480).to_source(Box(0.0, 0.0, 0.5, 1.0), BoxFrame.IMAGE) == Box(0, 0, 320, 480)


def test_padding_is_centred_and_of_the_official_colour() -> None:
    frame = Frame(np.full((1, 4, 3), 255, np.uint8))
    square = letterbox(frame, 4, PAD)
    assert [tuple(row[0]) for row in square] == [PAD, (255, 255, 255), PAD, PAD]


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    size=st.sampled_from([7, 24, 84, 112]),
    color=st.tuples(*[st.integers(0, 255)] * 3),
    seed=st.integers(0, 99),
)
def test_every_pixel_is_that_of_the_padded_square_resized_as_a_whole(
    width: int, height: int, size: int, color: tuple[int, int, int], seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    side = max(width, height)
    square = np.full((side, side, 3), color, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    expected = np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BICUBIC))
    assert np.array_equal(letterbox(Frame(pixels), size, color), expected)


def test_resizing_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(letterbox(Frame(stripes), 8, PAD).astype(int) - 128).max() <= 16


@given(boxes(), boxes())
def test_iou_is_symmetric_and_between_0_and_1(a: Box, b: Box) -> None:
    assert a.iou(b) == pytest.approx(b.iou(a))
    assert 0.0 <= a.iou(b) <= 1.0 + 1e-9


def test_iou_by_hand() -> None:
    assert Box(0, 0, 2, 2).iou(Box(1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert Box(0, 0, 1, 1).iou(Box(2, 2, 3, 3)) == 0
    assert Box(0, 0, 0, 0).iou(Box(0, 0, 0, 0)) == 0


@given(boxes(), boxes())
def test_the_shared_area_is_that_of_the_smaller_box_at_most(a: Box, b: Box) -> None:
    assert a.shared_area(b) == b.shared_area(a) <= min(a.area, b.area)
    assert a.shared_area(a) == a.area


def test_clipping_cuts_at_the_edges_and_empties_what_lies_outside() -> None:
    assert Box(-5, 2, 5, 20).clipped(10, 10) == Box(0, 2, 5, 10)
    assert Box(20, 20, 30, 30).clipped(10, 10).area == 0


@pytest.mark.parametrize("shape", [(0, 10, 3), (10, 0, 3), (10, 10), (10, 10, 4), (20000, 1, 3)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(VlmError) as refused:
        Frame(np.zeros(shape, np.uint8))
    assert refused.value.code is ErrorCode.BAD_IMAGE


def test_a_picture_of_floats_is_refused() -> None:
    with pytest.raises(VlmError, match="float64"):
        Frame(np.zeros((10, 10, 3)))

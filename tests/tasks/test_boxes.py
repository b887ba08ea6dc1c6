"""Boxes in the model's words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import Box, Letterbox
from mobilevlm_ros.runtime.manifest import BoxFrame
from mobilevlm_ros.tasks.boxes import format_box, parse_boxes
from mobilevlm_ros.tasks.look import source_boxes

units = st.integers(0, 100).map(lambda n: n / 100)


@given(units, units, units, units)
def test_a_box_written_is_the_box_read(a: float, b: float, c: float, d: float) -> None:
    box = Box(min(a, c), min(b, d), max(a, c), max(b, d))
    assert parse_boxes(format_box(box)) == ([box] if box.area > 0 else [])


@given(st.text())
def test_any_text_is_parsed_without_harm(text: str) -> None:
    for box in parse_boxes(text):
        assert 0 <= box.x1 < box.x2 <= 1
        assert 0 <= box.y1 < box.y2 <= 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no box",
        "[0.1, 0.2, 0.3]",
        "[0.5, 0.2, 0.3, 0.9]",  # second corner left of the first
        "[0.1, 0.9, 0.3, 0.2]",
        "[0.1, 0.2, 0.1, 0.9]",  # no width
        "[0.1, 0.2, 1.3, 0.9]",  # outside
        "[-0.1, 0.2, 0.3, 0.9]",
        "[0.1, 0.2, 0.3, 0.9",
        "[0.1 0.2 0.3 0.9]",
        "[12, 20, 30, 90]",
    ],
)
def test_what_is_no_valid_box_is_none(text: str) -> None:
    assert parse_boxes(text) == []


def test_several_boxes_are_read_in_order_with_words_around_them() -> None:
    text = "one at [0.10, 0.20, 0.30, 0.40] and one at [0.5,0.5,1.0,1]"
    assert parse_boxes(text) == [Box(0.1, 0.2, 0.3, 0.4), Box(0.5, 0.5, 1.0, 1.0)]


def test_what_reaches_outside_is_cut_off_when_written() -> None:
    assert format_box(Box(-0.2, 0.1, 1.7, 0.333)) == "[0.00, 0.10, 1.00, 0.33]"


SIZES = [(640, 480), (480, 640), (500, 500), (641, 479), (333, 500), (5, 2), (1, 1)]


@pytest.mark.parametrize("frame", list(BoxFrame))
@pytest.mark.parametrize(("width", "height"), SIZES)
@given(a=units, b=units, c=units, d=units)
def test_a_box_that_the_model_wrote_is_written_the_same_after_a_visit_to_the_picture(
    width: int, height: int, frame: BoxFrame, a: float, b: float, c: float, d: float
) -> None:
    written = format_box(Box(min(a, c), min(b, d), max(a, c), max(b, d)))
    for box in parse_boxes(written):
        geometry = Letterbox(width, height)
        assert format_box(geometry.to_model(geometry.to_source(box, frame), frame)) == written


@pytest.mark.parametrize("frame", list(BoxFrame))
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_box_around_the_whole_picture_comes_back_as_the_whole_picture(width: int, height: int, frame: BoxFrame) -> None:
    picture = Frame(np.zeros((height, width, 3), np.uint8))
    (found,) = source_boxes("[0.00, 0.00, 1.00, 1.00]", picture, frame)
    assert found == Box(0, 0, width, height)


@pytest.mark.parametrize(
    ("width", "height", "frame", "expected"),
    [
        (640, 480, BoxFrame.PADDED_SQUARE, Box(160, 80, 320, 400)),  # 80 rows of padding above
        (480, 640, BoxFrame.PADDED_SQUARE, Box(80, 160, 240, 480)),  # 80 columns to the left
        (500, 500, BoxFrame.PADDED_SQUARE, Box(125, 125, 250, 375)),
        (641, 480, BoxFrame.PADDED_SQUARE, Box(160.25, 80.25, 320.5, 400.75)),  # 161 rows over: 80 above, 81 below
        (640, 480, BoxFrame.IMAGE, Box(160, 120, 320, 360)),
        (641, 480, BoxFrame.IMAGE, Box(160.25, 120, 320.5, 360)),
    ],
)
def test_where_a_written_box_is_in_the_picture(width: int, height: int, frame: BoxFrame, expected: Box) -> None:
    picture = Frame(np.zeros((height, width, 3), np.uint8))
    assert source_boxes("[0.25, 0.25, 0.50, 0.75]", picture, frame) == [expected]

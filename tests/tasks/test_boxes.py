"""Boxes in the model's words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.tasks.boxes import format_box, parse_boxes

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

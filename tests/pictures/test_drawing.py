"""Boxes and words drawn into pictures."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilevlm_ros.pictures.drawing import Mark, draw, words
from mobilevlm_ros.runtime.geometry import Box


def grey(height: int = 120, width: int = 160) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def test_the_picture_itself_is_left_as_it_was() -> None:
    pixels = grey()
    draw(pixels, [Mark(Box(10, 10, 50, 50), "mug")], "caption")
    assert (pixels == 128).all()


def test_a_box_is_drawn_along_its_sides_and_not_inside() -> None:
    drawn = draw(grey(), [Mark(Box(40, 50, 100, 90), "")])
    changed = (drawn != 128).any(axis=2)
    assert changed[50, 40:100].all() and changed[90, 40:100].all()
    assert changed[50:90, 40].all() and changed[50:90, 100].all()
    assert not changed[56:84, 46:94].any()
    assert not changed[:44].any()


def test_two_boxes_have_different_colours() -> None:
    drawn = draw(grey(), [Mark(Box(10, 40, 50, 80), ""), Mark(Box(70, 40, 110, 80), "")])
    assert drawn[40, 30].tolist() != drawn[40, 90].tolist()


def test_a_label_stands_above_its_box_and_inside_where_there_is_no_room() -> None:
    above = (draw(grey(), [Mark(Box(40, 50, 100, 90), "mug")]) != 128).any(axis=2)
    assert above[38:48, 41:60].any()
    inside = (draw(grey(), [Mark(Box(40, 0, 100, 90), "mug")]) != 128).any(axis=2)
    assert inside[4:12, 44:60].any()


def test_a_caption_darkens_the_lower_edge_alone() -> None:
    changed = (draw(grey(), [], "a red mug on a table") != 128).any(axis=2)
    assert changed[-1].all()
    assert not changed[:60].any()


def test_a_caption_of_any_length_covers_at_most_half() -> None:
    changed = (draw(grey(), [], "word " * 500) != 128).any(axis=2)
    assert not changed[:60].any()


def test_a_box_that_covers_nothing_of_the_picture_is_not_drawn() -> None:
    for box in (Box(50, 50, 10, 10), Box(500, 500, 900, 900), Box(float("nan"), 0, 1, 1)):
        assert (draw(grey(), [Mark(box, "mug")]) == 128).all()


def test_a_mark_may_bring_its_own_colour() -> None:
    assert draw(grey(), [Mark(Box(10, 40, 50, 80), "", (1, 2, 3))])[40, 30].tolist() == [1, 2, 3]


def test_lines_of_a_caption_stand_below_one_another() -> None:
    one, two = (draw(grey(), [], caption) for caption in ("question", "question\nanswer"))
    assert (two != 128).any(axis=(1, 2)).sum() > 1.5 * (one != 128).any(axis=(1, 2)).sum()


def test_words_below_a_picture_are_as_wide_as_it_and_as_high_as_they_need() -> None:
    short, long = words(["a mug"], 160), words(["a mug " * 40], 160)
    assert short.shape[1] == long.shape[1] == 160
    assert long.shape[0] > 3 * short.shape[0]
    assert (short < 100).any()


def test_accents_are_left_out_rather_than_replaced() -> None:
    assert np.array_equal(words(["é ü"], 80), words(["e u"], 80))


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    corners=st.tuples(*[st.floats(-1e4, 1e4) for _ in range(4)]),
    label=st.text(max_size=20),
    caption=st.text(max_size=60),
)
def test_anything_can_be_drawn(size: tuple[int, int], corners: tuple[float, ...], label: str, caption: str) -> None:
    drawn = draw(grey(*size), [Mark(Box(*corners), label)], caption)
    assert (drawn.shape, drawn.dtype) == ((*size, 3), np.uint8)

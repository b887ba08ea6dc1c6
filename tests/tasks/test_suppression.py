"""Keeping the best of regions that mean the same thing, and taking things out of pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.tasks.masking import without
from mobilevlm_ros.tasks.results import Region
from mobilevlm_ros.tasks.suppression import best_apart, same_thing


def region(score: float, x1: float, y1: float, x2: float, y2: float) -> Region:
    box = Box(x1, y1, x2, y2)
    return Region("mug", score, box, box)


@st.composite
def regions(draw: st.DrawFn) -> Region:
    x1, y1 = draw(st.integers(0, 80)), draw(st.integers(0, 80))
    return region(draw(st.floats(0, 1)), x1, y1, x1 + draw(st.integers(1, 20)), y1 + draw(st.integers(1, 20)))


def test_the_best_stays_and_what_overlaps_it_goes() -> None:
    best, double, other = region(0.9, 0, 0, 10, 10), region(0.8, 1, 0, 11, 10), region(0.3, 20, 0, 30, 10)
    assert best_apart([other, double, best]) == (best, other)


def test_a_part_of_a_thing_is_the_same_thing() -> None:
    assert same_thing(Box(0, 0, 100, 100), Box(10, 10, 20, 20))
    assert same_thing(Box(0, 0, 10, 10), Box(4, 0, 14, 10))  # 60 of 100 in common
    assert not same_thing(Box(0, 0, 10, 10), Box(5, 0, 15, 10))  # a half itself is not over a half


@given(st.lists(regions(), max_size=12))
def test_what_is_left_is_sorted_apart_and_covers_what_went(found: list[Region]) -> None:
    kept = best_apart(found)
    assert [one.score for one in kept] == sorted((one.score for one in kept), reverse=True)
    assert not any(same_thing(a.box, b.box) for i, a in enumerate(kept) for b in kept[:i])
    for one in found:
        assert one in kept or any(same_thing(one.box, better.box) and better.score >= one.score for better in kept)
    assert best_apart(kept) == kept


@given(st.integers(1, 40), st.integers(1, 40), st.tuples(*[st.floats(-10, 50)] * 4))
def test_only_the_box_is_painted_over(width: int, height: int, corners: tuple[float, float, float, float]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    frame, box = Frame(pixels.copy()), Box(*corners)
    left = without(frame, box)
    inside = box.clipped(width, height)
    changed = np.argwhere((left.pixels != pixels).any(axis=2))
    for y, x in changed:
        assert int(inside.x1) <= x < inside.x2
        assert int(inside.y1) <= y < inside.y2
    assert (frame.pixels == pixels).all()


@pytest.mark.parametrize("box", [Box(30, 20, 50, 40), Box(-5, -5, 30, 20), Box(80, 50, 120, 90)])
def test_a_thing_on_a_plain_table_is_gone_without_a_trace(box: Box) -> None:
    table = np.full((60, 100, 3), (150, 130, 100), np.uint8)
    pixels = table.copy()
    x1, y1, x2, y2 = (int(v) for v in (max(box.x1, 0), max(box.y1, 0), min(box.x2, 100), min(box.y2, 60)))
    pixels[y1:y2, x1:x2] = (200, 20, 20)
    assert (without(Frame(pixels), box).pixels == table).all()


def test_a_box_around_the_whole_picture_leaves_nothing() -> None:
    assert not without(Frame(np.full((4, 4, 3), 9, np.uint8)), Box(0, 0, 4, 4)).pixels.any()

"""Boxes and words drawn into pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sensor_msgs", reason="needs the ROS messages")

from std_msgs.msg import Header

from mobilevlm_ros.ros.annotate import Mark, draw, image_message
from mobilevlm_ros.ros.images import to_rgb
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


def test_a_picture_becomes_a_message_that_reads_back_the_same() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    message = image_message(pixels, Header(frame_id="optical"))
    assert (message.header.frame_id, message.encoding, message.step) == ("optical", "rgb8", 21)
    assert np.array_equal(to_rgb(message), pixels)

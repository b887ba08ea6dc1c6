"""The gate that keeps a standing query from being asked about a picture that has not changed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.tasks.change_gate import MOST, TILES, look

RANDOM = np.random.default_rng(0)


def plain(height: int = 480, width: int = 640, level: int = 100) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def test_an_equal_picture_has_not_changed() -> None:
    pixels = RANDOM.integers(0, 256, (480, 640, 3), np.uint8)
    assert look(Frame(pixels)).difference(look(Frame(pixels.copy()))) == 0.0


def test_a_small_thing_counts_as_much_as_a_large_one() -> None:
    before = look(Frame(plain()))
    for side in (10, 20, 200):
        pixels = plain()
        pixels[100 : 100 + side, 100 : 100 + side] = 160
        assert look(Frame(pixels)).difference(before) == 60.0


def test_another_colour_of_equal_brightness_counts() -> None:
    red, blue = plain(), plain()
    red[:40, :40], blue[:40, :40] = (200, 0, 0), (0, 0, 200)
    assert look(Frame(red)).difference(look(Frame(blue))) == 200.0


def test_noise_averages_out() -> None:
    def noisy() -> Frame:
        return Frame(np.clip(plain() + RANDOM.normal(0, 10, (480, 640, 3)), 0, 255).astype(np.uint8))

    assert look(noisy()).difference(look(noisy())) < 8.0


def test_the_last_rows_and_columns_count_where_tiles_do_not_come_out_even() -> None:
    before = look(Frame(plain(479, 637)))
    pixels = plain(479, 637)
    pixels[-10:, -10:] = 150
    assert look(Frame(pixels)).difference(before) == 50.0


def test_pictures_of_different_sizes_differ() -> None:
    assert look(Frame(plain(480, 640))).difference(look(Frame(plain(480, 641)))) == MOST


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 255))
def test_a_tiles_value_is_its_mean_in_pictures_of_any_size(height: int, width: int, level: int) -> None:
    sight = look(Frame(plain(height, width, level)))
    assert np.all(sight.tiles == level)
    assert max(sight.tiles.shape[:2]) <= TILES


@pytest.mark.parametrize("shape", [(16384, 1), (1, 16384), (16384, 3)])
def test_the_longest_picture_does_not_overflow(shape: tuple[int, int]) -> None:
    assert np.all(look(Frame(plain(*shape, 255))).tiles == 255.0)

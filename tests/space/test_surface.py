"""Which depths belong to the thing in a box, on scenes made by formula: a wall or a tilted table, and a thing before it."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.space.camera_model import CameraModel
from mobilevlm_ros.space.errors import NoPositionError, Reason
from mobilevlm_ros.space.surface import surface_in
from mobilevlm_ros.space.view import Placement
from tests.space.scenes import Floats, in_metres

WIDTH, HEIGHT, FOCAL = 160, 120, 140.0
MODEL = CameraModel(WIDTH, HEIGHT, FOCAL, FOCAL, 79.5, 59.5)
BOX = Box(60, 40, 90, 70)

U, V = np.meshgrid(np.arange(WIDTH, dtype=np.float64), np.arange(HEIGHT, dtype=np.float64))


def inside(box: Box) -> np.ndarray:
    return (box.x1 <= U) & (box.x2 > U) & (box.y1 <= V) & (box.y2 > V)


def wall(z: float) -> Floats:
    return np.full((HEIGHT, WIDTH), z)


def table(height: float, pitch: float) -> Floats:
    """A plane `height` below a camera that looks down by `pitch` radians; NaN above the horizon."""
    y = (V - 59.5) / FOCAL
    down = y * np.cos(pitch) + np.sin(pitch)
    return np.where(down > 0.01, height / np.maximum(down, 0.01), np.nan)


def with_thing(background: Floats, z: float, box: Box = BOX) -> Floats:
    """A flat thing at distance z that fills an ellipse in its box."""
    across, along = (box.x2 - box.x1) / 2, (box.y2 - box.y1) / 2
    middle_x, middle_y = (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2
    ellipse = ((U + 0.5 - middle_x) / across) ** 2 + ((V + 0.5 - middle_y) / along) ** 2 <= 1
    return np.where(ellipse, z, background)


def place(metres: Floats, box: Box = BOX) -> Placement:
    return Placement.of(surface_in(in_metres(metres), MODEL, box).points)


def expected(z: float, box: Box = BOX) -> tuple[float, float, float]:
    """Where the middle of a flat thing is that fills its box."""
    return ((box.x1 + box.x2) / 2 - 0.5 - 79.5) * z / FOCAL, ((box.y1 + box.y2) / 2 - 0.5 - 59.5) * z / FOCAL, z


def far_apart(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    return float(np.linalg.norm(np.subtract(first, second)))


def test_the_background_in_a_boxs_corners_does_not_move_the_thing() -> None:
    found = place(with_thing(wall(3.0), 1.0))
    assert far_apart(found.position, expected(1.0)) < 0.005
    assert found.extent == pytest.approx((30 / FOCAL, 30 / FOCAL, 0.0), abs=0.02)


def test_a_box_that_is_mostly_background_still_finds_the_thing_in_its_middle() -> None:
    wide = Box(52, 32, 98, 78)  # the thing fills a third of it
    assert far_apart(place(with_thing(wall(3.0), 1.0), wide).position, expected(1.0)) < 0.01


def test_what_stands_on_a_table_is_found_without_the_table() -> None:
    metres = with_thing(table(0.5, 0.6), 0.75)
    found = place(metres)
    assert far_apart(found.position, expected(0.75)) < 0.01
    assert found.extent[2] < 0.02  # the table in the box alone reaches over 15 cm


def test_a_thing_seen_through_a_ring_is_not_taken_for_the_ring_but_the_wall_behind_it_is_left_out() -> None:
    metres = with_thing(with_thing(wall(2.5), 1.0), 2.5, Box(66, 46, 84, 64))
    assert far_apart(place(metres).position, expected(1.0)) < 0.01


def test_a_sheet_that_lies_in_the_plane_around_it_has_the_planes_position() -> None:
    found = place(wall(2.0))
    assert far_apart(found.position, expected(2.0)) < 0.01


def test_of_two_things_in_a_box_the_one_that_fills_its_middle_is_taken() -> None:
    metres = with_thing(wall(4.0), 1.5)
    metres[inside(Box(60, 40, 64, 70))] = 0.6  # something nearer at the box's left edge
    assert far_apart(place(metres).position, expected(1.5)) < 0.03


@given(
    st.floats(0.4, 6.0),
    st.floats(0.0, 0.6),
    st.floats(0.0, 0.01),
    st.integers(10, 100),
    st.integers(10, 70),
    st.integers(16, 40),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60)
def test_holes_and_noise_hardly_move_a_thing(
    z: float, holes: float, noise: float, left: int, top: int, side: int, seed: int
) -> None:
    box = Box(left, top, left + side, top + side)
    rng = np.random.default_rng(seed)
    metres = with_thing(wall(2 * z), z, box)
    metres = metres + rng.normal(0.0, noise, metres.shape) * metres
    metres[rng.uniform(size=metres.shape) < holes] = np.nan
    found = place(metres, box)
    pixel = z / FOCAL
    assert far_apart(found.position[:2], expected(z, box)[:2]) < 2.5 * pixel + noise * z
    assert abs(found.position[2] - z) < 2 * noise * z + 1e-3


@given(st.integers(-40, 40), st.integers(-30, 30))
@settings(max_examples=30)
def test_a_thing_that_moves_in_the_picture_moves_as_far_in_space(dx: int, dy: int) -> None:
    moved = BOX.shifted(dx, dy)
    before, after = place(with_thing(wall(3.0), 1.2)), place(with_thing(wall(3.0), 1.2, moved), moved)
    assert np.subtract(after.position, before.position) == pytest.approx((dx * 1.2 / FOCAL, dy * 1.2 / FOCAL, 0.0), abs=1e-6)
    assert after.extent == pytest.approx(before.extent, abs=1e-6)


@given(st.floats(1.0, 4.0))
@settings(max_examples=30)
def test_a_scene_twice_as_large_and_twice_as_far_has_everything_doubled(scale: float) -> None:
    once, scaled = place(with_thing(wall(3.0), 1.0)), place(with_thing(wall(3.0 * scale), scale))
    assert scaled.position == pytest.approx(tuple(scale * value for value in once.position), rel=1e-5, abs=1e-6)
    assert scaled.extent == pytest.approx(tuple(scale * value for value in once.extent), rel=1e-5, abs=1e-6)


@given(
    st.floats(-50, 200), st.floats(-50, 200), st.floats(0, 200), st.floats(0, 200), st.integers(0, 2**32 - 1), st.floats(0.0, 1.0)
)
@settings(max_examples=100)
def test_whatever_the_box_and_the_depths_there_is_a_finite_position_or_a_reason(
    left: float, top: float, wide: float, high: float, seed: int, holes: float
) -> None:
    rng = np.random.default_rng(seed)
    metres = 10.0 ** rng.uniform(-6, 30, (HEIGHT, WIDTH)) if seed % 2 else rng.uniform(0.3, 5.0, (HEIGHT, WIDTH))
    metres[rng.uniform(size=metres.shape) < holes] = np.nan
    try:
        found = place(metres, Box(left, top, left + wide, top + high))
    except NoPositionError as error:
        assert error.reason is Reason.NO_VALID_PIXELS
    else:
        assert np.isfinite((*found.position, *found.extent)).all()
        assert found.position[2] > 0
        assert min(found.extent) >= 0


def test_a_box_without_depths_says_how_many_there_are() -> None:
    metres = wall(2.0)
    metres[inside(BOX)] = np.nan
    metres[50, 70:73] = 1.0
    with pytest.raises(NoPositionError, match="only 3 of the 900 depths looked at in the box are valid") as caught:
        place(metres)
    assert caught.value.reason is Reason.NO_VALID_PIXELS


def test_the_share_of_valid_depths_is_told() -> None:
    metres = with_thing(wall(3.0), 1.0)
    metres[40:55, 60:90] = np.nan
    assert surface_in(in_metres(metres), MODEL, BOX).valid_share == pytest.approx(0.5)


def test_the_same_depths_give_the_same_position() -> None:
    metres = np.random.default_rng(0).uniform(0.5, 3.0, (HEIGHT, WIDTH))
    assert place(metres) == place(metres)


def test_a_box_of_a_whole_large_picture_takes_no_longer_than_a_moment() -> None:
    model = CameraModel(1920, 1080, 1400.0, 1400.0, 959.5, 539.5)
    metres = np.random.default_rng(0).uniform(0.5, 3.0, (1080, 1920))
    began = time.perf_counter()
    surface_in(in_metres(metres), model, Box(0, 0, 1920, 1080))
    assert time.perf_counter() - began < 1.0

"""Placements, changes of frame, and which depth images lie on a picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.space.camera_model import CameraModel
from mobilevlm_ros.space.errors import NoPositionError, Reason
from mobilevlm_ros.space.view import Placement, Transform, View
from tests.space.scenes import in_metres

NUMBER = st.floats(-5, 5)
MODEL = CameraModel(320, 240, 300.0, 300.0, 159.5, 119.5)


def test_a_placement_is_the_box_around_points_without_their_strays() -> None:
    points = np.random.default_rng(0).uniform((-1, -2, 3), (1, 2, 4), (5000, 3))
    points[:40] = 50.0
    found = Placement.of(points)
    assert found.position == pytest.approx((0.0, 0.0, 3.5), abs=0.05)
    assert found.extent == pytest.approx((2.0, 4.0, 1.0), rel=0.06)


def test_a_quarter_turn_about_z_turns_x_to_y() -> None:
    half = np.sqrt(0.5)
    turned = Transform.of((0.0, 0.0, half, half), (10.0, 0.0, 0.0)).apply(np.array([[1.0, 2.0, 3.0]]))
    assert turned[0] == pytest.approx((8.0, 1.0, 3.0))


def test_an_optical_frame_in_its_cameras_body_frame_looks_forward() -> None:
    # REP-103: the body's x is forward, y left, z up; the optical frame's z is forward, x right, y down.
    forward = Transform.of((-0.5, 0.5, -0.5, 0.5), (0.0, 0.0, 1.0)).apply(np.array([[0.1, 0.2, 2.0]]))
    assert forward[0] == pytest.approx((2.0, -0.1, 0.8))


@given(st.tuples(NUMBER, NUMBER, NUMBER, NUMBER), st.tuples(NUMBER, NUMBER, NUMBER), st.integers(0, 1000))
def test_a_transform_keeps_distances_and_handedness(
    quaternion: tuple[float, float, float, float], translation: tuple[float, float, float], seed: int
) -> None:
    assume(np.linalg.norm(quaternion) > 1e-3)
    transform = Transform.of(quaternion, translation)
    points = np.random.default_rng(seed).normal(size=(6, 3))
    moved = transform.apply(points)
    assert np.linalg.norm(moved - moved[0], axis=1) == pytest.approx(np.linalg.norm(points - points[0], axis=1), abs=1e-9)
    assert np.linalg.det(transform.rotation) == pytest.approx(1.0)


def test_the_extent_follows_the_axes_of_the_frame() -> None:
    points = np.random.default_rng(0).uniform((-1, -0.1, 0), (1, 0.1, 0.5), (4000, 3))
    third = (0.0, 0.0, 0.5, float(np.sqrt(0.75)))  # 60 degrees about z
    turned = Placement.of(Transform.of(third, (0.0, 0.0, 0.0)).apply(points))
    assert turned.extent == pytest.approx((1.0 + 0.17, 1.73 + 0.1, 0.5), rel=0.1)


@pytest.mark.parametrize(("width", "height"), [(320, 240), (160, 120), (640, 480), (960, 720)])
def test_a_depth_image_of_another_size_but_the_same_shape_gives_the_same_place(width: int, height: int) -> None:
    metres = np.full((height, width), 3.0)
    scale = width / 320
    metres[round(80 * scale) : round(140 * scale), round(100 * scale) : round(200 * scale)] = 1.0
    view = View.of(in_metres(metres), MODEL, 1280, 960)
    found = Placement.of(view.surface(Box(400, 320, 800, 560)).points)
    assert found.position == pytest.approx((-10 / 300, -10 / 300, 1.0), abs=0.006)
    assert found.extent == pytest.approx((100 / 300, 60 / 300, 0.0), abs=0.03)


@pytest.mark.parametrize(
    ("picture", "words"), [((1280, 720), "depth image is 320 x 240"), ((240, 320), "but the picture 240 x 320")]
)
def test_depth_of_another_shape_than_the_picture_is_not_registered(picture: tuple[int, int], words: str) -> None:
    with pytest.raises(NoPositionError, match=words) as caught:
        View.of(in_metres(np.ones((240, 320))), MODEL, *picture)
    assert caught.value.reason is Reason.NOT_REGISTERED


def test_camera_info_of_another_shape_than_the_picture_is_refused() -> None:
    with pytest.raises(NoPositionError, match="camera_info is 320 x 240, but the picture 640 x 360"):
        View.of(in_metres(np.ones((180, 320))), MODEL, 640, 360)

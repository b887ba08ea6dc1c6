"""From pixels to directions, against OpenCV's own models."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.space.camera_model import CameraModel, PictureGeometry
from mobilevlm_ros.space.errors import NoPositionError, Reason
from tests.space.scenes import Floats, camera_info

K = (300.0, 0.0, 159.5, 0.0, 310.0, 119.5, 0.0, 0.0, 1.0)
U, V = (grid.ravel().astype(np.float64) for grid in np.meshgrid(np.arange(0, 320, 40), np.arange(0, 240, 40)))


def directions(info: Any, geometry: PictureGeometry = PictureGeometry.RAW) -> Floats:
    return np.stack(CameraModel.of(info, geometry).directions(U, V), axis=1)


def test_without_distortion_a_camera_is_a_pinhole() -> None:
    assert directions(camera_info(320, 240, K, d=(0.0,) * 5)) == pytest.approx(
        np.stack([(U - 159.5) / 300, (V - 119.5) / 310], 1)
    )


@pytest.mark.parametrize(
    ("model", "d"),
    [
        ("plumb_bob", (-0.28, 0.07, 0.001, -0.002, 0.0)),
        ("plumb_bob", (0.15, -0.2, 0.0, 0.0, 0.05)),
        ("plumb_bob", (-0.1, 0.01, 0.001, 0.001)),
        ("rational_polynomial", (0.3, -0.1, 0.0005, 0.0002, 0.01, 0.6, -0.05, 0.02)),
    ],
)
def test_polynomial_distortion_is_taken_out_as_opencv_does(model: str, d: tuple[float, ...]) -> None:
    import cv2

    found = directions(camera_info(320, 240, K, model, d))
    pixels, _ = cv2.projectPoints(
        np.column_stack([found, np.ones(len(found))]), np.zeros(3), np.zeros(3), np.reshape(K, (3, 3)), d
    )
    assert pixels[:, 0] == pytest.approx(np.stack([U, V], 1), abs=1e-3)


def test_fisheye_distortion_is_taken_out_as_opencv_does() -> None:
    import cv2

    k, d = (120.0, 0.0, 159.5, 0.0, 120.0, 119.5, 0.0, 0.0, 1.0), (-0.01, 0.02, -0.003, 0.0005)
    found = directions(camera_info(320, 240, k, "equidistant", d))
    pixels = cv2.fisheye.distortPoints(found[None], np.reshape(k, (3, 3)), np.array(d))[0]
    seen = np.isfinite(found).all(axis=1)
    assert seen.mean() > 0.7  # the picture's corners look sideways and behind
    assert pixels[seen] == pytest.approx(np.stack([U, V], 1)[seen], abs=1e-3)


def test_a_rectified_picture_goes_by_p() -> None:
    info = camera_info(320, 240, K, d=(-0.28, 0.07, 0.0, 0.0, 0.0))
    assert directions(info, PictureGeometry.RECTIFIED) == pytest.approx(np.stack([(U - 159.5) / 150, (V - 119.5) / 155], 1))


@given(st.floats(0.1, 8.0), st.floats(0.1, 8.0), st.floats(-0.5, 319.5), st.floats(-0.5, 239.5))
def test_the_same_place_of_a_resized_picture_is_in_the_same_direction(x: float, y: float, u: float, v: float) -> None:
    model = CameraModel.of(camera_info(320, 240, K))
    resized = model.resized(320 * x, 240 * y)
    there = resized.directions(np.array((u + 0.5) * x - 0.5), np.array((v + 0.5) * y - 0.5))
    assert there == pytest.approx(model.directions(np.array(u), np.array(v)), abs=1e-9)


def test_binning_and_region_of_interest_are_counted_in() -> None:
    roi = SimpleNamespace(x_offset=100, y_offset=40, width=160, height=120)
    model = CameraModel.of(camera_info(320, 240, K, roi=roi, binning_x=2, binning_y=2))
    assert (model.width, model.height) == (80, 60)
    whole = CameraModel.of(camera_info(320, 240, K))
    # The binned picture's first pixel covers the pixels 100 and 101, 40 and 41.
    expected = whole.directions(np.array(100.5), np.array(40.5))
    assert model.directions(np.array(0.0), np.array(0.0)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (camera_info(320, 240, (0.0,) * 9), "not calibrated"),
        (camera_info(320, 240, (float("nan"), *K[1:])), "not calibrated"),
        (camera_info(0, 0, K), "not calibrated"),
        (camera_info(320, 240, K, "kannala", (0.1, 0.2)), "'kannala' with 2 numbers is not known"),
        (camera_info(320, 240, K, "plumb_bob", (float("inf"),) * 5), "no number"),
    ],
)
def test_a_camera_info_that_cannot_be_used_is_refused(info: Any, words: str) -> None:
    with pytest.raises(NoPositionError, match=words) as caught:
        CameraModel.of(info)
    assert caught.value.reason is Reason.BAD_CAMERA_INFO

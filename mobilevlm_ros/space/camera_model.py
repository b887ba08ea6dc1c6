"""From pixels to directions: `sensor_msgs/CameraInfo` as a pinhole with its lens's distortion.

A pixel's centre has whole coordinates, as in ROS and OpenCV: the first one's is (0, 0). The distortion models are those of
CameraInfo: plumb_bob, rational_polynomial and equidistant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mobilevlm_ros.space.errors import NoPositionError, Reason

Coordinates = npt.NDArray[np.float64]

_ROUNDS = 40
_CLOSE = 1e-6
"""How near, in units of the focal length, an undistorted point must come to its pixel when it is distorted again."""


class PictureGeometry(str, Enum):
    """How the pictures relate to CameraInfo: as the lens made them, which K and D describe, or rectified, which P does."""

    RAW = "raw"
    RECTIFIED = "rectified"


class Lens(Enum):
    """How directions are bent on their way to the sensor."""

    PINHOLE = "pinhole"
    POLYNOMIAL = "polynomial"
    EQUIDISTANT = "equidistant"


class CameraInfoMessage(Protocol):
    """The fields of `sensor_msgs/CameraInfo` that are read."""

    width: Any
    height: Any
    distortion_model: Any
    d: Any
    k: Any
    p: Any
    binning_x: Any
    binning_y: Any
    roi: Any


@dataclass(frozen=True)
class CameraModel:
    """A camera whose picture has `width` x `height` pixels; the other lengths are in pixels too.

    Attributes:
        distortion: k1 k2 p1 p2 k3 k4 k5 k6 for POLYNOMIAL, k1 k2 k3 k4 for EQUIDISTANT, empty for PINHOLE.
    """

    width: float
    height: float
    fx: float
    fy: float
    cx: float
    cy: float
    lens: Lens = Lens.PINHOLE
    distortion: tuple[float, ...] = ()

    @staticmethod
    def of(info: CameraInfoMessage, geometry: PictureGeometry = PictureGeometry.RAW) -> CameraModel:
        """Returns the model of the pictures that come with a camera_info; binning and region of interest are counted in.

        Raises:
            NoPositionError: BAD_CAMERA_INFO, where it is not calibrated or its distortion model is not known.
        """
        rectified = geometry is PictureGeometry.RECTIFIED
        matrix = np.asarray(info.p, np.float64).reshape(3, 4) if rectified else np.asarray(info.k, np.float64).reshape(3, 3)
        fx, fy, cx, cy = (float(value) for value in (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]))
        width, height = float(info.roi.width or info.width), float(info.roi.height or info.height)
        if not (np.isfinite(matrix).all() and fx > 0 and fy > 0 and width > 0 and height > 0):
            name = "P" if rectified else "K"
            raise _bad(f"camera_info is not calibrated: {name} has fx {fx:g}, fy {fy:g} for {width:g} x {height:g}")
        lens, distortion = (Lens.PINHOLE, ()) if rectified else _lens(info.distortion_model, [float(value) for value in info.d])
        model = CameraModel(width, height, fx, fy, cx - info.roi.x_offset, cy - info.roi.y_offset, lens, distortion)
        return model.resized(width / max(info.binning_x, 1), height / max(info.binning_y, 1))

    def resized(self, width: float, height: float) -> CameraModel:
        """Returns the model of the same picture in another size."""
        x, y = width / self.width, height / self.height
        moved = ((self.cx + 0.5) * x - 0.5, (self.cy + 0.5) * y - 0.5)
        return replace(self, width=width, height=height, fx=self.fx * x, fy=self.fy * y, cx=moved[0], cy=moved[1])

    def directions(self, u: Coordinates, v: Coordinates) -> tuple[Coordinates, Coordinates]:
        """Returns x / z and y / z of what pixels show, of any shape; NaN where the lens model has no answer."""
        x, y = (u - self.cx) / self.fx, (v - self.cy) / self.fy
        if self.lens is Lens.POLYNOMIAL:
            return _straighten(x, y, self.distortion)
        if self.lens is Lens.EQUIDISTANT:
            return _straighten_fisheye(x, y, self.distortion)
        return x, y


def _lens(name: str, values: Sequence[float]) -> tuple[Lens, tuple[float, ...]]:
    if not np.isfinite(values).all():
        raise _bad("camera_info has a distortion that is no number")
    if not any(values):
        return Lens.PINHOLE, ()
    if name in ("plumb_bob", "rational_polynomial") and len(values) in (4, 5, 8):
        return Lens.POLYNOMIAL, (*values, *[0.0] * (8 - len(values)))
    if name == "equidistant" and len(values) == 4:
        return Lens.EQUIDISTANT, tuple(values)
    raise _bad(f"the distortion model '{name}' with {len(values)} numbers is not known")


def _straighten(x: Coordinates, y: Coordinates, distortion: Sequence[float]) -> tuple[Coordinates, Coordinates]:
    """Inverts the polynomial distortion by fixed-point iteration."""
    p1, p2 = distortion[2:4]
    straight_x, straight_y = x.copy(), y.copy()
    with np.errstate(all="ignore"):
        for _ in range(_ROUNDS):
            radial, r2 = _radial(straight_x, straight_y, distortion)
            shift_x = 2 * p1 * straight_x * straight_y + p2 * (r2 + 2 * straight_x**2)
            shift_y = p1 * (r2 + 2 * straight_y**2) + 2 * p2 * straight_x * straight_y
            before = straight_x, straight_y
            straight_x, straight_y = (x - shift_x) / radial, (y - shift_y) / radial
            moved = np.hypot(straight_x - before[0], straight_y - before[1])
            if not (moved > _CLOSE / 10).any():
                break
        lost = ~(moved < _CLOSE)
    straight_x[lost] = straight_y[lost] = np.nan
    return straight_x, straight_y


def _radial(x: Coordinates, y: Coordinates, distortion: Sequence[float]) -> tuple[Coordinates, Coordinates]:
    k1, k2, _, _, k3, k4, k5, k6 = distortion
    r2 = x**2 + y**2
    return (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6))), r2


def _straighten_fisheye(x: Coordinates, y: Coordinates, distortion: Sequence[float]) -> tuple[Coordinates, Coordinates]:
    """Inverts the equidistant model by Newton's method; what lies at a right angle to the axis or beyond has no x / z."""
    k1, k2, k3, k4 = distortion
    bent = np.hypot(x, y)
    angle = bent.copy()
    with np.errstate(all="ignore"):
        for _ in range(_ROUNDS):
            t = angle**2
            value = angle * (1 + t * (k1 + t * (k2 + t * (k3 + t * k4)))) - bent
            slope = 1 + t * (3 * k1 + t * (5 * k2 + t * (7 * k3 + t * 9 * k4)))
            step = value / slope
            angle = angle - step
            if not (np.abs(step) > _CLOSE / 10).any():
                break
        scale = np.where(bent > 1e-9, np.tan(angle) / np.maximum(bent, 1e-9), 1.0)
        scale[~((np.abs(step) < _CLOSE) & (angle >= 0) & (angle < 1.5))] = np.nan
    return x * scale, y * scale


def _bad(message: str) -> NoPositionError:
    return NoPositionError(Reason.BAD_CAMERA_INFO, message)

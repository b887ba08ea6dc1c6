"""A picture with its depth: from a box in the picture to a position and an extent, in the camera's frame or another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.space.camera_model import CameraModel
from mobilevlm_ros.space.depth_image import DepthImage
from mobilevlm_ros.space.errors import NoPositionError, Reason
from mobilevlm_ros.space.surface import Points, Surface, surface_in

SAME_SHAPE = 0.01
"""How much the ratios of width to height of picture, depth and camera_info may differ, as a share."""

TRIMMED = 1.0
"""Percent of the points that are left out at either end of each axis: strays at the thing's edges."""


@dataclass(frozen=True)
class Placement:
    """The box around what is seen of a thing, along the axes of a frame, in metres: its middle and its sides."""

    position: tuple[float, float, float]
    extent: tuple[float, float, float]

    @staticmethod
    def of(points: Points) -> Placement:
        """Returns the placement of a surface's points [N, 3], at least one."""
        low, high = np.percentile(points, (TRIMMED, 100.0 - TRIMMED), axis=0)
        x, y, z = ((low + high) / 2).tolist()
        wide, high_, deep = (high - low).tolist()
        return Placement((x, y, z), (wide, high_, deep))


@dataclass(frozen=True)
class Transform:
    """A rigid motion from one frame into another: float64 rotation [3, 3] and translation [3]."""

    rotation: Points
    translation: Points

    @staticmethod
    def of(quaternion: tuple[float, float, float, float], translation: tuple[float, float, float]) -> Transform:
        """Returns the transform of a quaternion (x, y, z, w), of any length but 0, and a translation in metres."""
        x, y, z, w = np.asarray(quaternion) / np.linalg.norm(quaternion)
        rotation = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
        return Transform(np.asarray(rotation), np.asarray(translation, dtype=np.float64))

    def apply(self, points: Points) -> Points:
        """Returns points [N, 3] in the other frame."""
        moved: Points = points @ self.rotation.T + self.translation
        return moved


@dataclass(frozen=True)
class View:
    """A depth image that lies on a picture, with the model of its camera in the depth image's size."""

    depth: DepthImage
    model: CameraModel
    picture_width: int
    picture_height: int

    @staticmethod
    def of(depth: DepthImage, model: CameraModel, picture_width: int, picture_height: int) -> View:
        """Puts depth and picture together; they and camera_info may have different sizes, but only of one shape.

        Raises:
            NoPositionError: NOT_REGISTERED, where the shapes differ.
        """
        picture = picture_width / picture_height
        sizes = {"the depth image": (depth.width, depth.height), "camera_info": (model.width, model.height)}
        for name, (width, height) in sizes.items():
            if abs(width / height / picture - 1.0) > SAME_SHAPE:
                raise NoPositionError(
                    Reason.NOT_REGISTERED,
                    f"{name} is {width:g} x {height:g}, but the picture {picture_width} x {picture_height}: "
                    "depth that is registered to the picture is needed",
                )
        return View(depth, model.resized(depth.width, depth.height), picture_width, picture_height)

    def surface(self, box: Box) -> Surface:
        """Returns the visible surface of the thing inside a box of the picture; raises NoPositionError(NO_VALID_PIXELS)."""
        return surface_in(
            self.depth, self.model, box.scaled(self.depth.width / self.picture_width, self.depth.height / self.picture_height)
        )

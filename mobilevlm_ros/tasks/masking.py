"""Taking a thing out of a picture, so that a model that points at one thing can be asked for the next."""

from __future__ import annotations

import math

import numpy as np

from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import Box

MARGIN = 1 / 64
"""How wide the strip around a box is whose colour fills it, as a share of the picture's longer side."""


def without(frame: Frame, box: Box) -> Frame:
    """A copy of the picture with `box`, in source pixels, filled with the median colour of the strip around it.

    That hides a thing better than the padding's colour, a rectangle of which is taken for a thing here and there, and better than
    drawing the surroundings inwards, which leaves shades of the thing's neighbours (measured in models/nano/README.md).
    A box with nothing around it becomes black.
    """
    inside = box.clipped(frame.width, frame.height)
    x1, y1, x2, y2 = math.floor(inside.x1), math.floor(inside.y1), math.ceil(inside.x2), math.ceil(inside.y2)
    margin = max(2, round(max(frame.width, frame.height) * MARGIN))
    left, top = max(0, x1 - margin), max(0, y1 - margin)
    around = frame.pixels[top : y2 + margin, left : x2 + margin]
    strip = np.ones(around.shape[:2], bool)
    strip[y1 - top : y2 - top, x1 - left : x2 - left] = False
    pixels = frame.pixels.copy()
    pixels[y1:y2, x1:x2] = np.median(around[strip], axis=0) if strip.any() else 0
    return Frame(pixels)

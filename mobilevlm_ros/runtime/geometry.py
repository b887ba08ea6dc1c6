"""Where things are: boxes, the letterbox between a picture and the model's square, and the way back.

Pure arithmetic on numbers and one resize. Knows no camera, no model and no text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.manifest import BoxFrame


@dataclass(frozen=True)
class Box:
    """An axis-aligned box with its upper left corner at (x1, y1) and its lower right one at (x2, y2); x goes right, y down."""

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def area(self) -> float:
        """Zero for a box whose corners are in the wrong order."""
        return max(0.0, self.x2 - self.x1) * max(0.0, self.y2 - self.y1)

    def scaled(self, x: float, y: float) -> Box:
        """The box with its coordinates multiplied by `x` and `y`."""
        return Box(self.x1 * x, self.y1 * y, self.x2 * x, self.y2 * y)

    def shifted(self, dx: float, dy: float) -> Box:
        """The box moved by (dx, dy)."""
        return Box(self.x1 + dx, self.y1 + dy, self.x2 + dx, self.y2 + dy)

    def clipped(self, width: float, height: float) -> Box:
        """The part of the box inside [0, width] x [0, height]; its area is zero where it lies outside."""
        x1, x2 = min(max(self.x1, 0.0), width), min(max(self.x2, 0.0), width)
        y1, y2 = min(max(self.y1, 0.0), height), min(max(self.y2, 0.0), height)
        return Box(x1, y1, x2, y2)

    def shared_area(self, other: Box) -> float:
        """The area that two boxes have in common."""
        left, top = max(self.x1, other.x1), max(self.y1, other.y1)
        right, bottom = min(self.x2, other.x2), min(self.y2, other.y2)
        return Box(left, top, right, bottom).area

    def iou(self, other: Box) -> float:
        """Intersection over union, 0 to 1; 0 if both boxes are empty."""
        shared = self.shared_area(other)
        union = self.area + other.area - shared
        return shared / union if union > 0 else 0.0


@dataclass(frozen=True)
class Letterbox:
    """The centred square around a picture of `width` x `height` pixels, as MobileVLM pads it.

    The picture stands at (left, top) = ((long - width) // 2, (long - height) // 2) of a square whose side is the long edge.
    """

    width: int
    height: int

    @property
    def side(self) -> int:
        """The square's side in source pixels."""
        return max(self.width, self.height)

    @property
    def left(self) -> int:
        """Columns of padding before the picture."""
        return (self.side - self.width) // 2

    @property
    def top(self) -> int:
        """Rows of padding above the picture."""
        return (self.side - self.height) // 2

    def to_model(self, box: Box, frame: BoxFrame) -> Box:
        """Source pixels to the model's 0..1 coordinates."""
        if frame is BoxFrame.IMAGE:
            return box.scaled(1 / self.width, 1 / self.height)
        return box.shifted(self.left, self.top).scaled(1 / self.side, 1 / self.side)

    def to_source(self, box: Box, frame: BoxFrame) -> Box:
        """The model's 0..1 coordinates to source pixels. The result may reach outside the picture: clip it."""
        if frame is BoxFrame.IMAGE:
            return box.scaled(self.width, self.height)
        return box.scaled(self.side, self.side).shifted(-self.left, -self.top)


def letterbox(frame: Frame, size: int, pad_color: tuple[int, int, int]) -> np.ndarray:
    """Pad a picture to its centred square and resize that with antialiased bicubic filtering.

    This is what the official code does with `image_aspect_ratio: pad` and CLIP's preprocessor: both round to uint8 after the
    resize, so the normalisation can live in the graph.

    Pillow resizes the rows first and the columns of the result, rounded, afterwards. So the rows of a wide picture are resized
    before the padding is put above and below them, which would come out of it as it went in: the same pixels for less work.

    Returns:
        uint8 [size, size, 3], RGB.
    """
    box = Letterbox(frame.width, frame.height)
    picture, width = Image.fromarray(frame.pixels), box.side
    if box.left == 0 and box.width == box.side:
        width = size
        picture = picture.resize((size, box.height), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (width, box.side), pad_color)
    square.paste(picture, (box.left, box.top))
    return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))

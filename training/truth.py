"""What is truly in a picture: things with a shape, a colour and a box, and the arithmetic of boxes.

Boxes are x1, y1, x2, y2. In a `Thing` they are pixels of the picture; `squared` turns them into shares of the
padded square, which is what the model reads and writes. Needs numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Thing:
    """One visible thing."""

    shape: str
    color: str
    box: Box

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"


@dataclass(frozen=True)
class Sight:
    """A picture's size and all that is visible in it."""

    seed: int
    width: int
    height: int
    things: tuple[Thing, ...]

    def to_json(self) -> dict[str, Any]:
        things = [{"shape": t.shape, "color": t.color, "box": list(t.box)} for t in self.things]
        return {"seed": self.seed, "width": self.width, "height": self.height, "things": things}

    @staticmethod
    def from_json(record: dict[str, Any]) -> Sight:
        things = tuple(Thing(t["shape"], t["color"], _as_box(t["box"])) for t in record["things"])
        return Sight(record["seed"], record["width"], record["height"], things)


def _as_box(values: list[float]) -> Box:
    x1, y1, x2, y2 = (float(value) for value in values)
    return x1, y1, x2, y2


def box_of_mask(mask: NDArray[np.bool_]) -> Box | None:
    """The box around the set pixels, its far edges exclusive; None where there are none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def squared(box: Box, width: int, height: int) -> Box:
    """A pixel box as shares of the centred padded square."""
    side = max(width, height)
    dx, dy = (side - width) // 2, (side - height) // 2
    x1, y1, x2, y2 = box
    return (x1 + dx) / side, (y1 + dy) / side, (x2 + dx) / side, (y2 + dy) / side


def iou(first: Box, second: Box) -> float:
    """Intersection over union."""
    wide = min(first[2], second[2]) - max(first[0], second[0])
    high = min(first[3], second[3]) - max(first[1], second[1])
    if wide <= 0 or high <= 0:
        return 0.0
    both = wide * high
    area = (first[2] - first[0]) * (first[3] - first[1]) + (second[2] - second[0]) * (second[3] - second[1])
    return both / (area - both)


def mirrored(box: Box, width: float) -> Box:
    """The box after the picture was flipped left to right."""
    x1, y1, x2, y2 = box
    return width - x2, y1, width - x1, y2

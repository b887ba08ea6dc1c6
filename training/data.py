"""Rendered shards to training views: crop, flip, light and noise, then MobileVLM's letterbox; and their dense truth.

Needs numpy, Pillow and OpenCV. The truth of a view is worked out again from its cropped mask, so it stays exact.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from training.pictures import GRID, PAD_COLOR, SIDE
from training.scenes import COLORS, SHAPES
from training.truth import Sight, Thing, box_of_mask, squared

IGNORE = -1
COVERED, UNCOVERED = 0.2, 0.05
"""A patch belongs to a thing that covers this much of it, to none below the other; between, it is not taught."""
_ASPECTS = ((4 / 3, 0.7), (1.0, 0.15), (16 / 9, 0.1), (3 / 4, 0.05))


@dataclass(frozen=True)
class View:
    """A picture as the model gets it, with what is in it."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    sight: Sight


@dataclass(frozen=True)
class Dense:
    """What each of the 144 patches shows: class numbers (0 is none), its thing's box, and box centres."""

    shape: NDArray[np.int64]
    color: NDArray[np.int64]
    box: NDArray[np.float32]
    center: NDArray[np.float32]


class Shards:
    """All scenes that were rendered into a folder, memory-mapped."""

    def __init__(self, folder: Path) -> None:
        self._images: list[NDArray[np.uint8]] = []
        self._masks: list[NDArray[np.uint8]] = []
        self._index: list[tuple[int, int]] = []
        self.sights: list[Sight] = []
        for shard in sorted(folder.glob("shard*/truth.jsonl")):
            lines = shard.read_text().splitlines()
            self._index += [(len(self._images), row) for row in range(len(lines))]
            self.sights += [Sight.from_json(json.loads(line)) for line in lines]
            self._images.append(np.load(shard.with_name("images.npy"), mmap_mode="r"))
            self._masks.append(np.load(shard.with_name("masks.npy"), mmap_mode="r"))

    def __len__(self) -> int:
        return len(self._index)

    def scene(self, number: int) -> View:
        """A scene as it was rendered."""
        shard, row = self._index[number]
        return View(np.asarray(self._images[shard][row]), np.asarray(self._masks[shard][row]), self.sights[number])


def letterbox(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The padded square at the model's size."""
    height, width = pixels.shape[:2]
    side = max(height, width)
    if height != width:
        square = np.empty((side, side, 3), np.uint8)
        square[:] = PAD_COLOR
        top, left = (side - height) // 2, (side - width) // 2
        square[top : top + height, left : left + width] = pixels
        pixels = square
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def augmented(scene: View, rng: Generator) -> View:
    """A random view of a scene, before the letterbox."""
    view = _cropped(scene, rng)
    pixels, mask, sight = view.pixels, view.mask, view.sight
    if rng.uniform() < 0.5:
        pixels, mask = pixels[:, ::-1], mask[:, ::-1]
        sight = _seen(mask, scene.sight)
    return View(_relit(np.ascontiguousarray(pixels), rng), np.ascontiguousarray(mask), sight)


def _cropped(scene: View, rng: Generator) -> View:
    """A window of the picture in which every thing is nearly whole or quite gone."""
    height, width = scene.mask.shape
    aspects, chances = zip(*_ASPECTS)
    areas = np.bincount(scene.mask.ravel(), minlength=len(scene.sight.things) + 1)[1:]
    for _ in range(8):
        aspect = float(rng.choice(aspects, p=chances))
        zoom = 1.0 if rng.uniform() < 0.35 else float(rng.uniform(0.62, 1.0))
        wide = int(zoom * min(width, height * aspect))
        high = min(int(wide / aspect), height)
        left, top = int(rng.integers(0, width - wide + 1)), int(rng.integers(0, height - high + 1))
        mask = scene.mask[top : top + high, left : left + wide]
        left_over = np.bincount(mask.ravel(), minlength=len(areas) + 1)[1:] / areas
        if np.all((left_over > 0.7) | (left_over == 0.0)) and left_over.any():
            return View(scene.pixels[top : top + high, left : left + wide], mask, _seen(mask, scene.sight))
    return scene


def _seen(mask: NDArray[np.uint8], sight: Sight) -> Sight:
    """The truth of a changed mask; things keep their numbers' order."""
    things = []
    for index, thing in enumerate(sight.things):
        box = box_of_mask(mask == index + 1)
        if box is not None:
            things.append(Thing(thing.shape, thing.color, box))
    return Sight(sight.seed, mask.shape[1], mask.shape[0], tuple(things))


def _relit(pixels: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    """Brightness, gamma and white balance; sometimes blur, noise, JPEG."""
    gain = rng.uniform(0.82, 1.18) * rng.uniform(0.95, 1.05, 3)
    ramp = (np.arange(256) / 255.0) ** rng.uniform(0.85, 1.18)
    table = np.clip(ramp[:, None] * gain * 255.0, 0, 255).astype(np.uint8)
    pixels = np.asarray(cv2.LUT(pixels, table[None]))
    if rng.uniform() < 0.25:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.3, 0.9))))
    if rng.uniform() < 0.3:
        noise = rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(2.0, 8.0))
        pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    if rng.uniform() < 0.15:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(45, 95))]
        pixels = np.asarray(cv2.imdecode(cv2.imencode(".jpg", pixels, quality)[1], cv2.IMREAD_COLOR))
    return pixels


def dense(view: View) -> Dense:
    """What each patch of the letterboxed view shows."""
    height, width = view.mask.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    present = [number for number in np.unique(view.mask) if number]
    share = np.zeros((len(present) + 1, GRID, GRID), np.float32)
    square = np.zeros((side, side), np.float32)
    boxes = np.zeros((len(present), 4), np.float32)
    center = np.zeros((GRID, GRID), np.float32)
    for row, (number, thing) in enumerate(zip(present, view.sight.things)):
        square[top : top + height, left : left + width] = view.mask == number
        share[row] = cv2.resize(square, (GRID, GRID), interpolation=cv2.INTER_AREA)
        boxes[row] = squared(thing.box, width, height)
        x, y = (boxes[row, 0] + boxes[row, 2]) / 2, (boxes[row, 1] + boxes[row, 3]) / 2
        center[int(y * GRID), int(x * GRID)] = 1.0
    owner, best = share.argmax(0), share.max(0)
    shapes = np.array([SHAPES.index(t.shape) + 1 for t in view.sight.things] + [0])
    colors = np.array([COLORS.index(t.color) + 1 for t in view.sight.things] + [0])
    owner = np.where(best >= COVERED, owner, len(present))
    unsure = (best < COVERED) & (best > UNCOVERED)
    shape, color = np.where(unsure, IGNORE, shapes[owner]), np.where(unsure, IGNORE, colors[owner])
    box = np.concatenate([boxes, np.zeros((1, 4), np.float32)])[owner]
    return Dense(shape.ravel(), color.ravel(), box.reshape(-1, 4), center.ravel())

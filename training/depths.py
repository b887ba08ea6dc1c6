"""Renders held-out tabletops with depth and the truth in three dimensions, for the tests of 3-D positions.

`python -m training.depths --out DIR` (tests/data/depth was made so): `00.jpg`, `00.depth.png` (uint16 millimetres along the
camera's axis, as 16UC1) and so on, and `truth.jsonl`, one line a scene: `image`, `depth`, `seed`, `width`, `height`, `K` [9],
`camera` (the optical frame in the table's: `rotation` [3][3], `translation` [3], metres), and `things` with `shape`, `color`,
`box` (pixels), and `surface` and `solid`, each with `position` and `extent` (metres; optical frame: x right, y down, z forward)
of the box around what is seen of the thing and around all of it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.frames import usable
from training.render import Painter, Picture, sight_of
from training.scenes import HELD_OUT_SEED, Camera, Item, Scene, camera_axes, intrinsics, sample_scene
from training.shapes import mesh_of
from training.truth import Sight

FIRST_SEED = HELD_OUT_SEED + 7_000_000
"""Apart from the seeds that evaluation and recordings use."""


def optical_pose(camera: Camera) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The optical frame in the table's frame: rotation [3, 3], whose columns are right, down and forward, and translation [3]."""
    right, up = (np.asarray(axis) for axis in camera_axes(camera))
    return np.stack([right, -up, np.cross(right, -up)], axis=1), np.asarray(camera.eye)


def corners(item: Item) -> NDArray[np.float64]:
    """Points of the table's frame [N, 3] that span a thing."""
    if item.shape == "ball":
        directions = np.random.default_rng(0).normal(size=(4000, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return directions * item.size + (item.x, item.y, item.size)
    if item.shape == "cube":
        half = item.size * item.height
        signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
        points = signs * (item.size, item.size, half) + (0.0, 0.0, half)
    else:
        points = mesh_of(item.shape).vertices * (item.size, item.size, item.size * item.height)
    angle = np.radians(round(item.yaw, 1))
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return np.asarray(points @ turn.T + (item.x, item.y, 0.0))


def around(points: NDArray[np.float64]) -> dict[str, list[float]]:
    """Middle and size of the box around points."""
    low, high = points.min(axis=0), points.max(axis=0)
    return {"position": np.round((low + high) / 2, 4).tolist(), "extent": np.round(high - low, 4).tolist()}


def seen_points(picture: Picture, number: int, focal: float, cx: float, cy: float) -> NDArray[np.float64]:
    """The surface points [N, 3] of the thing with this number in the mask, less its outermost pixels, which mix with others."""
    assert picture.depth is not None
    mask = picture.mask == number
    inner = mask.copy()
    for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
        inner &= np.roll(mask, shift, axis)
    rows, columns = np.nonzero(inner)
    z = picture.depth[rows, columns].astype(np.float64)
    return np.stack([(columns - cx) * z / focal, (rows - cy) * z / focal, z], axis=1)


def record(scene: Scene, picture: Picture, sight: Sight) -> dict[str, Any]:
    """The truth about a scene."""
    focal, _, cx, cy = intrinsics(scene.camera, sight.width, sight.height)
    rotation, translation = optical_pose(scene.camera)
    line = sight.to_json()
    for number, (thing, item) in enumerate(zip(line["things"], scene.items), 1):
        thing["surface"] = around(seen_points(picture, number, focal, cx, cy))
        thing["solid"] = around((corners(item) - translation) @ rotation)
    line["K"] = [round(value, 4) for value in (focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0)]
    line["camera"] = {"rotation": np.round(rotation, 8).tolist(), "translation": np.round(translation, 6).tolist()}
    return line


def scenes(painter: Painter, first_seed: int, count: int) -> Iterator[tuple[Scene, Picture, Sight]]:
    """The first tabletops from a seed on whose three things or more can each be named by shape alone."""
    seed = first_seed
    while count:
        scene = sample_scene(seed)
        seed += 1
        if not usable(scene, 3):
            continue
        picture, shares = painter.paint(scene, depth=True)
        sight = sight_of(scene, picture, shares)
        if sight is not None:
            count -= 1
            yield scene, picture, sight


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=10)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (scene, picture, sight) in enumerate(scenes(Painter(args.width, args.height), args.first_seed, args.scenes)):
        assert picture.depth is not None
        names = {"image": f"{number:02d}.jpg", "depth": f"{number:02d}.depth.png"}
        Image.fromarray(picture.image).save(args.out / names["image"], quality=90)
        millimetres = np.clip(np.round(picture.depth * 1000.0), 0, 65535).astype(np.uint16)
        Image.fromarray(millimetres).save(args.out / names["depth"], optimize=True)
        lines.append({**names, **record(scene, picture, sight)})
        print(f"{number + 1} of {args.scenes}, seed {scene.seed}", flush=True)
    (args.out / "truth.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()

"""Renders a short camera sequence over held-out tabletops, for a demo's recording and for tests with known truth.

`python -m training.frames --out DIR`: `000000.png`... in order, `truth.jsonl` (one line a frame: `file`, `seconds`
since the first, `seed`, `width`, `height`, `things` with shape, colour and pixel box), `camera.json` (width, height, K,
D, R, P as sensor_msgs/CameraInfo has them); with `--depth` also `000000.depth.png`, uint16 millimetres along the axis.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.render import Painter, sight_of
from training.scenes import HELD_OUT_SEED, Camera, Scene, intrinsics, sample_scene

FIRST_SEED = HELD_OUT_SEED + 5_000_000
"""Apart from the seeds that evaluation uses."""
FOVY = 46.0
SWING = 9.0
"""How far the camera turns about a tabletop, in degrees to either side."""


def usable(scene: Scene, fewest: int) -> bool:
    """Enough things, and each nameable by shape alone and by colour alone."""
    shapes, colors = {item.shape for item in scene.items}, {item.color for item in scene.items}
    return len(scene.items) >= fewest and len(shapes) == len(colors) == len(scene.items)


def turned(camera: Camera, degrees: float) -> Camera:
    """The camera after a walk about the vertical axis through its target."""
    angle = np.radians(degrees)
    x, y = camera.eye[0] - camera.target[0], camera.eye[1] - camera.target[1]
    eye_x = camera.target[0] + x * np.cos(angle) - y * np.sin(angle)
    eye_y = camera.target[1] + x * np.sin(angle) + y * np.cos(angle)
    return Camera((float(eye_x), float(eye_y), camera.eye[2]), camera.target, FOVY)


def tabletop(painter: Painter, seed: int, count: int, fewest: int) -> list[Scene] | None:
    """A seed's scene from `count` places on an arc; None where something gets hidden on the way."""
    scene = sample_scene(seed)
    if not usable(scene, fewest):
        return None
    arc = np.linspace(-SWING, SWING, count)
    frames = [replace(scene, camera=turned(scene.camera, float(angle))) for angle in arc]
    checked = [frames[0], frames[count // 2], frames[-1]]
    if any(sight_of(frame, *painter.paint(frame), min_side=0.09) is None for frame in checked):
        return None
    return frames


def sequence(painter: Painter, first_seed: int, scenes: int, frames: int) -> Iterator[list[Scene]]:
    """The first tabletops from a seed on that can be shown."""
    seed, found = first_seed, 0
    while found < scenes:
        shown = tabletop(painter, seed, frames, fewest=3 + found % 2)
        seed += 1
        if shown is not None:
            found += 1
            yield shown


def camera_info(width: int, height: int) -> dict[str, object]:
    """The fields of sensor_msgs/CameraInfo."""
    fx, fy, cx, cy = intrinsics(Camera((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), FOVY), width, height)
    return {
        "width": width,
        "height": height,
        "distortion_model": "plumb_bob",
        "D": [0.0] * 5,
        "K": [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
        "R": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        "P": [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.5, help="time on each tabletop")
    parser.add_argument("--rate", type=float, default=10.0, help="frames a second")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--depth", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    painter = Painter(args.width, args.height)
    lines: list[dict[str, Any]] = []
    for frames in sequence(painter, args.first_seed, args.scenes, round(args.seconds * args.rate)):
        for scene in frames:
            picture, shares = painter.paint(scene, depth=args.depth)
            sight = sight_of(scene, picture, shares, min_visible=0.0, min_side=0.0)
            name = f"{len(lines):06d}"
            Image.fromarray(picture.image).save(args.out / f"{name}.png", optimize=True)
            if picture.depth is not None:
                millimetres = np.clip(picture.depth * 1000.0, 0, 65535).astype(np.uint16)
                Image.fromarray(millimetres).save(args.out / f"{name}.depth.png")
            truth = sight.to_json() if sight is not None else {"seed": scene.seed, "things": []}
            lines.append({"file": f"{name}.png", "seconds": round(len(lines) / args.rate, 3), **truth})
        print(f"{len(lines)} frames, seed {frames[0].seed}", flush=True)
    (args.out / "truth.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (args.out / "camera.json").write_text(json.dumps(camera_info(args.width, args.height), indent=1) + "\n")


if __name__ == "__main__":
    main()

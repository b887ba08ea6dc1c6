"""Pictures, object masks and depth of simulated tabletops with MuJoCo, without a screen.

`python -m training.render --out DIR --count N` writes shards that later steps read: `images.npy` and
`masks.npy` (0 is background, k is item k), and `truth.jsonl`. Interrupted, it goes on where it was.
Needs MuJoCo and a GL library (set MUJOCO_GL to egl or osmesa); nothing else in the package does.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.mjcf import scene_xml
from training.scenes import HELD_OUT_SEED, Scene, sample_scene
from training.truth import Box, Sight, Thing, box_of_mask

MIN_VISIBLE = 0.5
MIN_SIDE = 0.055
"""The smallest side a thing's box may have, as a share of the picture's longer side."""
SHARD = 250


@dataclass(frozen=True)
class Picture:
    """What a camera sees, and which thing each pixel belongs to."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    depth: NDArray[np.float32] | None = None


class Painter:
    """Renders scenes of one picture size; keeps one GL context for all of them."""

    def __init__(self, width: int, height: int) -> None:
        import mujoco

        self._mujoco = mujoco
        self.width, self.height = width, height
        self._gl = mujoco.GLContext(width, height)
        self._gl.make_current()

    def paint(self, scene: Scene, depth: bool = False) -> tuple[Picture, tuple[float, ...]]:
        """The picture of a scene, and the visible share of each thing."""
        mj = self._mujoco
        model = mj.MjModel.from_xml_string(scene_xml(scene, self.width, self.height))
        data = mj.MjData(model)
        mj.mj_forward(model, data)
        view, context = mj.MjvScene(model, maxgeom=100), mj.MjrContext(model, mj.mjtFontScale.mjFONTSCALE_50)
        mj.mjr_setBuffer(mj.mjtFramebuffer.mjFB_OFFSCREEN, context)
        context.readDepthMap = mj.mjtDepthMap.mjDEPTH_ZERONEAR
        camera = mj.MjvCamera()
        camera.type, camera.fixedcamid = mj.mjtCamera.mjCAMERA_FIXED, 0
        option, perturb = mj.MjvOption(), mj.MjvPerturb()

        def shoot(items: list[int], flags: bool) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
            for index in range(len(scene.items)):
                model.geom_rgba[model.geom(f"item{index}").id, 3] = float(index in items)
            mj.mjv_updateScene(model, data, option, perturb, camera, mj.mjtCatBit.mjCAT_ALL, view)
            view.flags[mj.mjtRndFlag.mjRND_SEGMENT] = view.flags[mj.mjtRndFlag.mjRND_IDCOLOR] = flags
            box = mj.MjrRect(0, 0, self.width, self.height)
            mj.mjr_render(box, view, context)
            pixels = np.empty((self.height, self.width, 3), np.uint8)
            far = np.empty((self.height, self.width), np.float32)
            mj.mjr_readPixels(pixels, far, box, context)
            if flags:
                return self._items_of(pixels, view, model, len(scene.items))[::-1], far[::-1]
            return pixels[::-1], far[::-1]

        everything = list(range(len(scene.items)))
        image, _ = shoot(everything, flags=False)
        mask, buffer = shoot(everything, flags=True)
        shares = []
        for index in everything:
            whole = int((shoot([index], flags=True)[0] == index + 1).sum()) if len(everything) > 1 else 0
            seen = int((mask == index + 1).sum())
            shares.append(seen / whole if whole else float(seen > 0))
        meters = _metres(buffer, model) if depth else None
        context.free()
        return Picture(np.ascontiguousarray(image), np.ascontiguousarray(mask), meters), tuple(shares)

    def _items_of(self, pixels: NDArray[np.uint8], view: object, model: object, count: int) -> NDArray[np.uint8]:
        """Pixel ids to item numbers."""
        number = pixels.astype(np.int32) @ np.array([1, 256, 65536])
        lookup = np.zeros(int(number.max()) + 2, np.uint8)
        ids = {model.geom(f"item{index}").id: index + 1 for index in range(count)}  # type: ignore[attr-defined]
        for geom in view.geoms[: view.ngeom]:  # type: ignore[attr-defined]
            if geom.segid + 1 < len(lookup) and geom.objid in ids and geom.objtype == self._mujoco.mjtObj.mjOBJ_GEOM:
                lookup[geom.segid + 1] = ids[geom.objid]
        return lookup[number]


def _metres(buffer: NDArray[np.float32], model: object) -> NDArray[np.float32]:
    """Depth along the camera's axis from the GL depth buffer."""
    extent = model.stat.extent  # type: ignore[attr-defined]
    near, far = model.vis.map.znear * extent, model.vis.map.zfar * extent  # type: ignore[attr-defined]
    return (near / (1.0 - buffer.astype(np.float64) * (1.0 - near / far))).astype(np.float32)


def see(painter: Painter, seed: int) -> tuple[Picture, Sight] | None:
    """The picture and truth of a seed; None where a thing is hidden, cut off or tiny."""
    scene = sample_scene(seed)
    picture, shares = painter.paint(scene)
    sight = sight_of(scene, picture, shares)
    return None if sight is None else (picture, sight)


def sight_of(
    scene: Scene,
    picture: Picture,
    shares: tuple[float, ...],
    min_visible: float = MIN_VISIBLE,
    min_side: float = MIN_SIDE,
) -> Sight | None:
    """What a picture truly shows; None where a thing is hidden, cut off or tiny."""
    height, width = picture.mask.shape
    things = []
    for index, (item, share) in enumerate(zip(scene.items, shares)):
        box = box_of_mask(picture.mask == index + 1)
        if box is None or share < min_visible or not _inside(box, width, height, min_side):
            return None
        things.append(Thing(item.shape, item.color, box))
    return Sight(scene.seed, width, height, tuple(things))


def _inside(box: Box, width: int, height: int, min_side: float) -> bool:
    x1, y1, x2, y2 = box
    wide = min(x2 - x1, y2 - y1) >= min_side * max(width, height)
    return wide and x1 > 1 and y1 > 1 and x2 < width - 1 and y2 < height - 1


def write_shard(out: Path, number: int, first_seed: int, width: int, height: int) -> None:
    """One shard; its seeds are its own, so shards can be made in any order."""
    folder = out / f"shard{number:04d}"
    if (folder / "truth.jsonl").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    painter, seed = Painter(width, height), first_seed + number * SHARD * 20
    images = np.zeros((SHARD, height, width, 3), np.uint8)
    masks = np.zeros((SHARD, height, width), np.uint8)
    sights: list[Sight] = []
    while len(sights) < SHARD:
        seen = see(painter, seed)
        seed += 1
        if seen is not None:
            images[len(sights)], masks[len(sights)] = seen[0].image, seen[0].mask
            sights.append(seen[1])
    np.save(folder / "images.npy", images)
    np.save(folder / "masks.npy", masks)
    text = "".join(json.dumps(sight.to_json()) + "\n" for sight in sights)
    (folder / "truth.part").write_text(text)
    os.replace(folder / "truth.part", folder / "truth.jsonl")


def _job(job: tuple[Path, int, int, int, int]) -> int:
    write_shard(*job)
    return job[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--count", type=int, default=24_000, help="scenes, in shards of 250")
    parser.add_argument("--held-out", action="store_true", help="use the seeds kept for evaluation")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    first = HELD_OUT_SEED if args.held_out else 0
    shards = -(-args.count // SHARD)
    jobs = [(args.out, number, first, args.width, args.height) for number in range(shards)]
    with multiprocessing.get_context("spawn").Pool(args.workers, maxtasksperchild=4) as pool:
        for done, number in enumerate(pool.imap_unordered(_job, jobs), 1):
            print(f"shard {number} written, {done * SHARD}/{shards * SHARD} scenes", flush=True)


if __name__ == "__main__":
    main()

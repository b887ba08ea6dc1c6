"""What the gate before standing queries costs, how often it asks in vain and how often it misses something.

`python -m bench.standing_gate --json`, about a minute. The pictures are the demo's recording. Still scenes are seen twice
through a camera's flaws: noise of each pixel, JPEG, an exposure that wavers. Changed scenes have a thing of the recording put
somewhere else, round and of a given size, in its own contrast or a quarter of it. Prints tables, then one JSON line.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

from mobilevlm_ros.demo import truth
from mobilevlm_ros.demo.run import BAG
from mobilevlm_ros.pictures.sampling import EveryFrame, Sampling
from mobilevlm_ros.pictures.source import Sample, open_source
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.tasks.change_gate import MIN_CHANGE, Sight, look

THRESHOLDS = (6.0, MIN_CHANGE, 24.0)
SIZES = ((640, 480), (1280, 720), (1920, 1080))


@dataclass(frozen=True)
class Flaws:
    """A camera: the standard deviation of its noise in levels, its JPEG quality (None: none), how far its exposure wavers."""

    noise: float
    quality: int | None = None
    waver: float = 0.0

    def shoot(self, pixels: np.ndarray, random: np.random.Generator) -> Sight:
        """One picture of a scene, as the gate sees it."""
        exposed = pixels * (1 + random.uniform(-self.waver, self.waver)) + random.normal(0, self.noise, pixels.shape)
        seen = np.clip(exposed, 0, 255).astype(np.uint8)
        if self.quality is not None:
            data = io.BytesIO()
            Image.fromarray(seen).save(data, "JPEG", quality=self.quality)
            seen = np.array(Image.open(data))
        return look(Frame(seen))


CAMERAS = {
    "noise 5": Flaws(5.0),
    "noise 10": Flaws(10.0),
    "noise 20": Flaws(20.0),
    "noise 5, JPEG 75": Flaws(5.0, 75),
    "noise 10, JPEG 50": Flaws(10.0, 50),
    "noise 5, exposure +-1%": Flaws(5.0, waver=0.01),
    "noise 5, exposure +-5%": Flaws(5.0, waver=0.05),
}
THINGS = tuple((side, contrast) for contrast in (1.0, 0.25) for side in (12, 16, 24, 32))
"""Sides in pixels of 640 x 480, and contrasts."""


@dataclass(frozen=True)
class Scene:
    """A picture uint8 [height, width, 3] and the boxes of the things in it."""

    pixels: np.ndarray
    things: tuple[Box, ...]


@dataclass(frozen=True)
class Rate:
    """For each threshold, the share of `count` pairs of pictures that were asked about, or that were skipped."""

    what: str
    count: int
    shares: tuple[float, ...]


def scenes(every: int) -> list[Scene]:
    """Every n-th picture of the recording."""
    recording = truth.read(BAG.with_suffix(".json"))
    pictures = [item.frame.pixels for item in open_source(str(BAG), Sampling(EveryFrame(1))).items if isinstance(item, Sample)]
    return [
        Scene(pixels, tuple(thing.box for thing in picture.things))
        for pixels, picture in list(zip(pictures, recording.pictures))[::every]
    ]


def asked_in_vain(seen: Sequence[Scene], camera: str, random: np.random.Generator) -> Rate:
    """How often two pictures of one scene count as changed."""
    flaws = CAMERAS[camera]
    found = np.array([flaws.shoot(s.pixels, random).difference(flaws.shoot(s.pixels, random)) for s in seen])
    return Rate(camera, len(found), tuple(float((found >= least).mean()) for least in THRESHOLDS))


def missed(seen: Sequence[Scene], side: int, contrast: float, random: np.random.Generator) -> Rate:
    """How often a thing that came counts as nothing."""
    flaws = CAMERAS["noise 5"]
    found = []
    for scene in seen:
        before = flaws.shoot(scene.pixels, random)
        for box in scene.things:
            after = flaws.shoot(_with_thing(scene.pixels, box, side, contrast, random), random)
            found.append(after.difference(before))
    shares = tuple(float((np.array(found) < least).mean()) for least in THRESHOLDS)
    return Rate(f"{side} pixels, contrast {contrast:g}", len(found), shares)


def _with_thing(pixels: np.ndarray, box: Box, side: int, contrast: float, random: np.random.Generator) -> np.ndarray:
    """A copy of a picture in which the thing of a box stands once more, round, of this size, at random."""
    height, width = pixels.shape[:2]
    cut = pixels[int(box.y1) : int(box.y2), int(box.x1) : int(box.x2)]
    thing = np.asarray(Image.fromarray(cut).resize((side, side), Image.Resampling.BOX))
    top, left = random.integers(0, height - side), random.integers(0, width - side)
    place = np.s_[top : top + side, left : left + side]
    down, right = np.mgrid[:side, :side] - (side - 1) / 2
    shown = contrast * (np.hypot(down, right) < side / 2)[:, :, None]
    changed = pixels.copy()
    changed[place] = (shown * thing + (1 - shown) * pixels[place]).round()
    return changed


def cost_ms(width: int, height: int, times: int = 50) -> float:
    """Median milliseconds of a look and a comparison."""
    frame = Frame(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
    before, taken = look(frame), []
    for _ in range(times):
        start = time.perf_counter()
        look(frame).difference(before)
        taken.append((time.perf_counter() - start) * 1e3)
    return statistics.median(taken)


def _print(title: str, rates: Sequence[Rate]) -> None:
    print(f"{title:32} {'pairs':>6} " + " ".join(f"{f'at {least:g}':>8}" for least in THRESHOLDS))
    for rate in rates:
        print(f"{rate.what:32} {rate.count:6} " + " ".join(f"{share:8.1%}" for share in rate.shares))
    print()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m bench.standing_gate", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    options = parser.parse_args(arguments)
    seen, random = scenes(every=1), np.random.default_rng(0)
    vain = [asked_in_vain(seen, camera, random) for camera in CAMERAS]
    lost = [missed(seen, side, contrast, random) for side, contrast in THINGS]
    costs = {f"{width}x{height}": round(cost_ms(width, height), 2) for width, height in SIZES}
    if not options.json:
        _print("still, but asked", vain)
        _print("a thing came, but skipped", lost)
        print("milliseconds a picture: " + ", ".join(f"{size} {taken}" for size, taken in costs.items()))
    told = {"thresholds": THRESHOLDS, "asked_in_vain": [*map(asdict, vain)], "missed": [*map(asdict, lost)], "cost_ms": costs}
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The rendered scenes of tests/data/depth, and depth images made by formula."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.space.camera_model import CameraModel
from mobilevlm_ros.space.depth_image import DepthImage
from mobilevlm_ros.space.view import Placement

FOLDER = Path(__file__).resolve().parents[1] / "data" / "depth"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Thing:
    """A thing of a rendered scene: its name, its true box in pixels, and the boxes around what is seen and around all of it."""

    name: str
    box: Box
    surface: Placement
    solid: Placement


@dataclass(frozen=True)
class Rendered:
    """A rendered scene. `millimetres` is uint16 [H, W]; `rotation` and `translation` put the optical frame into the table's."""

    pixels: npt.NDArray[np.uint8]
    millimetres: npt.NDArray[np.uint16]
    k: tuple[float, ...]
    rotation: Floats
    translation: Floats
    things: tuple[Thing, ...]

    @property
    def model(self) -> CameraModel:
        """The camera."""
        height, width = self.millimetres.shape
        return CameraModel(width, height, self.k[0], self.k[4], self.k[2], self.k[5])


def rendered() -> list[Rendered]:
    """All of them."""
    return [_rendered(json.loads(line)) for line in (FOLDER / "truth.jsonl").read_text().splitlines()]


def _rendered(record: dict[str, Any]) -> Rendered:
    things = [
        Thing(f"{thing['color']} {thing['shape']}", Box(*thing["box"]), _placement(thing["surface"]), _placement(thing["solid"]))
        for thing in record["things"]
    ]
    return Rendered(
        pixels=np.asarray(Image.open(FOLDER / record["image"]).convert("RGB")),
        millimetres=np.asarray(Image.open(FOLDER / record["depth"])).astype(np.uint16),
        k=tuple(record["K"]),
        rotation=np.asarray(record["camera"]["rotation"]),
        translation=np.asarray(record["camera"]["translation"]),
        things=tuple(things),
    )


def _placement(record: dict[str, Any]) -> Placement:
    return Placement(tuple(record["position"]), tuple(record["extent"]))


def spoiled(millimetres: npt.NDArray[np.uint16], holes: float, noise: float, seed: int = 0) -> npt.NDArray[np.uint16]:
    """A depth image with a share of pixels without depth, and noise whose standard deviation at 1 m is `noise` metres."""
    rng = np.random.default_rng(seed)
    metres = millimetres / 1000.0
    noisy = np.clip(np.round((metres + rng.normal(0.0, noise, metres.shape) * metres**2) * 1000.0), 1, 65535)
    noisy[rng.uniform(size=metres.shape) < holes] = 0
    return noisy.astype(np.uint16)


def in_metres(metres: Floats) -> DepthImage:
    """A depth image of these distances."""
    return DepthImage(metres.astype(np.float32), 1.0)


def depth_message(samples: npt.NDArray[Any], encoding: str, padding: int = 0, big_endian: bool = False) -> SimpleNamespace:
    """The fields of a `sensor_msgs/Image` of these samples, with bytes of padding behind each row."""
    height, width = samples.shape
    ordered = samples.astype(samples.dtype.newbyteorder(">" if big_endian else "<"))
    rows = ordered.view(np.uint8).reshape(height, -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xAB)
    return SimpleNamespace(
        width=width, height=height, encoding=encoding, is_bigendian=int(big_endian), step=padded.shape[1], data=padded.tobytes()
    )


def camera_info(
    width: int, height: int, k: tuple[float, ...], model: str = "plumb_bob", d: tuple[float, ...] = (), **changes: Any
) -> SimpleNamespace:
    """The fields of a `sensor_msgs/CameraInfo`; P is K with half its focal length, so that the two can be told apart."""
    p = (k[0] / 2, 0.0, k[2], 0.0, 0.0, k[4] / 2, k[5], 0.0, 0.0, 0.0, 1.0, 0.0)
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    fields = {"width": width, "height": height, "distortion_model": model, "d": d, "k": k, "p": p, "binning_x": 0, "binning_y": 0}
    return SimpleNamespace(**{**fields, "roi": roi, **changes})

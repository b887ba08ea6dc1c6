"""Makes the demo's recording from rendered pictures: python -m mobilevlm_ros.demo.record FRAMES BAG.mcap

FRAMES is a folder as `python -m training.frames` writes it: pictures, `truth.jsonl` and `camera.json`. The pictures go into the
bag as JPEG, as `sensor_msgs/CompressedImage`, each with its `CameraInfo`; the truth goes into a JSON file beside the bag. The
story in that file, written by hand, is kept. Needs rosbags, no ROS.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

IMAGE_TOPIC = "/camera/image_raw/compressed"
INFO_TOPIC = "/camera/camera_info"
FRAME_ID = "camera_color_optical_frame"
START_NS = 1_700_000_000_000_000_000
"""When the recording pretends to begin; fixed, so that equal pictures make an equal bag."""

QUALITY = 92
"""Of the JPEGs: their flaws are below what a camera's noise would be."""


@dataclass(frozen=True)
class Frame:
    """A picture to record, its time in seconds from the first, and the things in it."""

    file: Path
    seconds: float
    seed: int
    things: list[dict[str, Any]]


class Recorder:
    """Writes pictures and camera infos into a bag."""

    def __init__(self, writer: Writer, camera: dict[str, Any]) -> None:
        """Args: camera: the fields of `sensor_msgs/CameraInfo`."""
        self._writer = writer
        self._camera = camera
        self._types = get_typestore(Stores.ROS2_HUMBLE)
        self._image = writer.add_connection(IMAGE_TOPIC, "sensor_msgs/msg/CompressedImage", typestore=self._types)
        self._info = writer.add_connection(INFO_TOPIC, "sensor_msgs/msg/CameraInfo", typestore=self._types)

    def add(self, frame: Frame) -> None:
        """Adds a picture and its camera info."""
        stamp = START_NS + round(frame.seconds * 1e9)
        types = self._types.types
        time = types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
        header = types["std_msgs/msg/Header"](stamp=time, frame_id=FRAME_ID)
        form = "rgb8; jpeg compressed bgr8"  # as image_transport writes it
        image = types["sensor_msgs/msg/CompressedImage"](header=header, format=form, data=_jpeg(frame.file))
        for connection, message in ((self._info, self._camera_info(header)), (self._image, image)):
            self._writer.write(connection, stamp, self._types.serialize_cdr(message, connection.msgtype))

    def _camera_info(self, header: Any) -> Any:
        camera, types = self._camera, self._types.types
        return types["sensor_msgs/msg/CameraInfo"](
            header=header,
            height=camera["height"],
            width=camera["width"],
            distortion_model=camera["distortion_model"],
            d=np.array(camera["D"]),
            k=np.array(camera["K"]),
            r=np.array(camera["R"]),
            p=np.array(camera["P"]),
            binning_x=0,
            binning_y=0,
            roi=types["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
        )


def record(folder: Path, bag: Path) -> None:
    """Writes the bag and its truth; both are replaced where they exist, but for the story."""
    truth = bag.with_suffix(".json")
    story = json.loads(truth.read_text(encoding="utf-8"))["story"] if truth.exists() else []
    frames = [_frame(folder, json.loads(line)) for line in (folder / "truth.jsonl").read_text(encoding="utf-8").splitlines()]
    camera = json.loads((folder / "camera.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(dir=bag.parent) as temporary:
        target = Path(temporary) / bag.stem
        writer = Writer(target, version=9, storage_plugin=StoragePlugin.MCAP)
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        with writer:
            recorder = Recorder(writer, camera)
            for frame in frames:
                recorder.add(frame)
        shutil.move(next(target.glob("*.mcap")), bag)
    truth.write_text(_truth(frames, story), encoding="utf-8")


def _frame(folder: Path, raw: dict[str, Any]) -> Frame:
    things = [{name: thing[name] for name in ("shape", "color", "box")} for thing in raw["things"]]
    return Frame(folder / raw["file"], raw["seconds"], raw["seed"], things)


def _truth(frames: Sequence[Frame], story: Sequence[Any]) -> str:
    """The truth file's text, one line a picture; scenes are numbered in the order of their appearance."""
    seeds = list(dict.fromkeys(frame.seed for frame in frames))
    pictures = ",\n    ".join(json.dumps({"scene": seeds.index(frame.seed), "things": frame.things}) for frame in frames)
    steps = ",\n    ".join(json.dumps(step) for step in story)
    return f'{{\n  "frames": [\n    {pictures}\n  ],\n  "story": [\n    {steps}\n  ]\n}}\n'


def _jpeg(file: Path) -> np.ndarray:
    stream = io.BytesIO()
    with PillowImage.open(file) as picture:
        picture.convert("RGB").save(stream, "JPEG", quality=QUALITY)
    return np.frombuffer(stream.getvalue(), np.uint8)


def main(arguments: list[str] | None = None) -> int:
    """Records as the command line says."""
    parser = argparse.ArgumentParser(prog="mobilevlm_ros.demo.record", description="Make the demo's recording.")
    parser.add_argument("frames", type=Path, help="folder with pictures, truth.jsonl and camera.json")
    parser.add_argument("bag", type=Path, help="mcap file to write")
    parsed = parser.parse_args(arguments)
    record(parsed.frames, parsed.bag)
    return 0


if __name__ == "__main__":
    sys.exit(main())

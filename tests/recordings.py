"""Videos and bags for tests: the demo's recording, and small ones made on the spot."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

BAG = Path(__file__).resolve().parents[1] / "mobilevlm_ros" / "demo" / "tabletop.mcap"
BAG_TOPIC = "/camera/image_raw/compressed"
BAG_PICTURES, BAG_FPS = 60, 5
START_NS = 1_700_000_000_000_000_000

Pixels = npt.NDArray[np.uint8]


def bag_pictures() -> list[Pixels]:
    """The demo recording's pictures, uint8 [480, 640, 3] RGB; five a second."""
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    with AnyReader([BAG], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
        connections = [connection for connection in reader.connections if connection.topic == BAG_TOPIC]
        raws = [reader.deserialize(raw, connection.msgtype) for connection, _, raw in reader.messages(connections)]
    return [np.asarray(Image.open(io.BytesIO(bytes(raw.data))).convert("RGB")) for raw in raws]  # type: ignore[attr-defined]


def write_video(path: Path, pictures: Sequence[Pixels], fps: float = BAG_FPS) -> Path:
    """Encodes pictures as a video."""
    import cv2

    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    for picture in pictures:
        writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def read_video(path: Path) -> tuple[float, list[Pixels]]:
    """A video's frames a second and its frames."""
    import cv2

    video = cv2.VideoCapture(str(path))
    fps = float(video.get(cv2.CAP_PROP_FPS))
    frames: list[Pixels] = []
    while True:
        read, pixels = video.read()
        if not read:
            return fps, frames
        frames.append(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8))


def write_bag(folder: Path, topics: dict[str, Sequence[Pixels | bytes]], storage: str = "mcap", fps: float = 2.0) -> Path:
    """Writes a bag folder with pictures as raw `bgr8` images, or as compressed ones where they are bytes."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    types = get_typestore(Stores.ROS2_HUMBLE)
    with Writer(folder, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        for topic, pictures in topics.items():
            name = "CompressedImage" if isinstance(pictures[0], bytes) else "Image"
            connection = writer.add_connection(topic, f"sensor_msgs/msg/{name}", typestore=types)
            for number, picture in enumerate(pictures):
                recorded = START_NS + round(number / fps * 1e9)
                message = _message(types.types, recorded - 5_000_000, picture)
                writer.write(connection, recorded, types.serialize_cdr(message, connection.msgtype))
    return folder


def _message(types: Any, stamp: int, picture: Pixels | bytes) -> Any:
    time = types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
    header = types["std_msgs/msg/Header"](stamp=time, frame_id="camera")
    if isinstance(picture, bytes):
        data = np.frombuffer(picture, np.uint8)
        return types["sensor_msgs/msg/CompressedImage"](header=header, format="jpeg", data=data)
    height, width = picture.shape[:2]
    data = np.ascontiguousarray(picture[:, :, ::-1]).reshape(-1)
    return types["sensor_msgs/msg/Image"](
        header=header, height=height, width=width, encoding="bgr8", is_bigendian=0, step=3 * width, data=data
    )

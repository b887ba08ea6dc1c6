"""One scene in the encodings that cameras publish, through the real node: its things have their colours in each of them."""

from __future__ import annotations

import array
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image

from mobilevlm_ros.client import VLM
from mobilevlm_ros.demo.player import read
from mobilevlm_ros.demo.run import BAG
from mobilevlm_ros.pictures.messages import compressed_to_rgb
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from tests.ros.test_images import STAND_IN
from tests.system.graph import Camera, Served, fails, serving, until

NAME = "encodings_vlm"
QUESTION = "What is on the table?"
THINGS = ("orange ball", "red cone", "blue cube")

Pixels = np.ndarray


def scene() -> Pixels:
    """The demo's first picture, RGB."""
    first = next(message for message in read(BAG) if message.kind is CompressedImage)
    return compressed_to_rgb(deserialize_message(first.cdr, CompressedImage))


def _planes(rgb: Pixels, order: str) -> Pixels:
    """Luma rows, then chroma rows whose samples alternate in `order`."""
    height, width = rgb.shape[:2]
    flat = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420).reshape(-1)
    luma, chroma = flat[: width * height].reshape(height, width), flat[width * height :].reshape(2, -1)
    pairs = chroma["uv".index(order[0])], chroma["uv".index(order[1])]
    return np.concatenate([luma, np.stack(pairs, axis=-1).reshape(-1, width)])


def _mosaic(rgb: Pixels, pattern: str) -> Pixels:
    """Each pixel's one sample, as a sensor with this pattern of colour filters takes it."""
    mosaic = np.empty(rgb.shape[:2], np.uint8)
    for place, color in enumerate(pattern):
        rows, columns = slice(place // 2, None, 2), slice(place % 2, None, 2)
        mosaic[rows, columns] = rgb[rows, columns, "rgb".index(color)]
    return mosaic


def _rgb565(rgb: Pixels) -> Pixels:
    red, green, blue = np.moveaxis(rgb.astype(np.uint16), -1, 0)
    return ((red >> 3 << 11) | (green >> 2 << 5) | blue >> 3).astype("<u2")


ENCODERS: dict[str, Callable[[Pixels], Pixels]] = {
    "bgr8": lambda rgb: rgb[:, :, ::-1],
    "rgba8": lambda rgb: np.dstack([rgb, np.zeros_like(rgb[:, :, 0])]),
    "rgb16": lambda rgb: rgb.astype("<u2") * 257,
    "yuv422": lambda rgb: cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_UYVY),
    "yuv422_yuy2": lambda rgb: cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_YUYV),
    "nv12": lambda rgb: _planes(rgb, "uv"),
    "nv21": lambda rgb: _planes(rgb, "vu"),
    **{f"bayer_{name}8": partial(_mosaic, pattern=name) for name in ("rggb", "bggr", "gbrg", "grbg")},
    "rgb565": _rgb565,
}


def message(rgb: Pixels, encoding: str, pad: int = 5) -> Image:
    """The scene in an encoding, its rows padded."""
    stored = np.ascontiguousarray(ENCODERS[encoding](rgb))
    rows = stored.view(np.uint8).reshape(len(stored), -1)
    padded = np.pad(rows, ((0, 0), (0, pad * stored.itemsize)))
    made = Image(height=rgb.shape[0], width=rgb.shape[1], encoding=encoding, step=padded.shape[1])
    made.data = array.array("B", padded.tobytes())
    return made


@pytest.fixture(scope="module")
def served(tester: Node, nano_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A node that finds a cv_bridge, which knows rgb565."""
    folder = tmp_path_factory.mktemp("encodings")
    (folder / "cv_bridge.py").write_text(STAND_IN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        with serving(tester, NAME, folder, model=nano_package, temperature=0.0) as served:
            yield served


def shown(vlm: VLM, camera: Camera, made: Image) -> str:
    """The answer about this picture."""
    made.header = camera.header()
    camera.publisher.publish(made)

    def answer() -> str | None:
        found = vlm.ask(QUESTION)
        return found.text if found.info.header == made.header else None

    return str(until(answer))


@pytest.mark.parametrize("encoding", ENCODERS)
def test_the_things_have_their_colours_in_every_encoding(vlm: VLM, camera: Camera, encoding: str) -> None:
    answer = shown(vlm, camera, message(scene(), encoding))
    assert all(thing in answer for thing in THINGS), answer


def test_the_channels_matter_to_the_answer(vlm: VLM, camera: Camera) -> None:
    swapped = message(scene(), "bgr8")
    swapped.encoding = "rgb8"
    answer = shown(vlm, camera, swapped)
    assert not any(thing in answer for thing in THINGS), answer


def test_an_encoding_that_cv_bridge_does_not_know_either_is_a_bad_image(vlm: VLM, camera: Camera) -> None:
    odd = message(scene(), "bgr8")
    odd.encoding = "rgb9"
    odd.header = camera.header()
    camera.publisher.publish(odd)
    until(lambda: _code(vlm) is ErrorCode.BAD_IMAGE)
    fails(lambda: vlm.ask(QUESTION), ErrorCode.BAD_IMAGE, "'rgb9' is not known; known are rgb8")


def _code(vlm: VLM) -> ErrorCode:
    try:
        vlm.ask(QUESTION, max_tokens=1)
    except VlmError as error:
        return error.code
    return ErrorCode.NONE

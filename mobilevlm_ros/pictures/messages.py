"""The pictures of ROS messages to RGB: `sensor_msgs/Image` and `CompressedImage` in, uint8 [height, width, 3] out.

Everything that a message claims is checked against its data before anything is allocated, and every defect ends as
`VlmError(BAD_IMAGE)` with one line that names it. The rows' `step`, `is_bigendian` and the encoding are honoured. A message is
whatever has its fields, so that a live one and a recorded one are read alike; this module knows no ROS, no topics and no model.
OpenCV is imported for the encodings that need it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from mobilevlm_ros.pictures.depth_picture import depth_to_grey
from mobilevlm_ros.pictures.opencv import opencv
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

Pixels = npt.NDArray[np.uint8]

MAX_SIDE = 16384
"""The longest side that is read, in pixels."""

MAX_PIXELS = 64 * 1024 * 1024
"""The largest area that is read, in pixels."""


class ImageMessage(Protocol):
    """The fields of `sensor_msgs/Image`; `data` is anything with a buffer of bytes."""

    height: Any
    width: Any
    encoding: Any
    is_bigendian: Any
    step: Any
    data: Any


class CompressedImageMessage(Protocol):
    """The fields of `sensor_msgs/CompressedImage`."""

    format: Any
    data: Any


@dataclass(frozen=True)
class _Encoding:
    """How one encoding lies in memory, and the way from there to RGB."""

    sample: str  # numpy's name of a sample's type, without the byte order
    samples: int  # in a pixel
    to_rgb: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    even_width: bool = False
    half_planes: bool = False  # a half-height chroma plane follows the luma plane

    @property
    def sample_bytes(self) -> int:
        """1, 2 or 4."""
        return int(self.sample[1:])


def to_rgb(message: ImageMessage) -> Pixels:
    """Returns the picture of an uncompressed message.

    Args:
        message: any encoding of `ENCODINGS`, padded rows and either byte order.

    Returns:
        uint8 [height, width, 3], RGB, contiguous. 16-bit samples are scaled to 8 bits; depth is shown in grey, near is bright.

    Raises:
        VlmError: BAD_IMAGE, where size, step, data and encoding disagree or the encoding is not known.
    """
    width, height, encoding = message.width, message.height, message.encoding
    check_size(width, height)
    layout = _TABLE.get(encoding.lower())
    if layout is None:
        raise unknown_encoding(message)
    row_bytes = width * layout.samples * layout.sample_bytes
    rows = _rows(message) if layout.half_planes else height
    if layout.even_width and width % 2 or layout.half_planes and rows % 3:
        raise _bad(f"a {encoding} picture needs even sides, this one is {width} x {height}")
    if message.step < row_bytes:
        raise _bad(f"{width} pixels of {encoding} need a step of {row_bytes} bytes or more, not {message.step}")
    if len(message.data) != rows * message.step:
        raise _bad(
            f"{width} x {height} {encoding} with a step of {message.step} is {rows * message.step} bytes, "
            f"the message has {len(message.data)}"
        )
    return _convert(message, layout, rows)


def compressed_to_rgb(message: CompressedImageMessage) -> Pixels:
    """Returns the picture of a JPEG or PNG message.

    Its `format` is looked at for grey files only: image_transport writes there what the grey was, such as
    `bayer_rggb8; jpeg compressed ` or `16UC1; png compressed `.

    Returns:
        uint8 [height, width, 3], RGB, contiguous. 16-bit grey is scaled to 8 bits, a Bayer mosaic made colours, depth shown in
        grey; transparency is dropped.

    Raises:
        VlmError: BAD_IMAGE, where the data is neither JPEG nor PNG, is cut short or damaged, or has image_transport's
            form for depth (`compressedDepth`).
    """
    if "compresseddepth" in message.format.lower():
        raise _bad(f"'{message.format}' has a form of its own, which is not read; listen to the depth's raw topic")
    if not len(message.data):
        raise _bad("the compressed picture has no data")
    try:
        with PillowImage.open(io.BytesIO(memoryview(message.data)), formats=("JPEG", "PNG")) as picture:
            check_size(*picture.size)
            return _pillow_to_rgb(picture, message.format)
    except (VlmError, MemoryError):
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise _bad(f"the compressed picture ('{message.format}') cannot be decoded: {error}") from error


def _rows(message: ImageMessage) -> int:
    """Returns the rows of luma and chroma together. Some drivers count both in `height`, others the luma alone."""
    height = int(message.height)
    return height if len(message.data) == height * message.step else height * 3 // 2


def _pillow_to_rgb(picture: PillowImage.Image, form: str) -> Pixels:
    """Decodes an opened picture; Pillow alone would clip 16-bit grey instead of scaling it."""
    if picture.mode not in ("L", "I", "I;16", "I;16B"):
        return np.array(picture.convert("RGB"))
    grey = np.asarray(picture)[:, :, None]
    encoding = form.partition(";")[0].strip().lower()
    if encoding in DEPTH:
        return _TABLE[encoding].to_rgb(grey)
    if picture.mode != "L":
        grey = _to_8_bits(grey)
    if encoding.startswith("bayer_") and encoding in _TABLE:
        return _TABLE[encoding].to_rgb(grey)
    return np.repeat(grey, 3, axis=2)


def _convert(message: ImageMessage, layout: _Encoding, rows: int) -> Pixels:
    dtype = np.dtype(f"{'>' if message.is_bigendian else '<'}{layout.sample}")
    stride = layout.samples * layout.sample_bytes
    view: npt.NDArray[Any] = np.ndarray(
        (rows, message.width, layout.samples),
        dtype,
        memoryview(message.data),
        strides=(message.step, stride, layout.sample_bytes),
    )
    if layout.sample_bytes == 2 and message.encoding.lower() not in DEPTH:
        view = _to_8_bits(view)
    try:
        return np.ascontiguousarray(layout.to_rgb(view))
    except (VlmError, MemoryError):
        raise
    except Exception as error:  # OpenCV's own kind, which only its module names
        raise _bad(f"OpenCV cannot convert {message.width} x {message.height} {message.encoding}") from error


def _to_8_bits(samples: npt.NDArray[Any]) -> Pixels:
    """Scales 0..65535 to 0..255, rounded; 65535 / 255 = 257, so there are no ties."""
    scaled: Pixels = ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return scaled


def unknown_encoding(message: ImageMessage) -> VlmError:
    """The error for an encoding outside `ENCODINGS`."""
    return _bad(f"the encoding '{message.encoding}' is not known; known are {', '.join(ENCODINGS)}")


def is_depth(message: ImageMessage) -> bool:
    """Whether the samples are distances."""
    return message.encoding.lower() in DEPTH


def check_size(width: int, height: int) -> None:
    """Raises VlmError(BAD_IMAGE) for a picture that is empty or larger than any that is read."""
    if width < 1 or height < 1:
        raise _bad(f"the picture is empty: {width} x {height}")
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise _bad(f"the picture is too large: {width} x {height}")


def _bad(message: str) -> VlmError:
    return VlmError(ErrorCode.BAD_IMAGE, message)


def _by(code: str) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
    """A conversion by OpenCV, named as OpenCV names it."""
    return lambda view: _cvt_color(view, code)


def _flat_by(code: str) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
    """Like `_by`, for conversions that want [rows, width] and one block of memory."""
    return lambda view: _cvt_color(np.ascontiguousarray(view[:, :, 0]), code)


def _cvt_color(view: npt.NDArray[Any], code: str) -> npt.NDArray[Any]:
    cv2 = opencv("this picture's encoding")
    converted: npt.NDArray[Any] = cv2.cvtColor(view, getattr(cv2, code))
    return converted


def _show_depth(view: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.repeat(depth_to_grey(view), 3, axis=2)


def _table() -> dict[str, _Encoding]:
    table: dict[str, _Encoding] = {}
    for sample, suffix in (("u1", "8"), ("u2", "16")):
        table[f"rgb{suffix}"] = _Encoding(sample, 3, lambda view: view)
        table[f"bgr{suffix}"] = _Encoding(sample, 3, _by("COLOR_BGR2RGB"))
        table[f"rgba{suffix}"] = _Encoding(sample, 4, _by("COLOR_RGBA2RGB"))
        table[f"bgra{suffix}"] = _Encoding(sample, 4, _by("COLOR_BGRA2RGB"))
        table[f"mono{suffix}"] = _Encoding(sample, 1, _by("COLOR_GRAY2RGB"))
        # OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the first row's first two.
        table[f"bayer_rggb{suffix}"] = _Encoding(sample, 1, _flat_by("COLOR_BayerBG2RGB"))
        table[f"bayer_bggr{suffix}"] = _Encoding(sample, 1, _flat_by("COLOR_BayerRG2RGB"))
        table[f"bayer_gbrg{suffix}"] = _Encoding(sample, 1, _flat_by("COLOR_BayerGR2RGB"))
        table[f"bayer_grbg{suffix}"] = _Encoding(sample, 1, _flat_by("COLOR_BayerGB2RGB"))
    # What cv_bridge writes for an OpenCV picture whose encoding nobody named: OpenCV's own channel order.
    table["8uc1"], table["8uc3"], table["8uc4"] = table["mono8"], table["bgr8"], table["bgra8"]
    for name in ("yuv422", "uyvy"):
        table[name] = _Encoding("u1", 2, _by("COLOR_YUV2RGB_UYVY"), even_width=True)
    for name in ("yuv422_yuy2", "yuyv"):
        table[name] = _Encoding("u1", 2, _by("COLOR_YUV2RGB_YUYV"), even_width=True)
    table["nv12"] = _Encoding("u1", 1, _flat_by("COLOR_YUV2RGB_NV12"), even_width=True, half_planes=True)
    table["nv21"] = _Encoding("u1", 1, _flat_by("COLOR_YUV2RGB_NV21"), even_width=True, half_planes=True)
    table["16uc1"] = _Encoding("u2", 1, _show_depth)
    table["32fc1"] = _Encoding("f4", 1, _show_depth)
    return table


_TABLE = _table()

DEPTH: tuple[str, ...] = ("16uc1", "32fc1")
"""The encodings whose samples are distances, in lower case."""

ENCODINGS: tuple[str, ...] = tuple(_TABLE)
"""The encodings of uncompressed pictures that are read here, in lower case."""

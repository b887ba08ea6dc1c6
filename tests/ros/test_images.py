"""Pictures of every encoding to RGB, held against rosbags-image, and every defect to BAD_IMAGE."""

from __future__ import annotations

import array
import io
import re
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

pytest.importorskip("sensor_msgs", reason="needs the ROS messages")

from rosbags.image import message_to_cvimage
from sensor_msgs.msg import CompressedImage, Image

from mobilevlm_ros.pictures.depth_picture import depth_to_grey
from mobilevlm_ros.pictures.messages import DEPTH
from mobilevlm_ros.ros.images import ENCODINGS, compressed_to_rgb, to_rgb
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

NAMED = [name for name in ENCODINGS if not name.startswith("8uc") and name not in DEPTH]
SAMPLES = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4, "yuv422": 2, "yuv422_yuy2": 2, "yuyv": 2, "uyvy": 2, "8uc3": 3, "8uc4": 4}


def samples_of(encoding: str) -> int:
    return SAMPLES.get(encoding, SAMPLES.get(re.sub(r"(8|16)$", "", encoding), 1))


def sample_bytes(encoding: str) -> int:
    return 4 if encoding == "32fc1" else 2 if encoding.endswith("16") or encoding == "16uc1" else 1


def message(encoding: str, width: int, height: int, pad: int = 0, big: bool = False, seed: int = 0) -> Image:
    """A random picture; for nv12 and nv21 the chroma rows are counted in neither `height` nor the result's."""
    rows = height * 3 // 2 if encoding.startswith("nv") else height
    step = width * samples_of(encoding) * sample_bytes(encoding) + pad
    data = np.random.default_rng(seed).integers(0, 256, rows * step, dtype=np.uint8)
    made = Image(width=width, height=height, encoding=encoding, step=step, is_bigendian=int(big))
    made.data = array.array("B", data.tobytes())
    return made


def oracle(source: Image) -> np.ndarray:
    """What rosbags-image makes of it. It wants plain rows, and chroma rows counted in `height`."""
    return np.asarray(message_to_cvimage(_plain(source), "rgb8"))


def _plain(source: Image) -> Image:
    encoding = source.encoding.lower()
    width_bytes = source.width * samples_of(encoding) * sample_bytes(encoding)
    rows = np.frombuffer(source.data, np.uint8).reshape(-1, source.step)[:, :width_bytes]
    plain = Image(width=source.width, height=len(rows), encoding=source.encoding, step=width_bytes)
    plain.is_bigendian = source.is_bigendian if sample_bytes(encoding) > 1 else 0
    plain.data = array.array("B", np.ascontiguousarray(rows).tobytes())
    return plain


@pytest.mark.parametrize("encoding", NAMED)
@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(2, 20).map(lambda n: 2 * n),
    height=st.integers(2, 20).map(lambda n: 2 * n),
    pad=st.integers(0, 9),
    big=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_encoding_agrees_with_the_oracle(encoding: str, width: int, height: int, pad: int, big: bool, seed: int) -> None:
    source = message(encoding, width, height, pad, big, seed)
    pixels = to_rgb(source)
    assert (pixels.dtype, pixels.shape, pixels.flags.c_contiguous) == (np.uint8, (height, width, 3), True)
    # The oracle cuts off where 16 bits become 8, this rounds.
    tolerance = 1 if sample_bytes(encoding) == 2 else 0
    assert np.abs(pixels.astype(int) - oracle(source).astype(int)).max() <= tolerance


def depth_message(depth: np.ndarray, encoding: str, pad: int = 0, big: bool = False) -> Image:
    """A depth image, its samples uint16 millimetres or float32 metres."""
    height, width = depth.shape
    stored = depth.astype(depth.dtype.newbyteorder(">" if big else "<"))
    rows = np.pad(stored.view(np.uint8).reshape(height, -1), ((0, 0), (0, pad)), constant_values=0xA5)
    made = Image(width=width, height=height, encoding=encoding, step=rows.shape[1], is_bigendian=int(big))
    made.data = array.array("B", rows.tobytes())
    return made


@settings(max_examples=50, deadline=None)
@given(
    kind=st.sampled_from([("16UC1", np.uint16), ("32FC1", np.float32)]),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    pad=st.integers(0, 9),
    big=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_depth_is_read_as_the_oracle_reads_it_and_shown_in_grey(
    kind: tuple[str, type[np.generic]], width: int, height: int, pad: int, big: bool, seed: int
) -> None:
    depth = np.random.default_rng(seed).uniform(0, 9000, (height, width)).astype(kind[1])
    source = depth_message(depth, kind[0], pad, big)
    read: np.ndarray = np.asarray(message_to_cvimage(_plain(source)))
    assert np.array_equal(read, depth)
    pixels = to_rgb(source)
    assert np.array_equal(pixels, np.repeat(depth_to_grey(read)[:, :, None], 3, axis=2))


def test_near_is_bright_far_is_dark_and_no_depth_is_black() -> None:
    depth = np.full((20, 20), 5.0, np.float32)
    depth[:10] = 1.0
    depth[0, :4] = (np.nan, np.inf, 0.0, -1.0)
    pixels = to_rgb(depth_message(depth, "32FC1"))[:, :, 0]
    assert pixels[0, :4].tolist() == [0, 0, 0, 0]
    assert (pixels[5, 5], pixels[15, 5]) == (255, 32)


def test_millimetres_and_metres_look_alike() -> None:
    metres = np.random.default_rng(0).uniform(0.5, 8.0, (30, 40)).round(3)
    shown = to_rgb(depth_message((metres * 1000).round().astype(np.uint16), "16UC1"))
    assert np.abs(shown.astype(int) - to_rgb(depth_message(metres.astype(np.float32), "32FC1"))).max() <= 1


def test_a_picture_without_any_depth_is_black() -> None:
    assert not to_rgb(depth_message(np.zeros((4, 4), np.uint16), "16UC1")).any()


def test_the_channels_are_where_the_name_says() -> None:
    source = message("bgra8", 2, 1)
    source.data = array.array("B", [1, 2, 3, 99, 4, 5, 6, 99])
    assert to_rgb(source).tolist() == [[[3, 2, 1], [6, 5, 4]]]


def test_16_bits_are_scaled_and_not_cut_off() -> None:
    source = message("mono16", 3, 1, big=True)
    source.data = array.array("B", [0xFF, 0xFF, 0x00, 0x00, 0x80, 0x80])
    assert to_rgb(source)[0, :, 0].tolist() == [255, 0, 128]


def test_an_encoding_may_be_written_in_capitals() -> None:
    assert to_rgb(message("8UC3".lower(), 4, 4)).tolist() == to_rgb(_named(message("8uc3", 4, 4), "8UC3")).tolist()


def test_chroma_rows_may_be_counted_in_the_height() -> None:
    alone = message("nv12", 8, 4)
    both = message("nv12", 8, 4)
    both.height = 6
    assert to_rgb(both).tolist() == to_rgb(alone).tolist()


def test_odd_sides_are_read_where_the_encoding_allows_them() -> None:
    assert to_rgb(message("rgb8", 7, 5, pad=3)).shape == (5, 7, 3)


def _named(source: Image, encoding: str) -> Image:
    source.encoding = encoding
    return source


def _changed(encoding: str = "rgb8", **changes: int) -> Image:
    source = message(encoding, 8, 6)
    for name, value in changes.items():
        setattr(source, name, value)
    return source


DEFECTS = {
    "no columns": (_changed(width=0), "empty"),
    "no rows": (_changed(height=0), "empty"),
    "too wide": (_changed(width=20000, step=60000), "too large"),
    "too many pixels": (_changed(width=16000, height=16000, step=48000), "too large"),
    "a step of part of a row": (_changed(step=23), "step of 24"),
    "more rows than data": (_changed(height=7), "168 bytes, the message has 144"),
    "fewer rows than data": (_changed(height=5), "120 bytes, the message has 144"),
    "odd width for yuv": (_changed("yuv422", width=7, step=16), "even"),
    "odd height for nv12": (_changed("nv12", height=5), "even"),
    "an unknown encoding": (_named(message("rgb8", 8, 6), "rgb565"), "rgb565"),
    "no encoding": (_named(message("rgb8", 8, 6), ""), "''"),
    "metres with the step of colours": (_named(message("rgb8", 8, 6), "32FC1"), "step of 32"),
    "more distances than data": (_changed("16uc1", height=7), "112 bytes, the message has 96"),
    "distances of a kind that nobody publishes": (_named(message("rgb8", 8, 6), "64FC1"), "64FC1"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_a_bad_image_with_one_line_that_names_it(defect: str) -> None:
    source, words = DEFECTS[defect]
    with pytest.raises(VlmError) as caught:
        to_rgb(source)
    assert caught.value.code is ErrorCode.BAD_IMAGE
    assert words in caught.value.message
    assert "\n" not in caught.value.message


def test_a_message_that_claims_a_huge_picture_allocates_nothing() -> None:
    source = _changed(width=16384, height=4096, step=16384 * 3)
    tracemalloc.start()
    with pytest.raises(VlmError):
        to_rgb(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@settings(max_examples=300, deadline=None)
@given(
    encoding=st.sampled_from([*ENCODINGS, "", "rgb9", "32FC1"]),
    width=st.integers(0, 40),
    height=st.integers(0, 40),
    step=st.integers(0, 200),
    length=st.integers(0, 4000),
    big=st.integers(0, 255),
)
def test_any_message_is_a_picture_or_a_bad_image(
    encoding: str, width: int, height: int, step: int, length: int, big: int
) -> None:
    source = Image(width=width, height=height, encoding=encoding, step=step, is_bigendian=big)
    source.data = array.array("B", bytes(length))
    try:
        pixels = to_rgb(source)
    except VlmError as error:
        assert error.code is ErrorCode.BAD_IMAGE
    else:
        assert pixels.dtype == np.uint8
        assert pixels.shape[1:] == (width, 3)


def compressed(mode: str, form: str, **options: object) -> tuple[CompressedImage, PillowImage.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, len(mode) if mode != "P" else 1), dtype=np.uint8)
    smooth = PillowImage.fromarray(noise.squeeze()).resize((96, 64))
    picture = smooth.convert(mode)
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return CompressedImage(format=form.lower(), data=array.array("B", stream.getvalue())), picture


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_png_comes_back_exactly(mode: str) -> None:
    source, picture = compressed(mode, "PNG")
    assert np.array_equal(compressed_to_rgb(source), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_agrees_with_the_oracle(mode: str) -> None:
    source, _ = compressed(mode, "JPEG", quality=90)
    expected: np.ndarray = np.asarray(message_to_cvimage(source, "rgb8"))
    assert np.abs(compressed_to_rgb(source).astype(int) - expected.astype(int)).max() <= 3


def test_a_16_bit_png_is_scaled() -> None:
    grey = np.array([[0, 257 * 7, 65535]], np.uint16)
    stream = io.BytesIO()
    PillowImage.fromarray(grey).save(stream, "PNG")
    source = CompressedImage(format="mono16; png compressed", data=array.array("B", stream.getvalue()))
    assert compressed_to_rgb(source)[0, :, 0].tolist() == [0, 7, 255]


def _stored(pixels: np.ndarray, form: str, kind: str = "PNG", **options: object) -> CompressedImage:
    stream = io.BytesIO()
    PillowImage.fromarray(pixels).save(stream, kind, **options)
    return CompressedImage(format=form, data=array.array("B", stream.getvalue()))


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_bayer_mosaic_that_image_transport_compressed_becomes_colours(pattern: str) -> None:
    plain = message(f"bayer_{pattern}8", 12, 8)
    mosaic = np.frombuffer(plain.data, np.uint8).reshape(8, 12)
    source = _stored(mosaic, f"bayer_{pattern}8; png compressed ")
    assert np.array_equal(compressed_to_rgb(source), to_rgb(plain))


def test_a_16_bit_mosaic_becomes_colours_too() -> None:
    plain = message("bayer_rggb16", 12, 8)
    mosaic = np.frombuffer(plain.data, np.uint16).reshape(8, 12)
    assert np.array_equal(compressed_to_rgb(_stored(mosaic, "bayer_rggb16; png compressed ")), to_rgb(plain))


def test_millimetres_that_image_transport_compressed_are_shown_as_depth() -> None:
    depth = np.random.default_rng(0).integers(0, 9000, (10, 14)).astype(np.uint16)
    source = _stored(depth, "16UC1; png compressed ")
    assert np.array_equal(compressed_to_rgb(source), to_rgb(depth_message(depth, "16UC1")))


FORMS = [
    "jpeg",
    "png",
    "rgb8; jpeg compressed bgr8",
    "bgr8; png compressed bgr8",
    "bgra8; jpeg compressed bgr8",
    "mono8; png",
    "",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_every_form_of_image_transport_agrees_with_the_oracle(form: str, kind: str) -> None:
    smooth = np.asarray(PillowImage.fromarray(np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)).resize((64, 48)))
    source = _stored(smooth, form, kind)
    expected: np.ndarray = np.asarray(message_to_cvimage(source, "rgb8"))
    assert np.abs(compressed_to_rgb(source).astype(int) - expected.astype(int)).max() <= (0 if kind == "PNG" else 3)


def test_what_the_format_field_says_of_a_colour_picture_does_not_matter() -> None:
    source, picture = compressed("RGB", "PNG")
    source.format = "rgb8; jpeg compressed bgr8"
    assert np.array_equal(compressed_to_rgb(source), np.asarray(picture))


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@settings(max_examples=40, deadline=None)
@given(share=st.floats(0.0, 0.95))
def test_a_file_that_is_cut_short_is_a_bad_image(form: str, share: float) -> None:
    source, _ = compressed("RGB", form)
    source.data = source.data[: int(len(source.data) * share)]
    with pytest.raises(VlmError) as caught:
        compressed_to_rgb(source)
    assert caught.value.code is ErrorCode.BAD_IMAGE


@settings(max_examples=200, deadline=None)
@given(start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"]), rest=st.binary(max_size=200))
def test_any_bytes_are_a_picture_or_a_bad_image(start: bytes, rest: bytes) -> None:
    with pytest.raises(VlmError) as caught:
        compressed_to_rgb(CompressedImage(format="jpeg", data=array.array("B", start + rest)))
    assert caught.value.code is ErrorCode.BAD_IMAGE


def test_a_compressed_picture_that_claims_to_be_huge_is_not_decoded() -> None:
    stream = io.BytesIO()
    PillowImage.new("1", (9000, 9000)).save(stream, "PNG")
    with pytest.raises(VlmError, match="too large"):
        compressed_to_rgb(CompressedImage(format="png", data=array.array("B", stream.getvalue())))


def test_image_transports_own_depth_form_is_refused_by_name() -> None:
    with pytest.raises(VlmError, match="compressedDepth png"):
        compressed_to_rgb(CompressedImage(format="16UC1; compressedDepth png", data=array.array("B", b"x" * 50)))


STAND_IN = """
import numpy as np

class CvBridge:
    def imgmsg_to_cv2(self, message, desired_encoding):
        if message.encoding == "odd16":
            return np.zeros((1, 1), np.uint16)
        if message.encoding != "rgb565" or desired_encoding != "rgb8":
            raise ValueError("Unrecognized image encoding [" + message.encoding + "]")
        packed = np.frombuffer(message.data, "<u2").reshape(message.height, message.step // 2)[:, : message.width]
        return np.stack([packed >> 8 & 0xF8, packed >> 3 & 0xFC, packed << 3 & 0xF8], axis=-1).astype(np.uint8)
"""
"""What a robot's cv_bridge offers, for one encoding that is not read here."""


@pytest.fixture
def cv_bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "cv_bridge.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("cv_bridge", None)


def _rgb565() -> Image:
    made = Image(width=3, height=1, encoding="rgb565", step=6)
    made.data = array.array("B", np.array([0xF800, 0x07E0, 0x001F], "<u2").tobytes())
    return made


@pytest.mark.usefixtures("cv_bridge")
def test_an_encoding_outside_the_table_is_asked_of_the_robots_cv_bridge() -> None:
    assert to_rgb(_rgb565()).tolist() == [[[248, 0, 0], [0, 252, 0], [0, 0, 248]]]


@pytest.mark.usefixtures("cv_bridge")
def test_what_cv_bridge_does_not_know_either_is_a_bad_image_with_its_reason() -> None:
    with pytest.raises(VlmError, match=r"'rgb9' is not known.*cv_bridge cannot read it either: Unrecognized") as caught:
        to_rgb(_named(message("rgb8", 4, 4), "rgb9"))
    assert caught.value.code is ErrorCode.BAD_IMAGE


@pytest.mark.usefixtures("cv_bridge")
def test_what_cv_bridge_returns_is_checked() -> None:
    with pytest.raises(VlmError, match="odd16"):
        to_rgb(_named(message("rgb8", 4, 4), "odd16"))


def test_without_cv_bridge_the_line_names_the_encoding_and_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    with pytest.raises(VlmError, match=r"'rgb565' is not known; known are rgb8, .*nv12") as caught:
        to_rgb(_rgb565())
    assert caught.value.code is ErrorCode.BAD_IMAGE

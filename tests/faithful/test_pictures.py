"""Pictures of every shape reach the tower as the official code prepares them, and PyTorch and ONNX Runtime see the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from mobilevlm_ros.checkpoint.config import VisionConfig
from mobilevlm_ros.checkpoint.model import normalise
from mobilevlm_ros.export.convert import ConvertOptions, convert
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import letterbox
from mobilevlm_ros.runtime.ort_backend import OrtBackend
from mobilevlm_ros.runtime.package import ModelPackage
from tests.faithful.oracle import Oracle
from tests.faithful.pictures import CLIP_MEAN, CLIP_STD, noise, official_pixels, square
from tests.faithful.released import TOKENIZER, Sizes, draw, write
from tests.parity import PARITY, relative

TOLERANCE = 1e-5
"""What the recorded picture's pixel values agree to."""

SHAPES = {
    "landscape": (640, 480),
    "portrait": (480, 640),
    "square": (400, 400),
    "the tower's own size": (336, 336),
    "smaller than the tower": (97, 60),
    "much smaller": (3, 2),
    "larger, odd sides": (1001, 667),
    "odd beside even": (335, 336),
    "wide camera": (1920, 1080),
    "one pixel wide": (1, 300),
    "one pixel high": (555, 1),
    "one pixel": (1, 1),
    "two by one": (2, 1),
    "a strip": (1200, 9),
}
RECORDED = Sizes("ldpnetv2", tower_width=48, tower_mlp=96, image_size=336)


def prepared(picture: Image.Image, size: int = 336) -> np.ndarray:
    """The runtime's picture, normalised as the graph does: float32 [1, 3, size, size]."""
    pixels = letterbox(Frame(np.asarray(picture)), size, (122, 116, 104))
    return normalise(torch.tensor(pixels[None]), VisionConfig.clip_vit_l_336()).numpy()


def library_pixels(picture: Image.Image, size: int = 336) -> np.ndarray:
    """The processor of `transformers`, with the settings of CLIP ViT-L/14-336, on the squared picture."""
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        resample=Image.Resampling.BICUBIC,
        image_mean=list(CLIP_MEAN),
        image_std=list(CLIP_STD),
    )
    return np.asarray(processor(square(picture), return_tensors="np")["pixel_values"])


def test_the_definition_gives_the_recorded_pixel_values() -> None:
    picture = Image.open(PARITY / "image.png").convert("RGB")
    for name in ("ldpnet", "ldpnetv2"):
        with np.load(PARITY / name / "golden.npz") as golden:
            found = official_pixels(picture, 336).ravel()[golden["pixel_index"]]
            assert abs(found - golden["pixel_values"]).max() < TOLERANCE


@pytest.mark.parametrize("name", SHAPES)
def test_pixel_values_are_those_of_the_definition_and_of_the_library(name: str) -> None:
    picture = noise(*SHAPES[name])
    assert abs(prepared(picture) - official_pixels(picture, 336)).max() < TOLERANCE
    assert abs(prepared(picture) - library_pixels(picture)).max() < TOLERANCE


@given(width=st.integers(1, 500), height=st.integers(1, 500), size=st.sampled_from([14, 98, 224, 336]))
@settings(max_examples=25)
def test_pixel_values_of_any_picture_are_those_of_the_library(width: int, height: int, size: int) -> None:
    picture = noise(width, height, width)
    assert abs(prepared(picture, size) - library_pixels(picture, size)).max() < TOLERANCE


@pytest.mark.parametrize("name", ["landscape", "portrait", "one pixel wide"])
def test_a_picture_that_is_a_view_of_another_array_is_read_as_it_looks(name: str) -> None:
    pixels = np.asarray(noise(*SHAPES[name]))
    turned = letterbox(Frame(np.rot90(pixels)), 336, (122, 116, 104))
    np.testing.assert_array_equal(turned, letterbox(Frame(np.rot90(pixels).copy()), 336, (122, 116, 104)))
    bgr = letterbox(Frame(pixels[:, :, ::-1]), 336, (122, 116, 104))
    np.testing.assert_array_equal(bgr, letterbox(Frame(pixels[:, :, ::-1].copy()), 336, (122, 116, 104)))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Oracle, OrtBackend]:
    """One checkpoint in PyTorch and, converted, in ONNX Runtime."""
    folder: Path = tmp_path_factory.mktemp("pictures")
    weights = draw(RECORDED, 6)
    convert(write(folder / "checkpoint", RECORDED, weights), folder / "package", ConvertOptions(verify=False))
    return Oracle(RECORDED, weights, TOKENIZER), OrtBackend(ModelPackage.open(folder / "package"), threads=1)


@pytest.mark.parametrize("name", SHAPES)
def test_features_are_the_same_in_pytorch_and_onnx_runtime(both: tuple[Oracle, OrtBackend], name: str) -> None:
    oracle, backend = both
    picture = noise(*SHAPES[name])
    found = backend.encode(letterbox(Frame(np.asarray(picture)), 336, (122, 116, 104))[None])
    assert relative(found, oracle.features(picture).numpy()) < TOLERANCE


def test_two_pictures_encoded_at_once_do_not_see_each_other(both: tuple[Oracle, OrtBackend]) -> None:
    oracle, backend = both
    pictures = [noise(*SHAPES[name]) for name in ("landscape", "one pixel wide")]
    pixels = np.stack([letterbox(Frame(np.asarray(picture)), 336, (122, 116, 104)) for picture in pictures])
    for found, picture in zip(backend.encode(pixels), pictures):
        assert relative(found[None], oracle.features(picture).numpy()) < TOLERANCE

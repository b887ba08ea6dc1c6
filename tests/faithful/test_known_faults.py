"""The faults of other runtimes' MobileVLM are not in the exported graphs: none of the wrong encoders agrees with them.

The list begins with what llama.cpp's clip path did (its issues 25814 and 25817, and what was mended before them).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mobilevlm_ros.export.convert import ConvertOptions, convert
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import letterbox
from mobilevlm_ros.runtime.ort_backend import OrtBackend
from mobilevlm_ros.runtime.package import ModelPackage
from tests.faithful.faults import V1_ONLY, V2_ONLY, Fault, features
from tests.faithful.oracle import Oracle
from tests.faithful.pictures import noise
from tests.faithful.released import PROJECTOR, TOKENIZER, TOWER, Sizes, draw, write
from tests.parity import relative

TOLERANCE = 5e-6
# Other projectors' sizes are as small as their grids allow; the tower has as many layers as the released one.
SIZES = {
    projector: Sizes(projector, tower_layers=24, tower_width=16, tower_heads=2, tower_mlp=24, image_size=336, layers=1)
    for projector in ("ldpnet", "ldpnetv2")
}
# Portrait, 3 to 4 and odd, so that centring and the rounding of the offset show.
PICTURE = noise(363, 485, 3)
CASES = [(name, fault) for name, other in (("ldpnet", V2_ONLY), ("ldpnetv2", V1_ONLY)) for fault in Fault if fault not in other]


def weights_of(sizes: Sizes) -> dict[str, Tensor]:
    """Random weights with which the projector's activation is asked about -3 to 3, where the kinds of GELU differ."""
    weights = draw(sizes, seed=4)
    for first in (f"{PROJECTOR}model.mlp.1.weight", f"{PROJECTOR}mlp.mlp.0.weight"):
        if first in weights:
            weights[first] *= 0.1
    return weights


def encode(folder: Path, sizes: Sizes, weights: dict[str, Tensor], picture: Image.Image) -> np.ndarray:
    """Converts and encodes one picture as the runtime does."""
    write(folder / "checkpoint", sizes, weights)
    convert(folder / "checkpoint", folder / "package", ConvertOptions(verify=False))
    package = ModelPackage.open(folder / "package")
    vision = package.manifest.vision
    pixels = letterbox(Frame(np.asarray(picture)), vision.image_size, vision.pad_color)
    return OrtBackend(package, threads=1).encode(pixels[None])


Exported = Callable[[str], np.ndarray]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The features that the exported encoder makes of PICTURE, by projector."""
    made = {name: encode(tmp_path_factory.mktemp(name), sizes, weights_of(sizes), PICTURE) for name, sizes in SIZES.items()}
    return made.__getitem__


@pytest.mark.parametrize("projector", SIZES)
def test_the_encoder_written_out_is_that_of_the_libraries(projector: str) -> None:
    sizes, weights = SIZES[projector], weights_of(SIZES[projector])
    expected = Oracle(sizes, weights, TOKENIZER).features(PICTURE).numpy()
    assert relative(features(PICTURE, weights, sizes).numpy(), expected) < TOLERANCE


@pytest.mark.parametrize("projector", SIZES)
def test_the_exported_encoder_is_the_one_written_out(exported: Exported, projector: str) -> None:
    expected = features(PICTURE, weights_of(SIZES[projector]), SIZES[projector]).numpy()
    assert relative(exported(projector), expected) < TOLERANCE


@pytest.mark.parametrize(("projector", "fault"), CASES, ids=[f"{name}-{fault.name.lower()}" for name, fault in CASES])
def test_an_encoder_with_a_known_fault_would_be_noticed(exported: Exported, projector: str, fault: Fault) -> None:
    wrong = features(PICTURE, weights_of(SIZES[projector]), SIZES[projector], fault).numpy()
    assert relative(exported(projector), wrong) > 10 * TOLERANCE, fault.value


def perturbed(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights with everything below a prefix drawn anew."""
    generator = torch.Generator().manual_seed(99)
    new = {name: torch.randn(values.shape, generator=generator) for name, values in weights.items() if name.startswith(prefix)}
    assert new
    return {**weights, **new}


@pytest.mark.parametrize(
    ("part", "counts"),
    [("encoder.layers.23.", False), ("post_layernorm.", False), ("encoder.layers.22.", True), ("encoder.layers.0.", True)],
)
def test_exactly_the_first_23_of_24_tower_layers_count(tmp_path: Path, exported: Exported, part: str, counts: bool) -> None:
    sizes = SIZES["ldpnetv2"]
    changed = encode(tmp_path, sizes, perturbed(weights_of(sizes), TOWER + part), PICTURE)
    assert np.array_equal(changed, exported("ldpnetv2")) is not counts


def test_the_class_token_has_the_first_position_and_only_works_through_attention(tmp_path: Path) -> None:
    """Class embedding and first position are added before anything else: what one loses the other can give."""
    sizes = replace(SIZES["ldpnetv2"], tower_layers=3)
    weights = weights_of(sizes)
    token, positions = f"{TOWER}embeddings.class_embedding", f"{TOWER}embeddings.position_embedding.weight"
    before = encode(tmp_path / "a", sizes, weights, PICTURE)
    shift = torch.linspace(-1, 1, sizes.tower_width)
    moved = {**weights, token: weights[token] + shift, positions: weights[positions].clone()}
    moved[positions][0] -= shift
    assert relative(encode(tmp_path / "b", sizes, moved, PICTURE), before) < TOLERANCE
    moved[positions][0] += shift
    assert relative(encode(tmp_path / "c", sizes, moved, PICTURE), before) > 10 * TOLERANCE


@pytest.mark.parametrize("size", [(336, 251), (251, 336), (7, 336), (336, 7), (101, 100), (100, 101)])
def test_padding_is_centred_with_the_odd_row_behind_the_picture(size: tuple[int, int]) -> None:
    width, height = size
    side = max(size)
    white = Image.new("RGB", size, (255, 255, 255))
    found = letterbox(Frame(np.asarray(white)), side, (122, 116, 104))
    left, top = (side - width) // 2, (side - height) // 2
    expected = np.full((side, side, 3), (122, 116, 104), np.uint8)
    expected[top : top + height, left : left + width] = 255
    np.testing.assert_array_equal(found, expected)

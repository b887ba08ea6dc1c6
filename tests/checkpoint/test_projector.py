"""The two projectors: sizes, arithmetic, the released names."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mobilevlm_ros.checkpoint.config import ProjectorKind
from mobilevlm_ros.checkpoint.projector import (
    ChannelLayerNorm,
    InvertedResidual,
    LDPNetProjector,
    LDPNetV2Projector,
    SqueezeExcite,
    make_projector,
    squeeze_width,
)


@pytest.mark.parametrize(
    ("kind", "width", "published"),
    [
        (ProjectorKind.LDP, 2048, 18_936_832),
        (ProjectorKind.LDP, 2560, 28_913_920),
        (ProjectorKind.LDP_V2, 2048, 6_316_032),
        (ProjectorKind.LDP_V2, 2560, 9_205_760),
        (ProjectorKind.LDP_V2, 4096, 21_020_672),
    ],
)
def test_the_released_sizes_have_the_published_number_of_parameters(kind: ProjectorKind, width: int, published: int) -> None:
    with torch.device("meta"):
        projector = make_projector(kind, 1024, width)
    assert sum(parameter.numel() for parameter in projector.parameters()) == published


@given(st.integers(8, 1000).map(lambda eighths: 8 * eighths))
def test_the_squeeze_is_about_a_quarter_in_eights(width: int) -> None:
    squeezed = squeeze_width(width)
    assert squeezed % 8 == 0
    assert squeezed >= 0.9 * (width // 4)
    assert abs(squeezed - width / 4) <= 8


@pytest.mark.parametrize(("width", "squeezed"), [(64, 16), (80, 24), (2048, 512), (2560, 640)])
def test_the_squeeze_of_known_widths(width: int, squeezed: int) -> None:
    assert squeeze_width(width) == squeezed


@pytest.mark.parametrize(("grid", "tokens"), [(24, 144), (12, 36), (7, 16)])
def test_ldp_halves_the_grid(grid: int, tokens: int) -> None:
    assert LDPNetProjector(8, 16)(torch.rand(2, grid**2, 8)).shape == (2, tokens, 16)


@pytest.mark.parametrize("grid", [24, 16, 12, 10])
def test_ldp_v2_always_gives_144_tokens(grid: int) -> None:
    assert LDPNetV2Projector(8, 16)(torch.rand(2, grid**2, 8)).shape == (2, 144, 16)


def test_patches_that_make_no_square_are_refused() -> None:
    with pytest.raises(ValueError, match="143 patches"):
        LDPNetV2Projector(8, 16)(torch.rand(1, 143, 8))


def test_rows_and_columns_of_patches_keep_their_places() -> None:
    projector = LDPNetV2Projector(1, 1)
    for parameter in projector.parameters():
        nn.init.zeros_(parameter)
    nn.init.ones_(projector.mlp.mlp[0].weight)
    nn.init.ones_(projector.mlp.mlp[2].weight)
    patches = torch.zeros(1, 24, 24, 1)
    patches[0, 4:6, 10:12] = 10.0  # where GELU is the identity
    tokens = projector(patches.reshape(1, 576, 1)).detach().reshape(12, 12)
    assert tokens[2, 5] == pytest.approx(10.0)
    assert tokens.sum() == pytest.approx(10.0)


def test_the_position_convolution_is_added_to_its_input() -> None:
    projector = LDPNetV2Projector(4, 4)
    patches = torch.rand(1, 144, 4)
    nn.init.zeros_(projector.peg.peg[0].weight)
    nn.init.zeros_(projector.peg.peg[0].bias)
    torch.testing.assert_close(projector(patches), projector.mlp(patches))


def test_the_channel_norm_works_at_every_position_on_its_own() -> None:
    features = torch.rand(1, 6, 2, 3)
    normed = ChannelLayerNorm(6)(features)
    torch.testing.assert_close(normed.mean(1), torch.zeros(1, 2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normed[:, :, 1, 2], nn.functional.layer_norm(features[:, :, 1, 2], (6,)))


def test_squeeze_excite_with_no_weights_halves() -> None:
    gate = SqueezeExcite(8)
    for parameter in gate.parameters():
        nn.init.zeros_(parameter)
    features = torch.rand(1, 8, 2, 2)
    torch.testing.assert_close(gate(features), features / 2)


@pytest.mark.parametrize(("stride", "kept"), [(1, 1.0), (2, 0.0)])
def test_only_the_block_that_keeps_the_size_adds_its_input(stride: int, kept: float) -> None:
    block = InvertedResidual(8, stride)
    nn.init.zeros_(block.block[2][1].weight)
    nn.init.zeros_(block.block[2][1].bias)
    features = torch.rand(1, 8, 4, 4)
    torch.testing.assert_close(block(features), kept * features[:, :, ::stride, ::stride])

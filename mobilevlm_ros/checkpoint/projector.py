"""The projectors that turn the vision tower's patches into the language model's visual tokens: LDP and LDPv2.

The modules' parameter names are the released ones below `model.mm_projector.`, so that state dicts load strictly. Architecture:
the MobileVLM papers (arXiv 2312.16886, section 3.3; arXiv 2402.03766, section 3.2). Knows nothing of the tower and of Llama.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mobilevlm_ros.checkpoint.config import ProjectorKind

CHANNEL_NORM_EPS = 1e-5
POOLED_GRID = 12


def make_projector(kind: ProjectorKind, vision_width: int, width: int) -> LDPNetProjector | LDPNetV2Projector:
    """The projector of a kind, with random weights, from `vision_width` to `width` channels."""
    if kind is ProjectorKind.LDP:
        return LDPNetProjector(vision_width, width)
    return LDPNetV2Projector(vision_width, width)


def squeeze_width(width: int) -> int:
    """Channels inside the squeeze-excite of LDP: a quarter, rounded to a multiple of 8 and never under 90% (MobileNetV3)."""
    quarter = width // 4
    rounded = max(8, (quarter + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * quarter else rounded


def _to_map(tokens: Tensor) -> Tensor:
    """[N, grid * grid, C] tokens in rows, left to right, as a map [N, C, grid, grid]."""
    count, length, width = tokens.shape
    grid = math.isqrt(length)
    if grid * grid != length:
        raise ValueError(f"{length} patches do not make a square")
    return tokens.transpose(1, 2).reshape(count, width, grid, grid)


def _to_tokens(features: Tensor) -> Tensor:
    """The inverse of `_to_map`."""
    return features.flatten(2).transpose(1, 2)


class ChannelLayerNorm(nn.LayerNorm):
    """Layer normalisation over the channels of a map [N, C, H, W], at every position on its own."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=CHANNEL_NORM_EPS)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SqueezeExcite(nn.Module):
    """Scales each channel of a map by a gate computed from all channels' means."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = squeeze_width(width)
        self.fc1 = nn.Conv2d(width, inner, 1)
        self.fc2 = nn.Conv2d(inner, width, 1)

    def forward(self, features: Tensor) -> Tensor:
        gate = torch.relu(self.fc1(features.mean((2, 3), keepdim=True)))
        return features * nn.functional.hardsigmoid(self.fc2(gate))


class InvertedResidual(nn.Module):
    """A depthwise 3x3 convolution, squeeze-excite and a pointwise convolution; with stride 1 the input is added."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        depthwise = nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=width, bias=False)
        pointwise = nn.Conv2d(width, width, 1, bias=False)
        self.block = nn.Sequential(
            nn.Sequential(depthwise, ChannelLayerNorm(width), nn.Hardswish()),
            SqueezeExcite(width),
            nn.Sequential(pointwise, ChannelLayerNorm(width)),
        )

    def forward(self, features: Tensor) -> Tensor:
        result = self.block(features)
        return features + result if self.stride == 1 else result


class _LDP(nn.Module):
    """LDP itself; the released names put it one level below the projector."""

    def __init__(self, vision_width: int, width: int) -> None:
        super().__init__()
        # The released names count from 1: the official code begins both sequences with an identity.
        self.mlp = nn.Sequential(nn.Identity(), nn.Linear(vision_width, width), nn.GELU(), nn.Linear(width, width))
        self.mb_block = nn.Sequential(nn.Identity(), InvertedResidual(width, 1), InvertedResidual(width, 2))

    def forward(self, patches: Tensor) -> Tensor:
        return _to_tokens(self.mb_block(_to_map(self.mlp(patches))))


class LDPNetProjector(nn.Module):
    """LDP (`ldpnet`, MobileVLM V1): [N, grid * grid, vision_width] to [N, (grid / 2)**2, width], the grid rounded up."""

    def __init__(self, vision_width: int, width: int) -> None:
        super().__init__()
        self.model = _LDP(vision_width, width)

    def forward(self, patches: Tensor) -> Tensor:
        return self.model(patches)


class _FeatureMLP(nn.Module):
    def __init__(self, vision_width: int, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(vision_width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, patches: Tensor) -> Tensor:
        return self.mlp(patches)


class _PositionConvolution(nn.Module):
    """A depthwise 3x3 convolution added to its input: the position-encoding generator of LDPv2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.peg = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width))

    def forward(self, features: Tensor) -> Tensor:
        return self.peg(features) + features


class LDPNetV2Projector(nn.Module):
    """LDPv2 (`ldpnetv2`, MobileVLM V2): [N, grid * grid, vision_width] to [N, 144, width], whatever the grid."""

    def __init__(self, vision_width: int, width: int) -> None:
        super().__init__()
        self.mlp = _FeatureMLP(vision_width, width)
        self.peg = _PositionConvolution(width)

    def forward(self, patches: Tensor) -> Tensor:
        features = _to_map(self.mlp(patches))
        return _to_tokens(self.peg(nn.functional.adaptive_avg_pool2d(features, POOLED_GRID)))

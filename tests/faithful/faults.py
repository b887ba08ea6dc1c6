"""MobileVLM's encoder written out step by step, with faults that other runtimes had or could have, switched on one at a time.

A test that compares a package with the right encoder is worth something only if each of these wrong ones would fail it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tests.faithful.oracle import as_map, as_tokens, gelu
from tests.faithful.pictures import official_pixels, square
from tests.faithful.released import PROJECTOR, TOWER, Sizes


class Fault(Enum):
    """What is done wrong; the value says it as llama.cpp's reports do."""

    ONE_LAYER_TOO_FEW = "22 of 24 tower layers instead of 23"
    ALL_LAYERS = "24 of 24 tower layers instead of 23"
    POST_NORM = "the tower's last norm behind the selected layer"
    NO_PRE_NORM = "no norm before the tower's first layer"
    CLASS_LAST = "the class token behind the patches, whose positions assume it before them"
    CLASS_KEPT = "the last patch dropped instead of the class token"
    NO_CLASS = "no class token at all"
    POSITIONS_FROM_ZERO = "patches with the positions from 0 on"
    EXACT_GELU_IN_TOWER = "exact GELU in the tower instead of quick GELU"
    TANH_GELU = "tanh GELU in the projector instead of the exact one"
    QUICK_GELU = "quick GELU in the projector instead of the exact one"
    COLUMNS_FIRST = "patches read column by column"
    PADDED_TOP_LEFT = "the picture at the top left of its square"
    PADDED_BLACK = "padding in black"
    ROUNDED_PADDING = "padding in the rounded mean colour instead of the cut-off one"
    STRETCHED = "the picture stretched to a square"
    CROPPED = "the middle cut out instead of padding"
    BILINEAR = "bilinear resize"
    NOT_ANTIALIASED = "bicubic resize without antialiasing"
    BLUE_FIRST = "blue before red"
    NO_SQUEEZE = "V1: no squeeze-excite"
    SIGMOID_GATE = "V1: a sigmoid in the squeeze-excite instead of the hard one"
    SILU = "V1: SiLU instead of Hardswish"
    NORM_OVER_ALL = "V1: a norm over the whole map instead of each position's channels"
    NO_RESIDUAL = "the input not added: V1's first block, V2's position convolution"
    RESIDUAL_TWICE = "V1: the input added in the second block too"
    STRIDE_FIRST = "V1: the grid halved by the first block instead of the second"
    EVERY_SECOND_PATCH = "V2: every second patch instead of the mean of four"


V1_ONLY = {fault for fault in Fault if fault.value.startswith("V1:")}
V2_ONLY = {fault for fault in Fault if fault.value.startswith("V2:")}


def pixels(picture: Image.Image, sizes: Sizes, fault: Fault | None) -> Tensor:
    """Normalised float32 [1, 3, S, S]."""
    size, side = sizes.image_size, max(picture.size)
    if fault in (Fault.PADDED_TOP_LEFT, Fault.PADDED_BLACK, Fault.ROUNDED_PADDING):
        colours = {Fault.PADDED_TOP_LEFT: (122, 116, 104), Fault.PADDED_BLACK: (0, 0, 0), Fault.ROUNDED_PADDING: (123, 117, 104)}
        place = (0, 0) if fault is Fault.PADDED_TOP_LEFT else ((side - picture.width) // 2, (side - picture.height) // 2)
        canvas = Image.new("RGB", (side, side), colours[fault])
        canvas.paste(picture, place)
        picture = canvas
    elif fault is Fault.STRETCHED:
        picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    elif fault is Fault.CROPPED:
        short = min(picture.size)
        left, top = (picture.width - short) // 2, (picture.height - short) // 2
        picture = picture.crop((left, top, left + short, top + short))
    elif fault is Fault.BILINEAR:
        picture = square(picture).resize((size, size), Image.Resampling.BILINEAR)
    elif fault is Fault.NOT_ANTIALIASED:
        whole = torch.from_numpy(np.array(square(picture), np.float32)).permute(2, 0, 1)[None]
        resized = F.interpolate(whole, (size, size), mode="bicubic", align_corners=False).round().clamp(0, 255)
        picture = Image.fromarray(resized[0].permute(1, 2, 0).numpy().astype(np.uint8))
    if fault is Fault.BLUE_FIRST:
        picture = Image.fromarray(np.ascontiguousarray(np.asarray(square(picture))[:, :, ::-1]))
    return torch.from_numpy(official_pixels(picture, size))


def patches(planes: Tensor, weights: Mapping[str, Tensor], sizes: Sizes, fault: Fault | None) -> Tensor:
    """The tower: [1, 3, S, S] to [1, grid * grid, width], after all layers but the last, without the class token."""

    def get(name: str) -> Tensor:
        return weights[TOWER + name]

    maps = F.conv2d(planes, get("embeddings.patch_embedding.weight"), stride=sizes.patch_size)
    found = as_tokens(maps.transpose(2, 3) if fault is Fault.COLUMNS_FIRST else maps)
    token, positions = get("embeddings.class_embedding")[None, None], get("embeddings.position_embedding.weight")
    if fault is Fault.NO_CLASS:
        hidden = found + positions[1:]
    elif fault is Fault.CLASS_LAST:
        hidden = torch.cat([found, token], 1) + positions
    elif fault is Fault.POSITIONS_FROM_ZERO:
        hidden = torch.cat([token, found], 1) + torch.cat([positions[-1:], positions[:-1]])
    else:
        hidden = torch.cat([token, found], 1) + positions
    if fault is not Fault.NO_PRE_NORM:
        hidden = _norm(hidden, get("pre_layrnorm.weight"), get("pre_layrnorm.bias"))
    unused = 0 if fault is Fault.ALL_LAYERS else 2 if fault is Fault.ONE_LAYER_TOO_FEW else 1
    for layer in range(sizes.tower_layers - unused):
        hidden = _tower_layer(hidden, weights, f"{TOWER}encoder.layers.{layer}.", sizes.tower_heads, fault)
    if fault is Fault.POST_NORM:
        hidden = _norm(hidden, get("post_layernorm.weight"), get("post_layernorm.bias"))
    if fault is Fault.NO_CLASS:
        return hidden
    return hidden[:, :-1] if fault in (Fault.CLASS_LAST, Fault.CLASS_KEPT) else hidden[:, 1:]


def _tower_layer(hidden: Tensor, weights: Mapping[str, Tensor], prefix: str, heads: int, fault: Fault | None) -> Tensor:
    def linear(values: Tensor, name: str) -> Tensor:
        return F.linear(values, weights[f"{prefix}{name}.weight"], weights[f"{prefix}{name}.bias"])

    def norm(name: str) -> Tensor:
        return _norm(hidden, weights[f"{prefix}{name}.weight"], weights[f"{prefix}{name}.bias"])

    inner = norm("layer_norm1")
    queries, keys, values = (
        linear(inner, f"self_attn.{part}_proj").unflatten(2, (heads, -1)).transpose(1, 2) for part in ("q", "k", "v")
    )
    shares = (queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[-1])).softmax(-1)
    hidden = hidden + linear((shares @ values).transpose(1, 2).flatten(2), "self_attn.out_proj")
    inner = linear(norm("layer_norm2"), "mlp.fc1")
    inner = gelu(inner) if fault is Fault.EXACT_GELU_IN_TOWER else inner * torch.sigmoid(1.702 * inner)
    return hidden + linear(inner, "mlp.fc2")


def features(picture: Image.Image, weights: Mapping[str, Tensor], sizes: Sizes, fault: Fault | None = None) -> Tensor:
    """Visual tokens [1, count, hidden] of a picture, with a fault or without."""
    with torch.no_grad():
        found = patches(pixels(picture, sizes, fault), weights, sizes, fault)
        return (_ldp if sizes.projector == "ldpnet" else _ldp_v2)(found, weights, fault)


def _activation(values: Tensor, fault: Fault | None) -> Tensor:
    if fault is Fault.TANH_GELU:
        return F.gelu(values, approximate="tanh")
    return values * torch.sigmoid(1.702 * values) if fault is Fault.QUICK_GELU else gelu(values)


def _ldp(found: Tensor, weights: Mapping[str, Tensor], fault: Fault | None) -> Tensor:
    def get(name: str) -> Tensor:
        return weights[f"{PROJECTOR}model.{name}"]

    def norm(maps: Tensor, name: str) -> Tensor:
        scale, shift = get(f"{name}.weight")[:, None, None], get(f"{name}.bias")[:, None, None]
        if fault is Fault.NORM_OVER_ALL:
            return F.layer_norm(maps, maps.shape[1:]) * scale + shift
        return F.layer_norm(maps.permute(0, 2, 3, 1), maps.shape[1:2]).permute(0, 3, 1, 2) * scale + shift

    def block(maps: Tensor, name: str, stride: int) -> Tensor:
        maps = F.conv2d(maps, get(f"{name}.0.0.weight"), stride=stride, padding=1, groups=maps.shape[1])
        maps = norm(maps, f"{name}.0.1")
        maps = F.silu(maps) if fault is Fault.SILU else F.hardswish(maps)
        if fault is not Fault.NO_SQUEEZE:
            gate = F.relu(F.conv2d(maps.mean((2, 3), keepdim=True), get(f"{name}.1.fc1.weight"), get(f"{name}.1.fc1.bias")))
            gate = F.conv2d(gate, get(f"{name}.1.fc2.weight"), get(f"{name}.1.fc2.bias"))
            maps = maps * (torch.sigmoid(gate) if fault is Fault.SIGMOID_GATE else F.hardsigmoid(gate))
        return norm(F.conv2d(maps, get(f"{name}.2.0.weight")), f"{name}.2.1")

    hidden = _activation(F.linear(found, get("mlp.1.weight"), get("mlp.1.bias")), fault)
    maps = as_map(F.linear(hidden, get("mlp.3.weight"), get("mlp.3.bias")))
    strides = (2, 1) if fault is Fault.STRIDE_FIRST else (1, 2)
    first = block(maps, "mb_block.1.block", strides[0])
    kept = maps[:, :, :: strides[0], :: strides[0]]
    maps = first if fault is Fault.NO_RESIDUAL else first + kept
    second = block(maps, "mb_block.2.block", strides[1])
    return as_tokens(second + maps[:, :, ::2, ::2] if fault is Fault.RESIDUAL_TWICE else second)


def _ldp_v2(found: Tensor, weights: Mapping[str, Tensor], fault: Fault | None) -> Tensor:
    def get(name: str) -> Tensor:
        return weights[PROJECTOR + name]

    hidden = _activation(F.linear(found, get("mlp.mlp.0.weight"), get("mlp.mlp.0.bias")), fault)
    maps = as_map(F.linear(hidden, get("mlp.mlp.2.weight"), get("mlp.mlp.2.bias")))
    maps = maps[:, :, ::2, ::2] if fault is Fault.EVERY_SECOND_PATCH else F.avg_pool2d(maps, 2)
    near = F.conv2d(maps, get("peg.peg.0.weight"), get("peg.peg.0.bias"), padding=1, groups=maps.shape[1])
    return as_tokens(near if fault is Fault.NO_RESIDUAL else near + maps)


def _norm(values: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.layer_norm(values, values.shape[-1:], scale, shift, 1e-5)

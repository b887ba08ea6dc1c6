"""The graph from a letterboxed picture to visual tokens: normalisation, CLIP tower, projector.

Standard operators; attention may be written by a runtime's own (`cpu_dialect.tower_attention`). The tower's layers behind the
selected one are not exported. Knows the architecture; mirrors `checkpoint.model.MobileVLM.encode_images`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mobilevlm_ros.checkpoint.config import MobileVlmConfig, ProjectorKind, VisionConfig
from mobilevlm_ros.checkpoint.model import PROJECTOR_PREFIX, VISION_PREFIX
from mobilevlm_ros.checkpoint.projector import CHANNEL_NORM_EPS
from mobilevlm_ros.export.onnx_builder import GraphBuilder

TowerAttention = Callable[[GraphBuilder, VisionConfig, str, str, str], str]
"""Writes full self-attention: queries, keys and values [N, T, width] in, what they are mixed to in the same shape out."""


def standard_attention(graph: GraphBuilder, vision: VisionConfig, queries: str, keys: str, values: str) -> str:
    """Attention in standard operators; see `TowerAttention`."""
    split = graph.constant([0, 0, vision.num_attention_heads, vision.head_dim], "int64")

    def heads(value: str, order: list[int]) -> str:
        return graph.node("Transpose", graph.node("Reshape", value, split), perm=order)

    scaled = graph.node("Mul", heads(queries, [0, 2, 1, 3]), graph.constant(vision.head_dim**-0.5))
    shares = graph.node("Softmax", graph.node("MatMul", scaled, heads(keys, [0, 2, 3, 1])), axis=-1)
    mixed = graph.node("Transpose", graph.node("MatMul", shares, heads(values, [0, 2, 1, 3])), perm=[0, 2, 1, 3])
    return graph.node("Reshape", mixed, graph.constant([0, 0, vision.hidden_size], "int64"))


def build_vision(graph: GraphBuilder, config: MobileVlmConfig, attention: TowerAttention = standard_attention) -> None:
    """Adds input `pixels` uint8 [N, S, S, 3] RGB and output `features` float32 [N, image_tokens, hidden] to an empty graph."""
    size = config.vision.image_size
    pixels = graph.input("pixels", "uint8", ["N", size, size, 3])
    patches = _tower(graph, config, attention, _normalise(graph, config.vision, pixels))
    if config.projector is ProjectorKind.LDP:
        features = _ldp(graph, config, patches)
    else:
        features = _ldp_v2(graph, config, patches)
    graph.output("features", features, ["N", config.image_tokens, config.hidden_size])


def _normalise(graph: GraphBuilder, config: VisionConfig, pixels: str) -> str:
    """uint8 [N, S, S, 3] to normalised float [N, 3, S, S]."""
    # The Cast comes first: TensorRT takes bytes from outside, but computes with none.
    planes = graph.node("Transpose", graph.node("Cast", pixels, to=1), perm=[0, 3, 1, 2])
    unit = graph.node("Div", planes, graph.constant(255.0))
    centred = graph.node("Sub", unit, graph.constant(np.reshape(config.image_mean, (3, 1, 1))))
    return graph.node("Div", centred, graph.constant(np.reshape(config.image_std, (3, 1, 1))))


def _tower(graph: GraphBuilder, config: MobileVlmConfig, attention: TowerAttention, planes: str) -> str:
    """Normalised [N, 3, S, S] to the patches' features [N, grid * grid, vision width], without the class token."""
    vision, prefix = config.vision, VISION_PREFIX
    kernel = [vision.patch_size, vision.patch_size]
    maps = graph.node(
        "Conv", planes, graph.weight(f"{prefix}embeddings.patch_embedding.weight"), kernel_shape=kernel, strides=kernel
    )
    patches = _to_tokens(graph, maps, vision.hidden_size)
    # The class token comes first: a row of zeros makes its place, and its embedding is part of that row's position.
    padded = graph.node("Pad", patches, graph.constant([0, 1, 0, 0, 0, 0], "int64"))
    hidden = graph.node("Add", padded, _positions(graph, prefix))
    hidden = _layer_norm(graph, hidden, f"{prefix}pre_layrnorm", vision.layer_norm_eps)
    for layer in range(config.vision_layers_used):
        hidden = _tower_layer(graph, vision, attention, hidden, f"{prefix}encoder.layers.{layer}.")
    starts, ends = graph.constant([1], "int64"), graph.constant([vision.grid**2 + 1], "int64")
    return graph.node("Slice", hidden, starts, ends, graph.constant([1], "int64"))


def _positions(graph: GraphBuilder, prefix: str) -> str:
    """Position embeddings [1 + grid * grid, width] with the class embedding added to the first."""
    position, token = f"{prefix}embeddings.position_embedding.weight", f"{prefix}embeddings.class_embedding"

    def read() -> np.ndarray:
        table = np.array(graph.read(position))
        table[0] += graph.read(token)
        return table

    return graph.derived(position, graph.tensors.shape(position), read, exact=True)


def _tower_layer(graph: GraphBuilder, vision: VisionConfig, attention: TowerAttention, hidden: str, prefix: str) -> str:
    normed = _layer_norm(graph, hidden, f"{prefix}layer_norm1", vision.layer_norm_eps)
    queries, keys, values = (_linear(graph, normed, f"{prefix}self_attn.{part}_proj") for part in "qkv")
    mixed = attention(graph, vision, queries, keys, values)
    hidden = graph.node("Add", hidden, _linear(graph, mixed, f"{prefix}self_attn.out_proj"))
    normed = _layer_norm(graph, hidden, f"{prefix}layer_norm2", vision.layer_norm_eps)
    inner = _linear(graph, normed, f"{prefix}mlp.fc1")
    inner = _quick_gelu(graph, inner) if vision.hidden_act == "quick_gelu" else _gelu(graph, inner)
    return graph.node("Add", hidden, _linear(graph, inner, f"{prefix}mlp.fc2"))


def _ldp(graph: GraphBuilder, config: MobileVlmConfig, patches: str) -> str:
    """LDP. Everything but the depthwise convolutions works on tokens, so that pointwise convolutions are MatMuls."""
    prefix = f"{PROJECTOR_PREFIX}model."
    hidden = _gelu(graph, _linear(graph, patches, f"{prefix}mlp.1"))
    hidden = _linear(graph, hidden, f"{prefix}mlp.3")
    first = _inverted_residual(graph, config, hidden, f"{prefix}mb_block.1.block.", config.vision.grid, stride=1)
    hidden = graph.node("Add", hidden, first)
    return _inverted_residual(graph, config, hidden, f"{prefix}mb_block.2.block.", config.vision.grid, stride=2)


def _inverted_residual(graph: GraphBuilder, config: MobileVlmConfig, tokens: str, prefix: str, grid: int, stride: int) -> str:
    """Depthwise convolution, squeeze-excite and pointwise convolution of LDP on [N, grid * grid, hidden]."""
    width = config.hidden_size
    maps = _depthwise(graph, _to_map(graph, tokens, grid, width), f"{prefix}0.0", width, stride, bias=False)
    hidden = _layer_norm(graph, _to_tokens(graph, maps, width), f"{prefix}0.1", CHANNEL_NORM_EPS)
    hidden = graph.node("HardSwish", hidden)
    gate = graph.node("ReduceMean", hidden, axes=[1], keepdims=1)
    gate = graph.node("Relu", _linear(graph, gate, f"{prefix}1.fc1"))
    gate = graph.node("HardSigmoid", _linear(graph, gate, f"{prefix}1.fc2"), alpha=1 / 6, beta=0.5)
    hidden = graph.linear(graph.node("Mul", hidden, gate), f"{prefix}2.0.weight")
    return _layer_norm(graph, hidden, f"{prefix}2.1", CHANNEL_NORM_EPS)


def _ldp_v2(graph: GraphBuilder, config: MobileVlmConfig, patches: str) -> str:
    width, prefix = config.hidden_size, PROJECTOR_PREFIX
    hidden = _gelu(graph, _linear(graph, patches, f"{prefix}mlp.mlp.0"))
    maps = _to_map(graph, _linear(graph, hidden, f"{prefix}mlp.mlp.2"), config.vision.grid, width)
    maps = _pool(graph, maps, config.vision.grid, config.image_grid)
    maps = graph.node("Add", _depthwise(graph, maps, f"{prefix}peg.peg.0", width, 1, bias=True), maps)
    return _to_tokens(graph, maps, width)


def _pool(graph: GraphBuilder, maps: str, grid: int, target: int) -> str:
    """Adaptive average pooling of [N, C, grid, grid] to [N, C, target, target]."""
    if grid == target:
        return maps
    if grid % target == 0:
        window = [grid // target] * 2
        return graph.node("AveragePool", maps, kernel_shape=window, strides=window)
    # Windows overlap where the sides do not divide: row i averages rows floor(i * g / t) to ceil((i + 1) * g / t).
    rows = np.zeros((target, grid), np.float32)
    for row in range(target):
        start, end = row * grid // target, -(-(row + 1) * grid // target)
        rows[row, start:end] = 1 / (end - start)
    return graph.node("MatMul", graph.node("MatMul", graph.constant(rows), maps), graph.constant(rows.T.copy()))


def _depthwise(graph: GraphBuilder, maps: str, name: str, width: int, stride: int, bias: bool) -> str:
    """A 3x3 convolution of each channel on its own, padded by 1."""
    inputs = [maps, graph.weight(f"{name}.weight")] + ([graph.weight(f"{name}.bias")] if bias else [])
    return graph.node("Conv", *inputs, group=width, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[stride, stride])


def _to_map(graph: GraphBuilder, tokens: str, grid: int, width: int) -> str:
    """[N, grid * grid, width] to [N, width, grid, grid]."""
    shape = graph.constant([0, width, grid, grid], "int64")
    return graph.node("Reshape", graph.node("Transpose", tokens, perm=[0, 2, 1]), shape)


def _to_tokens(graph: GraphBuilder, maps: str, width: int) -> str:
    """The inverse of `_to_map`, for any grid."""
    flat = graph.node("Reshape", maps, graph.constant([0, width, -1], "int64"))
    return graph.node("Transpose", flat, perm=[0, 2, 1])


def _linear(graph: GraphBuilder, value: str, name: str) -> str:
    return graph.linear(value, f"{name}.weight", f"{name}.bias")


def _layer_norm(graph: GraphBuilder, value: str, name: str, epsilon: float) -> str:
    scale, shift = graph.weight(f"{name}.weight"), graph.weight(f"{name}.bias")
    return graph.node("LayerNormalization", value, scale, shift, axis=-1, epsilon=epsilon)


def _gelu(graph: GraphBuilder, value: str) -> str:
    """The exact GELU; the tanh approximation moves features by 1e-3."""
    erf = graph.node("Erf", graph.node("Mul", value, graph.constant(math.sqrt(0.5))))
    gate = graph.node("Mul", graph.node("Add", erf, graph.constant(1.0)), graph.constant(0.5))
    return graph.node("Mul", value, gate)


def _quick_gelu(graph: GraphBuilder, value: str) -> str:
    return graph.node("Mul", value, graph.node("Sigmoid", graph.node("Mul", value, graph.constant(1.702))))

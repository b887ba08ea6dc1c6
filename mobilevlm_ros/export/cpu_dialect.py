"""The dialect for ONNX Runtime on CPUs: fused attention, in the decoder over a cache that past and present share.

Uses ONNX Runtime's own operators (GroupQueryAttention, MultiHeadAttention, SimplifiedLayerNormalization), all of them in version
1.23 and later.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mobilevlm_ros.checkpoint.config import MobileVlmConfig, VisionConfig
from mobilevlm_ros.export.decoder_graph import Projected
from mobilevlm_ros.export.onnx_builder import MICROSOFT, OPSET, GraphBuilder

# GroupQueryAttention takes only heads of a multiple of this; others, which no released model has, are filled up with zeros.
_HEAD_STEP = 8
# GroupQueryAttention rotates only heads of a multiple of this; smaller ones, which no released model has, are rotated before it.
_FUSED_HEAD_STEP = 16


class CpuDialect:
    """Implements `DecoderDialect`.

    Inputs beside the decoder's: `seqlens_k` int32 [B], each row's past length + S - 1; `total_sequence_length` int32 scalar T,
    the longest past + S; `position_ids` int64 [B, S], where each token stands in its row; `attention_bias` float32 [1, 1, S, T],
    added to the attention's scores: zeros, but where tokens of a chunk must not see each other; `past_key_i`, `past_value_i`
    float32 [B, kv_heads, M, cache_head_dim], M being the buffers' length. Outputs `present_key_i`, `present_value_i` of the same
    shape, to be bound to the same memory. With several rows, S must be 1 or every past empty.
    """

    name = "cpu"
    opsets: Mapping[str, int] = {"": OPSET, MICROSOFT: 1}

    def begin(self, graph: GraphBuilder, config: MobileVlmConfig) -> None:
        graph.input("seqlens_k", "int32", ["B"])
        graph.input("total_sequence_length", "int32", [])
        graph.input("position_ids", "int64", ["B", "S"])
        graph.input("attention_bias", "float32", [1, 1, "S", "T"])
        self._tables = [
            graph.derived(f"rotary.{name}", (config.max_position_embeddings, config.head_dim // 2), read, exact=True)
            for name, read in (("cos", lambda: np.cos(rotary_angles(config))), ("sin", lambda: np.sin(rotary_angles(config))))
        ]
        self._rotates_itself = config.head_dim % _FUSED_HEAD_STEP == 0

    def norm(self, graph: GraphBuilder, value: str, weight: str, epsilon: float) -> str:
        return graph.node("SimplifiedLayerNormalization", value, graph.weight(weight), axis=-1, epsilon=epsilon, stash_type=1)

    def add_and_norm(self, graph: GraphBuilder, value: str, added: str, weight: str, epsilon: float) -> tuple[str, str]:
        outputs = [f"{weight}/normed", "", "", f"{weight}/sum"]
        inputs = [value, added, graph.weight(weight)]
        graph.node_with_outputs("SkipSimplifiedLayerNormalization", inputs, outputs, MICROSOFT, epsilon=epsilon)
        return outputs[0], outputs[3]

    def attention(self, graph: GraphBuilder, config: MobileVlmConfig, layer: int, projected: Projected) -> str:
        shape: list[int | str] = ["B", config.num_key_value_heads, "M", cache_head_dim(config.head_dim)]
        past = [graph.input(f"past_{kind}_{layer}", "float32", shape) for kind in ("key", "value")]
        present = [f"present_{kind}_{layer}" for kind in ("key", "value")]
        queries, keys, values = projected.queries, projected.keys, projected.values
        tables = self._tables if self._rotates_itself else ["", ""]
        if not self._rotates_itself:
            queries = _fill_up(graph, self._rotate(graph, queries, config.num_attention_heads), config.head_dim)
            keys = _fill_up(graph, self._rotate(graph, keys, config.num_key_value_heads), config.head_dim)
            values = _fill_up(graph, values, config.head_dim)
        inputs = [queries, keys, values, *past, "seqlens_k", "total_sequence_length", *tables, "position_ids", "attention_bias"]
        mixed, *_ = graph.node_with_outputs(
            "GroupQueryAttention",
            inputs,
            [f"attention_{layer}", *present],
            MICROSOFT,
            num_heads=config.num_attention_heads,
            kv_num_heads=config.num_key_value_heads,
            do_rotary=int(self._rotates_itself),
            rotary_interleaved=0,
            scale=config.head_dim**-0.5,
        )
        for name in present:
            graph.output(name, name, shape)
        return _cut_back(graph, mixed, config.head_dim)

    def _rotate(self, graph: GraphBuilder, value: str, heads: int) -> str:
        return graph.node("RotaryEmbedding", value, "position_ids", *self._tables, domain=MICROSOFT, num_heads=heads)


def tower_attention(graph: GraphBuilder, vision: VisionConfig, queries: str, keys: str, values: str) -> str:
    """The vision tower's attention as one operator, which computes it in tiles; see `vision_graph.TowerAttention`."""
    heads, scale = vision.num_attention_heads, vision.head_dim**-0.5
    return graph.node("MultiHeadAttention", queries, keys, values, domain=MICROSOFT, num_heads=heads, scale=scale)


def cache_head_dim(head_dim: int) -> int:
    """Width of a head in the cache: `head_dim`, rounded up to what the attention operator takes."""
    return -(-head_dim // _HEAD_STEP) * _HEAD_STEP


def _fill_up(graph: GraphBuilder, value: str, head_dim: int) -> str:
    """[B, S, heads * head_dim] with zeros behind each head up to the cache's width."""
    missing = cache_head_dim(head_dim) - head_dim
    if not missing:
        return value
    heads = graph.node("Reshape", value, graph.constant([0, 0, -1, head_dim], "int64"))
    filled = graph.node("Pad", heads, graph.constant([0, 0, 0, 0, 0, 0, 0, missing], "int64"))
    return graph.node("Reshape", filled, graph.constant([0, 0, -1], "int64"))


def _cut_back(graph: GraphBuilder, value: str, head_dim: int) -> str:
    """The way back from `_fill_up`."""
    width = cache_head_dim(head_dim)
    if width == head_dim:
        return value
    heads = graph.node("Reshape", value, graph.constant([0, 0, -1, width], "int64"))
    start, end, axis = (graph.constant([number], "int64") for number in (0, head_dim, 3))
    return graph.node("Reshape", graph.node("Slice", heads, start, end, axis), graph.constant([0, 0, -1], "int64"))


def rotary_angles(config: MobileVlmConfig) -> np.ndarray:
    """Rotary angles float32 [positions, head_dim / 2], rounded as `transformers` rounds them."""
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    inverse = (1.0 / np.power(config.rope_theta, exponents.astype(np.float64))).astype(np.float32)
    return np.arange(config.max_position_embeddings, dtype=np.float32)[:, None] * inverse

"""The decoder's dialect for TensorRT 10.3 and later: operators that every version takes, and a cache that the runtime fills.

See `trt_cache` for the interface. Outputs beside `logits`: `new_key_i`, `new_value_i` half [B, kv_heads, S, head_dim], which the
runtime copies into the cache behind the run, at the chunk's positions. Attention goes over the cache and the chunk as two parts,
so that no step copies the cache, as an update inside a graph without in-place operators would.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.export.decoder_graph import Projected
from mobilevlm_ros.export.onnx_builder import GraphBuilder
from mobilevlm_ros.export.trt_cache import (
    declare_cache,
    declare_positions,
    half_type,
    join_heads,
    rotary_tables,
    scaled,
    split_heads,
)

_UNSEEN = float(np.finfo(np.float16).min)
_END = int(np.iinfo(np.int64).max)

_Parts = tuple[str, str]
"""Something of the cache, and the same of the chunk."""


class TrtPortableDialect:
    """Implements `DecoderDialect`; wants a `TypedGraphBuilder`."""

    name = "trt-portable"
    opsets: Mapping[str, int] = {"": 21}

    def begin(self, graph: GraphBuilder, config: MobileVlmConfig) -> None:
        positions = declare_positions(graph)
        self._caches = [declare_cache(graph, config, layer) for layer in range(config.num_hidden_layers)]
        heads_axis = graph.constant([1], "int64")
        self._cosines, self._sines = (
            graph.node("Unsqueeze", graph.node("Gather", table, positions), heads_axis) for table in rotary_tables(graph, config)
        )
        self._capacity = graph.node("Shape", self._caches[0].keys, start=2, end=3)
        self._masks = self._visible(graph, positions)

    def norm(self, graph: GraphBuilder, value: str, weight: str, epsilon: float) -> str:
        mean = graph.node("ReduceMean", graph.node("Mul", value, value), graph.constant([-1], "int64"), keepdims=1)
        root = graph.node("Sqrt", graph.node("Add", mean, graph.constant(epsilon)))
        return graph.node("Mul", graph.node("Div", value, root), graph.weight(weight))

    def add_and_norm(self, graph: GraphBuilder, value: str, added: str, weight: str, epsilon: float) -> tuple[str, str]:
        total = graph.node("Add", value, added)
        return self.norm(graph, total, weight, epsilon), total

    def attention(self, graph: GraphBuilder, config: MobileVlmConfig, layer: int, projected: Projected) -> str:
        cache, kv_heads = self._caches[layer], config.num_key_value_heads
        queries = self._rotated(graph, split_heads(graph, projected.queries, config.num_attention_heads), config)
        keys = self._rotated(graph, split_heads(graph, projected.keys, kv_heads), config)
        values = split_heads(graph, projected.values, kv_heads)
        for name, value in ((f"new_key_{layer}", keys), (f"new_value_{layer}", values)):
            graph.output(name, value, ["B", kv_heads, "S", config.head_dim], half_type(graph))
        queries = scaled(graph, queries, config)
        turned = _transposed(graph, (cache.keys, keys))
        if kv_heads == config.num_attention_heads:
            return join_heads(graph, self._mixed(graph, queries, turned, (cache.values, values), self._masks))
        # [B, kv_heads, groups, S, head_dim], so that each key and value meets its group of queries.
        groups = config.num_attention_heads // kv_heads
        split = graph.constant([0, kv_heads, groups, -1, config.head_dim], "int64")
        joined = graph.constant([0, config.num_attention_heads, -1, config.head_dim], "int64")
        parts = (_with_groups(graph, pair) for pair in (turned, (cache.values, values), self._masks))
        mixed = self._mixed(graph, graph.node("Reshape", queries, split), *parts)
        return join_heads(graph, graph.node("Reshape", mixed, joined))

    def _mixed(self, graph: GraphBuilder, queries: str, keys: _Parts, values: _Parts, masks: _Parts) -> str:
        """Attention [..., S, head_dim] over cache and chunk: keys [..., head_dim, length], values [..., length, head_dim]."""
        scores = [
            graph.node("Where", mask, graph.node("MatMul", queries, part), graph.constant(_UNSEEN))
            for part, mask in zip(keys, masks)
        ]
        shares = graph.node("Softmax", graph.node("Concat", *scores, axis=-1), axis=-1)
        zero, end, last = (graph.constant([number], "int64") for number in (0, _END, -1))
        of_cache = graph.node("Slice", shares, zero, self._capacity, last)
        of_chunk = graph.node("Slice", shares, self._capacity, end, last)
        return graph.node("Add", graph.node("MatMul", of_cache, values[0]), graph.node("MatMul", of_chunk, values[1]))

    def _visible(self, graph: GraphBuilder, positions: str) -> tuple[str, str]:
        """Which places of the cache each token sees, bool [B, 1, 1, M], and which tokens of the chunk, [B, 1, S, S]."""
        zero, one = graph.constant(0, "int64"), graph.constant(1, "int64")
        rows, columns = (graph.node("Unsqueeze", positions, graph.constant(axes, "int64")) for axes in ([1, 3], [1, 2]))
        places = graph.node("Range", zero, graph.node("Squeeze", self._capacity, graph.constant([0], "int64")), one)
        starts = graph.node("Slice", columns, *(graph.constant([number], "int64") for number in (0, 1, 3)))
        return graph.node("Less", places, starts), graph.node("LessOrEqual", columns, rows)

    def _rotated(self, graph: GraphBuilder, value: str, config: MobileVlmConfig) -> str:
        """Each pair (i, i + head_dim / 2) of [B, heads, S, head_dim] turned by its position's angle."""
        middle = config.head_dim // 2
        zero, half, end, last = (graph.constant([number], "int64") for number in (0, middle, _END, -1))
        first, second = (graph.node("Slice", value, *part, last) for part in ((zero, half), (half, end)))
        across, along = self._sines, self._cosines
        turned = (
            graph.node("Sub", graph.node("Mul", first, along), graph.node("Mul", second, across)),
            graph.node("Add", graph.node("Mul", second, along), graph.node("Mul", first, across)),
        )
        return graph.node("Concat", *turned, axis=-1)


def _with_groups(graph: GraphBuilder, parts: _Parts) -> _Parts:
    """An axis of length 1 behind the heads."""
    first, second = (graph.node("Unsqueeze", part, graph.constant([2], "int64")) for part in parts)
    return first, second


def _transposed(graph: GraphBuilder, parts: _Parts) -> _Parts:
    """[B, heads, length, head_dim] to [B, heads, head_dim, length]."""
    first, second = (graph.node("Transpose", part, perm=[0, 1, 3, 2]) for part in parts)
    return first, second

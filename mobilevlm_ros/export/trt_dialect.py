"""The decoder's dialect for TensorRT 10.15 and later: fused attention over a cache that is updated in place.

Standard operators of opset 24, each of which TensorRT has a layer for. See `trt_cache` for the interface. Outputs beside
`logits`: `present_key_i`, `present_value_i` half [B, kv_heads, M, head_dim], to be bound to the addresses of `past_key_i` and
`past_value_i`.
"""

from __future__ import annotations

from collections.abc import Mapping

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


class TrtDialect:
    """Implements `DecoderDialect`; wants a `TypedGraphBuilder`."""

    name = "trt"
    opsets: Mapping[str, int] = {"": 24}

    def begin(self, graph: GraphBuilder, config: MobileVlmConfig) -> None:
        self._positions = declare_positions(graph)
        self._caches = [declare_cache(graph, config, layer) for layer in range(config.num_hidden_layers)]
        self._tables = rotary_tables(graph, config)
        zero, one = graph.constant(0, "int64"), graph.constant(1, "int64")
        self._starts = graph.node("Gather", self._positions, zero, axis=1)
        length = graph.node("Squeeze", graph.node("Shape", self._caches[0].keys, start=2, end=3), graph.constant([0], "int64"))
        places = graph.node("Range", zero, length, one)
        # [B, 1, S, M]: a position sees itself and what stands before it.
        self._mask = graph.node("LessOrEqual", places, graph.node("Unsqueeze", self._positions, graph.constant([1, 3], "int64")))

    def norm(self, graph: GraphBuilder, value: str, weight: str, epsilon: float) -> str:
        return graph.node("RMSNormalization", value, graph.weight(weight), axis=-1, epsilon=epsilon)

    def add_and_norm(self, graph: GraphBuilder, value: str, added: str, weight: str, epsilon: float) -> tuple[str, str]:
        total = graph.node("Add", value, added)
        return self.norm(graph, total, weight, epsilon), total

    def attention(self, graph: GraphBuilder, config: MobileVlmConfig, layer: int, projected: Projected) -> str:
        cache = self._caches[layer]
        queries = self._rotated(graph, projected.queries, config.num_attention_heads)
        keys = self._rotated(graph, projected.keys, config.num_key_value_heads)
        values = split_heads(graph, projected.values, config.num_key_value_heads)
        present = [
            self._updated(graph, past, new, f"present_{kind}_{layer}")
            for past, new, kind in ((cache.keys, keys, "key"), (cache.values, values, "value"))
        ]
        for name in present:
            graph.output(name, name, cache.shape, half_type(graph))
        return join_heads(graph, graph.node("Attention", scaled(graph, queries, config), *present, self._mask, scale=1.0))

    def _rotated(self, graph: GraphBuilder, value: str, heads: int) -> str:
        return graph.node("RotaryEmbedding", split_heads(graph, value, heads), *self._tables, self._positions)

    def _updated(self, graph: GraphBuilder, past: str, new: str, name: str) -> str:
        return graph.node_with_outputs("TensorScatter", [past, new, self._starts], [name], axis=-2)[0]

"""What both TensorRT dialects share: the decoder's inputs, rotary tables, and heads to and from rows of features.

Interface of both decoders (half is float16, in an fp32 package float32; i counts layers):

- `inputs_embeds` float32 [B, S, hidden]; `position_ids` int64 [B, S], the tokens' absolute positions, consecutive in each row,
  the first one being the row's past length; `logits_at` int64 [B, K]; `past_key_i`, `past_value_i` half [B, kv_heads, M,
  head_dim] with finite numbers everywhere; `logits` float32 [B, K, vocab].
- Which positions see each other, and where new keys go, follows from `position_ids`: a token at position p sees 0 to p of its own
  row. Tokens behind the valid ones, at consecutive positions, are padding that nothing sees. All of a chunk lies below M.
- M is symbolic in the file and fixed when an engine is built (`runtime.onnx_axis`): TensorRT updates only caches of a static
  length in place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.export.cpu_dialect import rotary_angles
from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.export.onnx_builder import GraphBuilder, Shape
from mobilevlm_ros.export.typed_builder import TypedGraphBuilder


@dataclass(frozen=True)
class LayerCache:
    """The names of a layer's cache inputs, and their shape."""

    keys: str
    values: str
    shape: Shape


def declare_positions(graph: GraphBuilder) -> str:
    """The input `position_ids`."""
    return graph.input("position_ids", "int64", ["B", "S"])


def declare_cache(graph: GraphBuilder, config: MobileVlmConfig, layer: int) -> LayerCache:
    """A layer's cache inputs."""
    shape: Shape = ["B", config.num_key_value_heads, "M", config.head_dim]
    keys, values = (graph.input(f"past_{kind}_{layer}", half_type(graph), shape) for kind in ("key", "value"))
    return LayerCache(keys, values, shape)


def rotary_tables(graph: GraphBuilder, config: MobileVlmConfig) -> tuple[str, str]:
    """Cosines and sines of every position, half [positions, head_dim / 2]."""
    shape = (config.max_position_embeddings, config.head_dim // 2)
    cosines = graph.derived("rotary.half.cos", shape, lambda: np.cos(rotary_angles(config)))
    return cosines, graph.derived("rotary.half.sin", shape, lambda: np.sin(rotary_angles(config)))


def split_heads(graph: GraphBuilder, value: str, heads: int) -> str:
    """[B, S, heads * head_dim] to [B, heads, S, head_dim]."""
    return graph.node("Transpose", graph.node("Reshape", value, graph.constant([0, 0, heads, -1], "int64")), perm=[0, 2, 1, 3])


def join_heads(graph: GraphBuilder, value: str) -> str:
    """The way back from `split_heads`."""
    return graph.node("Reshape", graph.node("Transpose", value, perm=[0, 2, 1, 3]), graph.constant([0, 0, -1], "int64"))


def scaled(graph: GraphBuilder, queries: str, config: MobileVlmConfig) -> str:
    """Queries times 1 / sqrt(head_dim), so that products with keys stay small; scaling the keys would touch the whole cache."""
    return graph.node("Mul", queries, graph.constant(config.head_dim**-0.5))


def half_type(graph: GraphBuilder) -> str:
    """The graph's type of products and caches. Raises ExportError for a graph without explicit types."""
    if not isinstance(graph, TypedGraphBuilder):
        raise ExportError("TensorRT's dialects need a graph with explicit types")
    return graph.half

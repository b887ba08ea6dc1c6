"""The language decoder's one definition: a Llama over embeddings, with a key-value cache and logits only where they are wanted.

What is written differently for each runtime (normalisation, attention with its cache) is left to a dialect; see `cpu_dialect`.
Mirrors `LlamaForCausalLM` of `transformers`, without the embedding lookup.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.model import EMBEDDING_NAME, HEAD_NAME
from mobilevlm_ros.export.onnx_builder import GraphBuilder


class DecoderDialect(Protocol):
    """How one runtime wants the decoder's building blocks written."""

    name: str
    """Names the graph's file: `decoder.<name>.onnx`."""
    opsets: Mapping[str, int]

    def begin(self, graph: GraphBuilder, config: MobileVlmConfig) -> None:
        """Declares the inputs and tables that attention needs beside queries, keys and values."""

    def norm(self, graph: GraphBuilder, value: str, weight: str, epsilon: float) -> str:
        """Root-mean-square normalisation over the last axis, times the checkpoint's vector `weight`."""

    def add_and_norm(self, graph: GraphBuilder, value: str, added: str, weight: str, epsilon: float) -> tuple[str, str]:
        """`value` + `added`, and its normalisation: returns (normalised, sum)."""

    def attention(self, graph: GraphBuilder, config: MobileVlmConfig, layer: int, projected: Projected) -> str:
        """Rotates queries and keys, appends keys and values to layer `layer`'s cache and returns what attention makes of them.

        Declares the layer's cache inputs and outputs. Result [B, S, heads * head_dim].
        """


@dataclass(frozen=True)
class Projected:
    """One layer's queries [B, S, heads * head_dim], keys and values [B, S, kv_heads * head_dim], not yet rotated."""

    queries: str
    keys: str
    values: str


def build_decoder(graph: GraphBuilder, config: MobileVlmConfig, dialect: DecoderDialect) -> None:
    """Adds the decoder to an empty graph.

    Inputs `inputs_embeds` float32 [B, S, hidden], `logits_at` int64 [B, K] (positions inside this chunk) and the dialect's own;
    outputs `logits` float32 [B, K, vocab] and the dialect's caches.
    """
    epsilon = config.rms_norm_eps
    residual = graph.input("inputs_embeds", "float32", ["B", "S", config.hidden_size])
    wanted = graph.node("Unsqueeze", graph.input("logits_at", "int64", ["B", "K"]), graph.constant([2], "int64"))
    dialect.begin(graph, config)
    normed = dialect.norm(graph, residual, _layer(0, "input_layernorm.weight"), epsilon)
    for layer in range(config.num_hidden_layers):
        mixed = _attention(graph, config, dialect, layer, normed)
        last = layer == config.num_hidden_layers - 1
        if last:
            # Behind the last attention nothing mixes positions: only those whose logits are wanted go on.
            mixed, residual = (graph.node("GatherND", value, wanted, batch_dims=1) for value in (mixed, residual))
        mixed = graph.linear(mixed, _layer(layer, "self_attn.o_proj.weight"))
        normed, residual = dialect.add_and_norm(graph, residual, mixed, _layer(layer, "post_attention_layernorm.weight"), epsilon)
        following = "model.norm.weight" if last else _layer(layer + 1, "input_layernorm.weight")
        normed, residual = dialect.add_and_norm(graph, residual, _mlp(graph, layer, normed), following, epsilon)
    head = EMBEDDING_NAME if config.tie_word_embeddings else HEAD_NAME
    graph.output("logits", graph.linear(normed, head), ["B", "K", config.vocab_size])


def _attention(graph: GraphBuilder, config: MobileVlmConfig, dialect: DecoderDialect, layer: int, normed: str) -> str:
    queries, keys, values = graph.linears(normed, [_layer(layer, f"self_attn.{part}_proj.weight") for part in "qkv"])
    return dialect.attention(graph, config, layer, Projected(queries, keys, values))


def _mlp(graph: GraphBuilder, layer: int, normed: str) -> str:
    gate, up = graph.linears(normed, [_layer(layer, f"mlp.{part}_proj.weight") for part in ("gate", "up")])
    gate = graph.node("Mul", gate, graph.node("Sigmoid", gate))
    inner = graph.node("Mul", gate, up)
    return graph.linear(inner, _layer(layer, "mlp.down_proj.weight"))


def _layer(layer: int, rest: str) -> str:
    return f"model.layers.{layer}.{rest}"

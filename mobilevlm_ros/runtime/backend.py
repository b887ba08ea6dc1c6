"""What the engine asks of an inference backend. ONNX Runtime's stands in `ort_backend.py`, TensorRT's in `tensorrt/`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from mobilevlm_ros.runtime.kv_cache import Cache
from mobilevlm_ros.runtime.prefix_tree import PrefixTree

CacheT = TypeVar("CacheT", bound=Cache)


class Backend(Protocol[CacheT]):
    """Runs a model package's graphs. Used from one thread only. Every method raises BackendError when the model fails."""

    @property
    def name(self) -> str:
        """For logs and diagnostics, such as "onnxruntime-cpu"."""

    @property
    def notice(self) -> str:
        """What a user should know of how it runs, such as that it is not the fastest way; empty where there is nothing."""

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Visual tokens of letterboxed pictures: uint8 [N, size, size, 3] RGB to float32 [N, tokens, hidden]."""

    def embed(self, tokens: Sequence[int]) -> np.ndarray:
        """Embeddings of token ids: float32 [len(tokens), hidden]."""

    def new_cache(self, rows: int, capacity: int) -> CacheT:
        """Buffers for keys and values that this backend can run on."""

    def prefill(self, cache: CacheT, row: int, embeddings: np.ndarray, logits_at: Sequence[int]) -> np.ndarray:
        """Append embeddings [S, hidden] to a row of the cache, growing its length by S.

        Returns:
            float32 [len(logits_at), vocab]: the logits after the given positions of this chunk (0 to S - 1).
        """

    def decode(self, cache: CacheT, tokens: Sequence[int]) -> np.ndarray:
        """Append one token to each of the first len(tokens) rows, growing their lengths by 1.

        Returns:
            float32 [len(tokens), vocab]; valid until the next call.
        """

    def close(self) -> None:
        """Free the model. No other method may be called afterwards."""


@runtime_checkable
class TreeBackend(Protocol):
    """A backend that can go on from one row in several ways at once."""

    def branch(self, cache: Any, row: int, tree: PrefixTree) -> np.ndarray:
        """Read a tree of continuations behind a row, which keeps its length; there must be room for all of the tree's nodes.

        Returns:
            float32 [nodes, vocab]: the logits after each node.
        """

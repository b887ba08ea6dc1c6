"""What the engine asks of an inference backend. ONNX Runtime's stands in `ort_backend.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mobilevlm_ros.runtime.kv_cache import KVCache


class Backend(Protocol):
    """Runs a model package's graphs. Used from one thread only. Every method raises BackendError when the model fails."""

    @property
    def name(self) -> str:
        """For logs and diagnostics, such as "onnxruntime-cpu"."""

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Visual tokens of letterboxed pictures: uint8 [N, size, size, 3] RGB to float32 [N, tokens, hidden]."""

    def embed(self, tokens: Sequence[int]) -> np.ndarray:
        """Embeddings of token ids: float32 [len(tokens), hidden]."""

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        """Buffers for keys and values that this backend can run on."""

    def prefill(self, cache: KVCache, row: int, embeddings: np.ndarray, logits_at: Sequence[int]) -> np.ndarray:
        """Append embeddings [S, hidden] to a row of the cache, growing its length by S.

        Returns:
            float32 [len(logits_at), vocab]: the logits after the given positions of this chunk (0 to S - 1).
        """

    def decode(self, cache: KVCache, tokens: Sequence[int]) -> np.ndarray:
        """Append one token to each of the first len(tokens) rows, growing their lengths by 1.

        Returns:
            float32 [len(tokens), vocab]; valid until the next call.
        """

    def close(self) -> None:
        """Free the model. No other method may be called afterwards."""

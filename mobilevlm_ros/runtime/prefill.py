"""Bringing a prompt into a row of the KV cache without computing anything twice.

What stands before the picture is the same for every prompt and is computed once per model; with the picture's visual tokens it is
computed once per picture; only the question's own tokens are left for each request.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobilevlm_ros.runtime.backend import Backend
from mobilevlm_ros.runtime.kv_cache import KVCache, KVPrefix, PrefixCache
from mobilevlm_ros.runtime.prompt import Prompt
from mobilevlm_ros.runtime.requests import Picture


@dataclass(frozen=True, eq=False)
class Prefilled:
    """A row that holds a whole prompt: its length, the logits after it (float32 [vocab]), and the milliseconds it took."""

    row: int
    length: int
    logits: np.ndarray
    encode_ms: float
    prefill_ms: float


class Prefiller:
    """Fills rows of one cache. Used by the engine's thread only."""

    def __init__(self, backend: Backend, cache: KVCache, prefixes: PrefixCache) -> None:
        self._backend = backend
        self._cache = cache
        self._prefixes = prefixes
        self._head: KVPrefix | None = None

    def fill(self, row: int, picture: Picture, prompt: Prompt) -> Prefilled:
        """Make `row` hold the prompt and nothing else.

        Raises:
            BackendError: the model failed; the row's content is undefined.
        """
        start = time.perf_counter()
        encode_ms = self._fill_picture(row, picture, prompt.head)
        logits = self._append(row, prompt.tail, [len(prompt.tail) - 1])[0]
        total_ms = (time.perf_counter() - start) * 1e3
        return Prefilled(row, self._cache.lengths[row], logits, encode_ms, total_ms - encode_ms)

    def continuation_logits(self, prefilled: Prefilled, tokens: Sequence[int]) -> np.ndarray:
        """Logits float32 [len(tokens), vocab] from which each of `tokens` would be chosen after the prompt.

        The row holds the prompt alone afterwards.
        """
        first = prefilled.logits[None]
        if len(tokens) == 1:
            return first
        self._cache.lengths[prefilled.row] = prefilled.length
        rest = self._append(prefilled.row, tokens[:-1], range(len(tokens) - 1))
        self._cache.lengths[prefilled.row] = prefilled.length
        return np.concatenate([first, rest])

    def _fill_picture(self, row: int, picture: Picture, head: Sequence[int]) -> float:
        """Put head and picture into the row; returns the milliseconds that encoding took."""
        known = self._prefixes.get(picture.digest)
        if known is not None:
            self._cache.load(row, known)
            return 0.0
        start = time.perf_counter()
        features = self._backend.encode(picture.pixels[None])[0]
        encode_ms = (time.perf_counter() - start) * 1e3
        self._fill_head(row, head)
        self._backend.prefill(self._cache, row, features, [len(features) - 1])
        self._prefixes.put(picture.digest, self._cache.save(row))
        return encode_ms

    def _fill_head(self, row: int, head: Sequence[int]) -> None:
        if self._head is None:
            self._cache.lengths[row] = 0
            self._append(row, head, [len(head) - 1])
            self._head = self._cache.save(row)
        self._cache.load(row, self._head)

    def _append(self, row: int, tokens: Sequence[int], logits_at: Sequence[int]) -> np.ndarray:
        return self._backend.prefill(self._cache, row, self._backend.embed(tokens), logits_at)

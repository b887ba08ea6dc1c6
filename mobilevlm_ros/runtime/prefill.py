"""Bringing a prompt into a row of the KV cache without computing anything twice.

What stands before the picture is the same for every prompt and is computed once per model; with the picture's visual tokens it is
computed once per picture; what was said about a picture in a conversation once per turn. Only the question's own tokens are left
for each request.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobilevlm_ros.runtime.backend import Backend, TreeBackend
from mobilevlm_ros.runtime.errors import BackendError, ErrorCode
from mobilevlm_ros.runtime.kv_cache import Cache, Prefix, PrefixCache, load
from mobilevlm_ros.runtime.prefix_tree import ROOT, PrefixTree
from mobilevlm_ros.runtime.prompt import Prompt
from mobilevlm_ros.runtime.requests import Picture

_TURNS = b"/turns/"
"""In the key under which a conversation's turns are kept: behind the picture's digest and before the turns' tokens."""


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

    def __init__(self, backend: Backend, cache: Cache, prefixes: PrefixCache) -> None:
        self._backend = backend
        self._cache = cache
        self._prefixes = prefixes
        self._head: Prefix | None = None
        self._steps = 0

    @property
    def steps(self) -> int:
        """Runs of a graph that have ended."""
        return self._steps

    def forget(self) -> None:
        """Keep nothing of what was computed so far; the next prompt is computed whole."""
        self._head = None
        self._prefixes.clear()

    def fill(self, row: int, picture: Picture, prompt: Prompt) -> Prefilled:
        """Make `row` hold the prompt and nothing else.

        Raises:
            BackendError: the model failed; the row's content is undefined.
        """
        start = time.perf_counter()
        known = self._prefixes.get(picture.digest)
        turns = self._prefixes.keys(picture.digest + _TURNS)
        encode_ms = 0.0
        if known is not None:
            load(self._cache, row, known)
        else:
            # What follows the picture is read together with it, unless some of that is known.
            logits, encode_ms = self._fill_picture(row, picture, prompt.head, () if turns else prompt.tail)
        if known is not None or turns:
            left = prompt.tail[self._fill_turns(row, picture, prompt.tail) :]
            logits = self._append(row, left, [len(left) - 1])
        total_ms = (time.perf_counter() - start) * 1e3
        return Prefilled(row, self._cache.lengths[row], logits[0], encode_ms, total_ms - encode_ms)

    def keep_turn(self, row: int, picture: Picture, said: Sequence[int]) -> None:
        """Keep what a row holds behind its picture, the tokens `said`, for the next turn of a conversation about it."""
        start = self._prefixes.length(picture.digest)
        if start is None:
            return
        beginning = picture.digest + _TURNS
        tokens = _packed(said[: self._cache.lengths[row] - start])
        for key in self._prefixes.keys(beginning):
            if tokens.startswith(key[len(beginning) :]):
                self._prefixes.drop(key)  # an earlier turn, which the new one holds too
        self._keep(beginning + tokens, row, start)

    def warm_up(self, row: int, picture: Picture, prompt: Prompt) -> None:
        """Run everything once, so that memory is in place, and keep what stands before every picture."""
        self._backend.encode(picture.pixels[None])
        self._steps += 1
        self._fill_head(row, prompt.head)
        self._append(row, prompt.tail, [len(prompt.tail) - 1])
        self._cache.lengths[row] = 0

    def tree_logits(self, prefilled: Prefilled, tree: PrefixTree) -> np.ndarray:
        """Logits float32 [nodes + 1, vocab] after each node of a tree of continuations, and last (ROOT) those after the prompt.

        The row holds the prompt alone afterwards.
        """
        self._cache.lengths[prefilled.row] = prefilled.length
        logits = np.empty((len(tree.tokens) + 1, len(prefilled.logits)), np.float32)
        logits[ROOT] = prefilled.logits
        if tree.tokens and isinstance(self._backend, TreeBackend):
            logits[:ROOT] = self._backend.branch(self._cache, prefilled.row, tree)
            self._steps += 1
            return logits
        for path in tree.paths:
            nodes = list(path[1:])
            if nodes:
                logits[nodes] = self._append(prefilled.row, [tree.tokens[node] for node in nodes], range(len(nodes)))
                self._cache.lengths[prefilled.row] = prefilled.length
        return logits

    def room(self, prefilled: Prefilled) -> int:
        """Positions that are left behind a prompt."""
        return self._cache.capacity - prefilled.length

    def _fill_picture(
        self, row: int, picture: Picture, head: Sequence[int], following: Sequence[int]
    ) -> tuple[np.ndarray, float]:
        """Put a new picture and the tokens that follow it into the row, as one run, and keep the row up to the picture.

        Returns the logits after the last position, float32 [1, vocab], and the milliseconds that encoding took.
        """
        start = time.perf_counter()
        features = self._backend.encode(picture.pixels[None])[0]
        encode_ms = (time.perf_counter() - start) * 1e3
        self._steps += 1
        self._fill_head(row, head)
        # Positions do not see those behind them; where products round a whole run's inputs by one range, they do by that alone.
        joined = np.concatenate([features, self._backend.embed(following)]) if following else features
        logits = self._prefill(row, joined, [len(joined) - 1])
        length = self._cache.lengths[row]
        self._cache.lengths[row] = length - len(following)
        self._keep(picture.digest, row, 0)
        self._cache.lengths[row] = length
        return logits, encode_ms

    def _fill_turns(self, row: int, picture: Picture, tail: Sequence[int]) -> int:
        """Put the longest known beginning of what follows the picture behind it; returns how many of `tail` that is."""
        beginning, wanted = picture.digest + _TURNS, _packed(tail[:-1])
        keys = self._prefixes.keys(beginning)
        if not keys:
            return 0
        common, key = max((_common(wanted, key[len(beginning) :]), key) for key in keys)
        known = self._prefixes.get(key)
        if not common or known is None:
            return 0
        self._cache.extend(row, known, common)
        return common

    def _keep(self, key: bytes, row: int, start: int) -> None:
        """Keep what a row holds from `start` on; where memory does not suffice for that, make room and keep nothing."""
        assert self._head is not None
        expected = self._head.nbytes // self._head.length * (self._cache.lengths[row] - start)
        if not self._prefixes.make_room(expected):
            return
        try:
            self._prefixes.put(key, self._cache.save(row, start))
        except (MemoryError, BackendError) as error:
            if isinstance(error, BackendError) and error.code is not ErrorCode.OUT_OF_MEMORY:
                raise
            self._prefixes.clear()

    def _fill_head(self, row: int, head: Sequence[int]) -> None:
        if self._head is None:
            self._cache.lengths[row] = 0
            self._append(row, head, [len(head) - 1])
            self._head = self._cache.save(row)
        load(self._cache, row, self._head)

    def _append(self, row: int, tokens: Sequence[int], logits_at: Sequence[int]) -> np.ndarray:
        return self._prefill(row, self._backend.embed(tokens), logits_at)

    def _prefill(self, row: int, embeddings: np.ndarray, logits_at: Sequence[int]) -> np.ndarray:
        logits = self._backend.prefill(self._cache, row, embeddings, logits_at)
        self._steps += 1
        return logits


def _packed(tokens: Sequence[int]) -> bytes:
    return np.array(tokens, np.int32).tobytes()


def _common(one: bytes, other: bytes) -> int:
    """How many tokens the two begin with in common."""
    first, second = (np.frombuffer(packed, np.int32) for packed in (one, other))
    shorter = min(len(first), len(second))
    different = np.flatnonzero(first[:shorter] != second[:shorter])
    return int(different[0]) if len(different) else shorter

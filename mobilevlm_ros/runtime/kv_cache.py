"""The decoder's keys and values: one row of buffers per running request, and copies of prefixes that many requests share.

`KVCache` and `KVPrefix` are plain memory. Knows no model and no backend; a backend writes into the rows in place.
"""

from __future__ import annotations

import math
import mmap
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mobilevlm_ros.runtime.manifest import DecoderSpec


class Prefix(Protocol):
    """Keys and values of `length` positions of a prompt, which take `nbytes` of memory, wherever a backend keeps them."""

    @property
    def length(self) -> int: ...

    @property
    def nbytes(self) -> int: ...


class Cache(Protocol):
    """Keys and values of `rows` requests of up to `capacity` positions, wherever a backend keeps them.

    `lengths` tells how many positions each row holds. `save` copies a row's positions from `start` on, `extend` puts the first
    `count` of such a copy behind those that a row holds.
    """

    lengths: list[int]

    @property
    def rows(self) -> int: ...

    @property
    def capacity(self) -> int: ...

    def extend(self, row: int, prefix: Any, count: int) -> None: ...

    def save(self, row: int, start: int = 0) -> Prefix: ...


@dataclass(frozen=True, eq=False)
class KVPrefix:
    """Keys and values of `length` positions of a prompt: float32 [layers, kv_heads, length, head_dim] each."""

    keys: np.ndarray
    values: np.ndarray

    @property
    def length(self) -> int:
        """Positions covered."""
        return int(self.keys.shape[2])

    @property
    def nbytes(self) -> int:
        """Memory taken."""
        return self.keys.nbytes + self.values.nbytes


class KVCache:
    """Buffers for `rows` requests of up to `capacity` positions.

    Attributes:
        keys: one float32 array [rows, kv_heads, capacity, head_dim] per layer.
        values: likewise.
        lengths: positions filled in each row.
    """

    def __init__(self, spec: DecoderSpec, rows: int, capacity: int) -> None:
        shape = (rows, spec.kv_heads, capacity, spec.head_dim)
        self.keys = [_zeros(shape) for _ in range(spec.layers)]
        self.values = [_zeros(shape) for _ in range(spec.layers)]
        self.lengths = [0] * rows

    @property
    def rows(self) -> int:
        """Requests that can run at once."""
        return len(self.lengths)

    @property
    def capacity(self) -> int:
        """Longest prompt and answer together."""
        return int(self.keys[0].shape[2])

    def extend(self, row: int, prefix: KVPrefix, count: int) -> None:
        """Put the first `count` positions of a copy behind those that a row holds."""
        start, end = self.lengths[row], self.lengths[row] + count
        for layer in range(len(self.keys)):
            self.keys[layer][row, :, start:end] = prefix.keys[layer][:, :count]
            self.values[layer][row, :, start:end] = prefix.values[layer][:, :count]
        self.lengths[row] = end

    def save(self, row: int, start: int = 0) -> KVPrefix:
        """A copy of what a row holds from position `start` on."""
        end = self.lengths[row]
        keys = np.stack([layer[row, :, start:end] for layer in self.keys])
        values = np.stack([layer[row, :, start:end] for layer in self.values])
        return KVPrefix(keys, values)


def load(cache: Cache, row: int, prefix: Prefix) -> None:
    """Make a row hold a whole copy and nothing else."""
    cache.lengths[row] = 0
    cache.extend(row, prefix, prefix.length)


def _zeros(shape: tuple[int, ...]) -> np.ndarray:
    """float32 zeros that take memory only where they are written to, page by page.

    numpy would ask for huge pages, of which the few positions that a request fills of each head touch nearly all.
    """
    memory = mmap.mmap(-1, 4 * math.prod(shape), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages knows no such advice
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.float32).reshape(shape)


class PrefixCache:
    """The most recently used copies of prompts, within a bound in bytes. Safe to use from several threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[bytes, Prefix] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Memory that the kept prefixes take."""
        with self._lock:
            return self._bytes

    def get(self, key: bytes) -> Prefix | None:
        """The prefix kept under `key`, which becomes the most recently used."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
            return entry

    def put(self, key: bytes, prefix: Prefix) -> None:
        """Keep a prefix; the least recently used go until the bound holds. One that exceeds the bound by itself is not kept."""
        with self._lock:
            self._drop(key)
            if self._make_room(prefix.nbytes):
                self._entries[key] = prefix
                self._bytes += prefix.nbytes

    def make_room(self, nbytes: int) -> bool:
        """Let the least recently used go until a copy of so many bytes fits; False, and nothing goes, where none can."""
        with self._lock:
            return self._make_room(nbytes)

    def length(self, key: bytes) -> int | None:
        """Positions of the copy kept under `key`, if one is."""
        with self._lock:
            entry = self._entries.get(key)
            return None if entry is None else entry.length

    def keys(self, beginning: bytes) -> list[bytes]:
        """The keys that begin so."""
        with self._lock:
            return [key for key in self._entries if key.startswith(beginning)]

    def drop(self, key: bytes) -> None:
        """Forget what is kept under `key`."""
        with self._lock:
            self._drop(key)

    def clear(self) -> None:
        """Forget every prefix."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def _make_room(self, nbytes: int) -> bool:
        if nbytes > self._max_bytes:
            return False
        while self._bytes + nbytes > self._max_bytes:
            self._drop(next(iter(self._entries)))
        return True

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.nbytes

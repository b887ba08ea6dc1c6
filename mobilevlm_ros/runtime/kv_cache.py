"""The decoder's keys and values: one row of buffers per running request, and copies of prefixes that many requests share.

Plain memory. Knows no model and no backend; a backend writes into the rows in place.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from mobilevlm_ros.runtime.manifest import DecoderSpec


@dataclass(frozen=True, eq=False)
class KVPrefix:
    """Keys and values of a prompt's first `length` positions: float32 [layers, kv_heads, length, head_dim] each."""

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
        self.keys = [np.zeros(shape, np.float32) for _ in range(spec.layers)]
        self.values = [np.zeros(shape, np.float32) for _ in range(spec.layers)]
        self.lengths = [0] * rows

    @property
    def rows(self) -> int:
        """Requests that can run at once."""
        return len(self.lengths)

    @property
    def capacity(self) -> int:
        """Longest prompt and answer together."""
        return int(self.keys[0].shape[2])

    def load(self, row: int, prefix: KVPrefix) -> None:
        """Make a row hold `prefix` and nothing else."""
        for layer in range(len(self.keys)):
            self.keys[layer][row, :, : prefix.length] = prefix.keys[layer]
            self.values[layer][row, :, : prefix.length] = prefix.values[layer]
        self.lengths[row] = prefix.length

    def save(self, row: int) -> KVPrefix:
        """A copy of all that a row holds."""
        end = self.lengths[row]
        keys = np.stack([layer[row, :, :end] for layer in self.keys])
        values = np.stack([layer[row, :, :end] for layer in self.values])
        return KVPrefix(keys, values)


class PrefixCache:
    """The most recently used prefixes, within a bound in bytes. Safe to use from several threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[bytes, KVPrefix] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Memory that the kept prefixes take."""
        with self._lock:
            return self._bytes

    def get(self, key: bytes) -> KVPrefix | None:
        """The prefix kept under `key`, which becomes the most recently used."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
            return entry

    def put(self, key: bytes, prefix: KVPrefix) -> None:
        """Keep a prefix; the least recently used go until the bound holds. One that exceeds the bound by itself is not kept."""
        with self._lock:
            self._drop(key)
            if prefix.nbytes > self._max_bytes:
                return
            while self._bytes + prefix.nbytes > self._max_bytes:
                self._drop(next(iter(self._entries)))
            self._entries[key] = prefix
            self._bytes += prefix.nbytes

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.nbytes

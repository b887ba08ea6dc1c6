"""How fast this machine reads its memory, with as many threads as the model has.

Decoding a token reads every weight once, so this bounds how many tokens a second there can be. Threads look for the largest
number of an array that is larger than the caches: NumPy does that in vector instructions, as fast as the numbers come, and
outside Python's lock.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

LARGEST = 1 << 30
"""Bytes that are read at most; caches of all processors are smaller."""
_PASSES = 3


class MemoryReader:
    """Holds the array; takes `size` bytes of memory, or less where a quarter of what is available is less.

    Args:
        threads: 1 or more.
        available: bytes of memory that are free.
    """

    def __init__(self, threads: int, available: int, size: int = LARGEST) -> None:
        count = min(size, available // 4) // threads // 4
        self._parts = [np.zeros(count, np.float32) for _ in range(threads)]
        for part in self._parts:
            part.fill(1.0)  # pages that were never written are all the same one

    def read(self) -> float:
        """Gigabytes (10^9) a second: the best of three passes, because whatever else runs can only slow one down."""
        return max(self._pass() for _ in range(_PASSES))

    def _pass(self) -> float:
        with ThreadPoolExecutor(len(self._parts)) as pool:
            start = time.perf_counter()
            list(pool.map(np.max, self._parts))
            return sum(part.nbytes for part in self._parts) / (time.perf_counter() - start) / 1e9

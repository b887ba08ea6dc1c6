"""The cache of prefixes: least recently used out first, within its bound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from mobilevlm_ros.runtime.kv_cache import KVCache, KVPrefix, PrefixCache, load
from tests.fakes import manifest


def prefix(length: int) -> KVPrefix:
    keys = np.zeros((1, 1, length, 1), np.float32)
    return KVPrefix(keys, keys)


def test_a_saved_row_can_be_loaded_into_another() -> None:
    cache = KVCache(manifest().decoder, rows=2, capacity=8)
    cache.keys[0][0, 0, :3, 0] = [1, 2, 3]
    cache.lengths[0] = 3
    load(cache, 1, cache.save(0))
    assert cache.lengths == [3, 3]
    assert cache.keys[0][1, 0, :3, 0].tolist() == [1, 2, 3]


def test_a_part_of_a_row_can_be_put_behind_another() -> None:
    cache = KVCache(manifest().decoder, rows=2, capacity=8)
    cache.keys[0][0, 0, :4, 0] = [1, 2, 3, 4]
    cache.lengths = [4, 1]
    cache.extend(1, cache.save(0, start=1), count=2)
    assert cache.lengths == [4, 3]
    assert cache.keys[0][1, 0, :4, 0].tolist() == [0, 2, 3, 0]


def test_the_least_recently_used_goes_first() -> None:
    cache = PrefixCache(max_bytes=2 * prefix(10).nbytes)
    cache.put(b"a", prefix(10))
    cache.put(b"b", prefix(10))
    assert cache.get(b"a") is not None
    cache.put(b"c", prefix(10))
    assert [cache.get(key) is not None for key in (b"a", b"b", b"c")] == [True, False, True]


def test_the_bound_in_bytes_holds() -> None:
    cache = PrefixCache(max_bytes=prefix(25).nbytes)
    for i in range(100):
        cache.put(bytes([i]), prefix(1 + i % 25))
        assert cache.nbytes <= prefix(25).nbytes


def test_one_over_the_bound_is_not_kept_and_drives_nobody_out() -> None:
    cache = PrefixCache(max_bytes=prefix(10).nbytes)
    cache.put(b"a", prefix(10))
    cache.put(b"b", prefix(11))
    assert cache.get(b"a") is not None
    assert cache.get(b"b") is None


def test_putting_a_key_again_counts_it_once() -> None:
    cache = PrefixCache(max_bytes=prefix(100).nbytes)
    cache.put(b"a", prefix(10))
    cache.put(b"a", prefix(20))
    assert cache.nbytes == prefix(20).nbytes


def resident() -> int:
    """Bytes of this process's own memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def test_memory_is_taken_only_for_positions_that_are_used() -> None:
    spec = replace(manifest().decoder, layers=4, kv_heads=16, head_dim=128)
    before = resident()
    cache = KVCache(spec, rows=4, capacity=2048)
    reserved = sum(array.nbytes for array in (*cache.keys, *cache.values))
    for array in (*cache.keys, *cache.values):
        array[0, :, :64] = 1.0
    written = reserved * 64 // (4 * 2048)
    assert written <= resident() - before < 2 * written < reserved / 50

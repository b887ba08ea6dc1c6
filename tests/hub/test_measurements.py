"""What the catalogue's measurements rest on: checkpoints of full size with random weights, and the memory of a process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="checkpoints are written with torch")

import torch

from bench.random_checkpoint import write_random_checkpoint, write_tokenizer
from bench.usage import run_measured
from mobilevlm_ros.checkpoint.reader import CheckpointTensors
from mobilevlm_ros.runtime.tokenizer import Tokenizer
from tests.make_checkpoint import random_tensors, tiny_config

MEGABYTE = 1_000_000


@pytest.mark.parametrize("shard_bytes", [10**9, 200_000])
def test_a_random_checkpoint_is_read_like_a_released_one(tmp_path: Path, shard_bytes: int) -> None:
    config = tiny_config()
    size = write_random_checkpoint(tmp_path / "c", config, seed=3, shard_bytes=shard_bytes)
    expected = random_tensors(config, 3, torch.bfloat16)
    tensors = CheckpointTensors.open(tmp_path / "c", config)
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    assert size == sum(tensor.numel() * 2 for tensor in expected.values())
    assert len(tensors.files) == (1 if shard_bytes > size else 3)


def test_its_files_are_those_of_a_release(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "single", tiny_config())
    assert sorted(path.name for path in (tmp_path / "single").iterdir()) == [
        "config.json",
        "pytorch_model.bin",
        "tokenizer.model",
    ]
    write_random_checkpoint(tmp_path / "sharded", tiny_config(), shard_bytes=300_000)
    assert {"pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin"} <= {
        path.name for path in (tmp_path / "sharded").iterdir()
    }


def test_writing_it_holds_no_more_than_a_tensor(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from bench.random_checkpoint import write_random_checkpoint
from tests.make_checkpoint import tiny_config
import resource
config = tiny_config(hidden=512, layers=12, heads=8, mlp=2048)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
size = write_random_checkpoint(Path({str(tmp_path / "c")!r}), config)
print(size, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    usage = run_measured([sys.executable, "-c", program])
    assert usage.status == 0
    size, grown = map(int, usage.output.split())
    assert size > 80 * MEGABYTE
    assert grown < size / 2


def test_the_tokenizer_has_as_many_pieces_as_the_vocabulary(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer.model", 32000)
    assert Tokenizer(tmp_path / "tokenizer.model").vocab_size == 32000


def test_a_programs_memory_time_output_and_status_are_seen() -> None:
    usage = run_measured(
        [sys.executable, "-c", "import time; b = bytearray(200_000_000); time.sleep(0.5); print('out'); exit(3)"]
    )
    assert (usage.status, usage.output) == (3, "out\n")
    assert 200 * MEGABYTE < usage.anonymous_bytes <= usage.peak_bytes < 260 * MEGABYTE
    assert 0.5 < usage.seconds < 60


def test_mapped_files_do_not_count_as_anonymous(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100 * MEGABYTE))
    program = f"""
import mmap, time
with open({str(tmp_path / "file")!r}, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
    sum(mapped[::4096])
    time.sleep(0.3)
"""
    usage = run_measured([sys.executable, "-c", program])
    assert usage.status == 0
    assert usage.anonymous_bytes < 50 * MEGABYTE < 100 * MEGABYTE < usage.peak_bytes

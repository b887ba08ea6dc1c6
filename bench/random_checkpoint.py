"""Writes a checkpoint of full size with random weights, in the released layout, without holding it in memory.

For measurements: what a conversion takes does not depend on what the numbers are. The files are those of a release: bfloat16,
one `pytorch_model.bin` or shards with an index, the vision tower inside, and a tokenizer of as many pieces as the vocabulary.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from tqdm import tqdm

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.model import expected_shapes
from tests.make_checkpoint import random_tensor
from tests.parity import PARITY

SHARD_BYTES = 9_980_000_000
"""The largest file of a release; what is larger comes in several."""
_BF16_BYTES = 2


def write_random_checkpoint(folder: Path, config: MobileVlmConfig, seed: int = 0, shard_bytes: int = SHARD_BYTES) -> int:
    """Writes config, tokenizer and weights into a new folder; returns the weights' bytes. Shows its progress."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_json()), encoding="utf-8")
    write_tokenizer(folder / "tokenizer.model", config.vocab_size)
    shapes = expected_shapes(config)
    shards = _shards(shapes, shard_bytes)
    generator = torch.Generator().manual_seed(seed)
    total = _BF16_BYTES * sum(math.prod(shape) for shape in shapes.values())
    with tqdm(desc=f"writing {folder.name}", total=total, unit="B", unit_scale=True, disable=None) as bar:
        for number, names in enumerate(shards, start=1):
            path = folder / ("pytorch_model.bin" if len(shards) == 1 else f"pytorch_model-{number:05}-of-{len(shards):05}.bin")
            _write_shard(path, {name: shapes[name] for name in names}, generator, bar)
    if len(shards) > 1:
        files = {
            name: f"pytorch_model-{number:05}-of-{len(shards):05}.bin"
            for number, names in enumerate(shards, start=1)
            for name in names
        }
        index = {"metadata": {"total_size": total}, "weight_map": files}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    return total


def write_tokenizer(path: Path, pieces: int) -> None:
    """A SentencePiece model with at least this many pieces: a small real one, filled up with made-up words."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString((PARITY / "tokenizer.model").read_bytes())
    if len(model.pieces) >= pieces:
        shutil.copyfile(PARITY / "tokenizer.model", path)
        return
    for number in range(len(model.pieces), pieces):
        model.pieces.add(piece=f"\u2581word{number}", score=-float(number))
    model.trainer_spec.vocab_size = pieces
    path.write_bytes(model.SerializeToString())


def _shards(shapes: Mapping[str, tuple[int, ...]], shard_bytes: int) -> list[list[str]]:
    """Tensor names in order, so many to a file that it stays below `shard_bytes`."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, shape in shapes.items():
        count = _BF16_BYTES * math.prod(shape)
        if size and size + count > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += count
    return shards


def _write_shard(path: Path, shapes: Mapping[str, tuple[int, ...]], generator: torch.Generator, bar: tqdm) -> None:
    """A file of `torch.save` whose numbers are put in one tensor after another."""
    with FakeTensorMode():
        tensors = {name: torch.empty(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save(tensors, path)
    with path.open("r+b") as file:
        for (name, shape), offset in zip(shapes.items(), _offsets(path, len(shapes))):
            values = random_tensor(name, shape, generator, torch.bfloat16)
            file.seek(offset)
            file.write(memoryview(values.view(torch.int16).numpy().reshape(-1)).cast("B"))
            bar.update(values.numel() * _BF16_BYTES)


def _offsets(path: Path, count: int) -> Sequence[int]:
    """Where in the file each tensor's numbers lie, in the order in which they were saved."""
    reader = torch._C.PyTorchFileReader(str(path))
    return [reader.get_record_offset(f"data/{number}") for number in range(count)]

"""The exported decoder against the PyTorch one: head sizes, the cache, positions asked for, rows decoded together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.model import MobileVLM
from mobilevlm_ros.checkpoint.reader import CheckpointTensors, load_model
from mobilevlm_ros.export.convert import ConvertOptions, convert
from tests.export.graph_runner import GraphRunner
from tests.make_checkpoint import tiny_config, write_checkpoint
from tests.parity import relative

TOLERANCE = 1e-5
CONFIGS = {
    "heads of 80 as in the 3B": tiny_config(hidden=160, heads=2, head_dim=80),
    "heads of 128 as in the 1.7B": tiny_config(hidden=256, heads=2, head_dim=128),
    "fewer key-value heads": tiny_config(heads=4, kv_heads=2),
    "heads that do not make up the width": tiny_config(hidden=64, heads=2, head_dim=48),
    "heads too small for fused rotation": tiny_config(heads=8, head_dim=8),
    "heads that are filled up": tiny_config(hidden=60, heads=3, head_dim=20),
    "heads of 10 with fewer for keys and values": tiny_config(hidden=40, heads=4, kv_heads=2, head_dim=10),
    "heads of 24": tiny_config(hidden=96, heads=4, kv_heads=1),
    "one layer": tiny_config(layers=1),
    "tied embeddings": tiny_config(tied=True),
}


def prepare(folder: Path, config: MobileVlmConfig, rows: int = 1, capacity: int = 64) -> tuple[MobileVLM, GraphRunner]:
    checkpoint = write_checkpoint(folder / "checkpoint", config, seed=7)
    convert(checkpoint, folder / "package", ConvertOptions(verify=False))
    read = MobileVlmConfig.read(checkpoint)
    return load_model(CheckpointTensors.open(checkpoint, read), read), GraphRunner(folder / "package", rows, capacity)


def logits_of(model: MobileVLM, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(model(torch.tensor([ids]))[0].numpy())


def random_ids(count: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(3, 600, count)]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_prefill_in_parts_and_single_steps_give_the_logits_of_pytorch(tmp_path: Path, name: str) -> None:
    model, graphs = prepare(tmp_path, CONFIGS[name])
    ids = random_ids(24)
    parts = [
        graphs.prefill(graphs.embed(part), list(range(len(part)))) for part in (ids[:9], ids[9:20], *([i] for i in ids[20:]))
    ]
    assert relative(np.concatenate(parts), logits_of(model, ids)) < TOLERANCE


def test_only_the_positions_asked_for_come_back_in_their_order(tmp_path: Path) -> None:
    model, graphs = prepare(tmp_path, tiny_config())
    ids = random_ids(12)
    expected = logits_of(model, ids)
    assert relative(graphs.prefill(graphs.embed(ids), [11, 3, 3]), expected[[11, 3, 3]]) < TOLERANCE


def test_a_prefill_may_ask_for_no_logits(tmp_path: Path) -> None:
    model, graphs = prepare(tmp_path, tiny_config())
    ids = random_ids(12)
    assert graphs.prefill(graphs.embed(ids[:-1]), []).shape == (0, 600)
    assert relative(graphs.prefill(graphs.embed(ids[-1:]), [0]), logits_of(model, ids)[-1:]) < TOLERANCE


@pytest.mark.parametrize("head_dim", [12, 16, 24])
def test_rows_of_different_lengths_decode_as_one_batch(tmp_path: Path, head_dim: int) -> None:
    model, graphs = prepare(tmp_path, tiny_config(head_dim=head_dim), rows=3)
    rows = [random_ids(count, seed=count) for count in (5, 17, 9)]
    for row, ids in enumerate(rows):
        graphs.prefill(graphs.embed(ids[:-2]), [0], row)
    for step in (-2, -1):
        last = graphs.step(graphs.embed([ids[step] for ids in rows])[:, None], np.zeros((3, 1), np.int64))
    for row, ids in enumerate(rows):
        assert relative(last[row, 0], logits_of(model, ids)[-1]) < TOLERANCE


def test_what_an_earlier_answer_left_in_the_buffers_does_not_matter(tmp_path: Path) -> None:
    model, graphs = prepare(tmp_path, tiny_config())
    ids = random_ids(6)
    graphs.prefill(graphs.embed(random_ids(40, seed=1)), [])
    graphs.past[:] = 0
    assert relative(graphs.prefill(graphs.embed(ids), [5]), logits_of(model, ids)[-1:]) < TOLERANCE


def test_positions_up_to_the_last_are_rotated_as_in_pytorch(tmp_path: Path) -> None:
    config = tiny_config()
    model, graphs = prepare(tmp_path, config, capacity=config.max_position_embeddings)
    ids = random_ids(config.max_position_embeddings)
    assert relative(graphs.prefill(graphs.embed(ids), [len(ids) - 1]), logits_of(model, ids)[-1:]) < 1e-4


def test_the_graph_needs_no_newer_onnx_than_the_oldest_runtime_reads(tmp_path: Path) -> None:
    prepare(tmp_path, tiny_config())
    model = onnx.load(tmp_path / "package" / "decoder.cpu.onnx", load_external_data=False)
    assert model.ir_version <= 10
    assert {(entry.domain, entry.version) for entry in model.opset_import} == {("", 17), ("com.microsoft", 1)}

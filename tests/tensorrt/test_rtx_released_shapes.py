"""TensorRT-RTX compiles the released checkpoints' shapes with random weights: compiled, not run, and not by TensorRT itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.export.linear_weights import BLOCK, BlockWeight
from mobilevlm_ros.export.trt_graphs import Target
from mobilevlm_ros.hub.catalogue import Entry, catalogue
from mobilevlm_ros.runtime.manifest import Precision
from tests.export.tensors import RandomTensors
from tests.export.trt_graphs import Model, write_graphs
from tests.tensorrt.rtx import REASON, Sizes, compiled

pytest.importorskip("tensorrt_rtx_bindings", reason=REASON)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
RELEASED = [entry for entry in catalogue() if entry.hub_id is not None]
SIZES = Sizes(capacity=1024, prefill=256, rows=2)
GIB = 1 << 30


def in_four_bits(config: MobileVlmConfig) -> Model:
    """With integers that repeat, so that they take no memory; the vocabulary's matrix stays in float16."""
    tensors, linears = RandomTensors(config), {}
    block = np.random.default_rng(0).integers(0, 256, (1, 1, BLOCK // 2), np.uint8)
    for name in tensors:
        if name.startswith("model.layers.") and name.endswith("proj.weight"):
            rows, columns = tensors.shape(name)
            blocks = columns // BLOCK
            scales = np.broadcast_to(np.float32(0.01), (rows, blocks))
            linears[name] = BlockWeight(4, columns, np.broadcast_to(block, (rows, blocks, BLOCK // 2)), scales)
    return Model(config, tensors, linears)


@pytest.mark.parametrize("dialect", ["trt", "trt-portable"])
def test_the_whole_1_7b_in_four_bits_compiles_and_stays_small(tmp_path: Path, dialect: str) -> None:
    (entry,) = (entry for entry in RELEASED if entry.name == "v2-1.7b")
    tower = replace(entry.config.vision, num_hidden_layers=2)
    model = in_four_bits(replace(entry.config, vision=tower))
    write_graphs(tmp_path, model, Precision.INT4, Target(dialect))
    # 1.2 billion weights in half a byte and 2 bytes of scale for 128 of them, and the vocabulary's in 2 bytes.
    assert compiled(tmp_path / f"decoder.{dialect}.onnx", SIZES) < 0.9 * GIB


@pytest.mark.parametrize("entry", RELEASED, ids=lambda entry: entry.name)
def test_full_width_at_two_layers_compiles(tmp_path: Path, entry: Entry) -> None:
    tower = replace(entry.config.vision, num_hidden_layers=3)
    config = replace(entry.config, num_hidden_layers=2, vision=tower)
    model = Model(config, RandomTensors(config), {})
    write_graphs(tmp_path / "half", model, Precision.FP16)
    write_graphs(tmp_path / "int4", in_four_bits(config), Precision.INT4)
    for folder in ("half", "int4"):
        for name in ("decoder.trt.onnx", "decoder.trt-portable.onnx"):
            assert compiled(tmp_path / folder / name, SIZES) > 0
    assert compiled(tmp_path / "half" / "vision.trt.onnx") > 0


def test_the_whole_vision_tower_compiles(tmp_path: Path) -> None:
    (entry,) = (entry for entry in RELEASED if entry.name == "v2-1.7b")
    config = replace(entry.config, num_hidden_layers=1)
    write_graphs(tmp_path, Model(config, RandomTensors(config), {}), Precision.FP16, Target.TRT)
    assert compiled(tmp_path / "vision.trt.onnx") > 0.45 * GIB

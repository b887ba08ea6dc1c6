"""The released checkpoints' shapes with random weights: the graphs for TensorRT agree with PyTorch there too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mobilevlm_ros.export.convert import ConvertOptions, convert
from mobilevlm_ros.export.trt_graphs import Target
from mobilevlm_ros.hub.catalogue import Entry, catalogue
from mobilevlm_ros.runtime.manifest import Precision
from tests.export.trt_graphs import DECODERS, decoder_difference, int4_model, write_graphs
from tests.make_checkpoint import TOWER, Files, write_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
RELEASED = [entry for entry in catalogue() if entry.hub_id is not None]
HALF = 5e-3
FULL_DEPTH = 1e-2
"""Of 24 layers, each of which rounds to float16 and hands its error on."""


def converted(folder: Path, entry: Entry, layers: int, tower_layers: int) -> list[float]:
    """Converts random weights for all backends; differences of the CPU's graphs from PyTorch and of the others from the CPU's."""
    tower = replace(entry.config.vision, num_hidden_layers=tower_layers)
    config = replace(entry.config, num_hidden_layers=layers, vision=tower, mm_vision_tower=TOWER)
    write_checkpoint(folder / "c", config, seed=2, files=Files(dtype=torch.bfloat16))
    report = convert(folder / "c", folder / "p", ConvertOptions(precision=Precision.FP16, target=Target.ALL))
    assert report.agreement is not None and len(report.beside) == 3
    assert max(report.agreement.features, report.agreement.logits) < 1e-3
    differences = [graph.difference for graph in report.beside]
    return [1.0 if difference is None else difference for difference in differences]


@pytest.mark.parametrize("entry", RELEASED, ids=lambda entry: entry.name)
def test_full_width_at_two_layers_agrees(tmp_path: Path, entry: Entry) -> None:
    # A feature passes two of the tower's three layers.
    assert max(converted(tmp_path, entry, layers=2, tower_layers=3)) < HALF


def test_the_whole_1_7b_agrees(tmp_path: Path) -> None:
    (entry,) = (entry for entry in RELEASED if entry.name == "v2-1.7b")
    config = entry.config
    found = converted(tmp_path, entry, config.num_hidden_layers, config.vision.num_hidden_layers)
    assert max(found) < FULL_DEPTH


@pytest.mark.parametrize("entry", RELEASED, ids=lambda entry: entry.name)
def test_full_width_in_four_bits_gives_the_logits_of_the_rounded_weights(tmp_path: Path, entry: Entry) -> None:
    tower = replace(entry.config.vision, num_hidden_layers=2)
    model = int4_model(replace(entry.config, num_hidden_layers=1, vision=tower))
    write_graphs(tmp_path, model, Precision.INT4)
    for dialect in DECODERS:
        assert decoder_difference(tmp_path, model, dialect) < HALF

"""The released checkpoints' widths with fewer layers and random weights: PyTorch and ONNX agree there too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mobilevlm_ros.export.convert import ConvertOptions, convert
from mobilevlm_ros.hub.catalogue import Entry, catalogue
from tests.make_checkpoint import TOWER, Files, write_checkpoint

RELEASED = [entry for entry in catalogue() if entry.hub_id is not None]


@pytest.mark.slow
@pytest.mark.parametrize("entry", RELEASED, ids=lambda entry: entry.name)
def test_full_width_at_two_layers_agrees(tmp_path: Path, entry: Entry) -> None:
    # A feature passes two of the tower's three layers.
    tower = replace(entry.config.vision, num_hidden_layers=3)
    config = replace(entry.config, num_hidden_layers=2, vision=tower, mm_vision_tower=TOWER)
    write_checkpoint(tmp_path / "c", config, seed=2, files=Files(dtype=torch.bfloat16))
    report = convert(tmp_path / "c", tmp_path / "p", ConvertOptions())
    assert report.agreement is not None
    assert max(report.agreement.features, report.agreement.logits) < 1e-4

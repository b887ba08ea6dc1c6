"""The released checkpoints' widths with fewer layers and random weights: PyTorch and ONNX agree there too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mobilevlm_ros.checkpoint.config import ProjectorKind, VisionConfig
from mobilevlm_ros.export.convert import ConvertOptions, convert
from tests.make_checkpoint import Files, tiny_config, write_checkpoint

# CLIP ViT-L/14-336 with three layers, of which a feature passes two.
VISION = VisionConfig(1024, 4096, 3, 16, 336, 14)
SIZES = {"1.7B": (2048, 16, 5632), "3B": (2560, 32, 6912)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(ProjectorKind))
@pytest.mark.parametrize("size", SIZES)
def test_full_width_at_two_layers_agrees(tmp_path: Path, size: str, kind: ProjectorKind) -> None:
    hidden, heads, mlp = SIZES[size]
    config = tiny_config(kind, hidden=hidden, layers=2, heads=heads, mlp=mlp, vocab=32000, vision=VISION)
    write_checkpoint(tmp_path / "c", config, seed=2, files=Files(dtype=torch.bfloat16))
    report = convert(tmp_path / "c", tmp_path / "p", ConvertOptions())
    assert report.agreement is not None
    assert max(report.agreement.features, report.agreement.logits) < 1e-4

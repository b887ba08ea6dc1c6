"""Layer by layer, a model computes exactly what it computes whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mobilevlm_ros.checkpoint.config import MobileVlmConfig, ProjectorKind
from mobilevlm_ros.checkpoint.layerwise import LayerwiseDecoder, LayerwiseVision
from mobilevlm_ros.checkpoint.model import normalise
from mobilevlm_ros.checkpoint.reader import CheckpointTensors, load_model
from tests.make_checkpoint import tiny_config, write_checkpoint


def opened(folder: Path, kind: ProjectorKind, tied: bool = False) -> tuple[MobileVlmConfig, CheckpointTensors]:
    config = tiny_config(kind, heads=4, kv_heads=2, layers=3, tied=tied)
    write_checkpoint(folder, config, seed=5)
    return config, CheckpointTensors.open(folder, config)


@pytest.mark.parametrize("kind", list(ProjectorKind))
def test_visual_tokens_are_those_of_the_whole_model(tmp_path: Path, kind: ProjectorKind) -> None:
    config, tensors = opened(tmp_path, kind)
    size = config.vision.image_size
    pixels = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8, generator=torch.manual_seed(0))
    vision = LayerwiseVision(tensors, config)
    hidden = vision.embed(pixels)
    for layer in vision.layers():
        hidden = layer(hidden)
    with torch.no_grad():
        expected = load_model(tensors, config).encode_images(normalise(pixels, config.vision))
    torch.testing.assert_close(vision.project(hidden), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_those_of_the_whole_model(tmp_path: Path, tied: bool) -> None:
    config, tensors = opened(tmp_path, ProjectorKind.LDP_V2, tied)
    ids = torch.arange(3, 40)
    decoder = LayerwiseDecoder(tensors, config)
    hidden = decoder.embed(ids)[None]
    for layer in decoder.layers():
        hidden = layer(hidden)
    with torch.no_grad():
        expected = load_model(tensors, config)(ids[None])
    torch.testing.assert_close(decoder.norm(hidden) @ decoder.head().T, expected, rtol=1e-5, atol=1e-5)


def test_an_observer_sees_the_input_of_every_linear_map(tmp_path: Path) -> None:
    config, tensors = opened(tmp_path, ProjectorKind.LDP_V2)
    layer = next(LayerwiseDecoder(tensors, config).layers())
    seen: dict[str, torch.Tensor] = {}
    hidden = torch.randn(1, 6, config.hidden_size, generator=torch.manual_seed(0))
    result = layer.observe(hidden, seen.__setitem__)
    assert list(seen) == list(layer.linears())
    assert seen["model.layers.0.mlp.down_proj.weight"].shape == (1, 6, config.intermediate_size)
    assert seen["model.layers.0.self_attn.q_proj.weight"] is seen["model.layers.0.self_attn.k_proj.weight"]
    torch.testing.assert_close(result, layer(hidden))
    assert set(layer.linears()) <= set(tensors)

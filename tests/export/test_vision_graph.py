"""The exported encoder against the PyTorch one, at sizes beside the recorded ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from mobilevlm_ros.checkpoint.config import MobileVlmConfig, ProjectorKind, VisionConfig
from mobilevlm_ros.checkpoint.model import normalise
from mobilevlm_ros.checkpoint.reader import CheckpointTensors, load_model
from mobilevlm_ros.export.convert import ConvertOptions, convert
from mobilevlm_ros.runtime.manifest import Precision
from tests.export.graph_runner import open_graph
from tests.make_checkpoint import tiny_config, write_checkpoint
from tests.parity import relative

TOLERANCE = 1e-5
LDP, V2 = ProjectorKind.LDP, ProjectorKind.LDP_V2
CONFIGS = {
    "v2, two patches to a token": tiny_config(V2, image_size=336),
    "v2, a patch to a token": tiny_config(V2, image_size=168),
    "v2, windows that overlap": tiny_config(V2, image_size=224),
    "v2, fewer patches than tokens": tiny_config(V2, image_size=140),
    "ldp": tiny_config(LDP, image_size=336),
    "ldp, odd grid": tiny_config(LDP, image_size=98),
    "ldp, squeeze that is no quarter": tiny_config(LDP, hidden=80, heads=5),
    "last hidden state": tiny_config(V2, select_layer=-1),
    "hidden state counted from the front": tiny_config(V2, select_layer=1),
    "embeddings alone": tiny_config(V2, select_layer=0),
    "tower with exact gelu": tiny_config(V2, vision=VisionConfig(32, 72, 3, 2, 168, 14, hidden_act="gelu")),
    "own normalisation, other eps": tiny_config(
        V2, vision=VisionConfig(32, 72, 2, 4, 168, 14, layer_norm_eps=1e-3, image_mean=(0.1, 0.2, 0.3), image_std=(0.4, 0.5, 0.6))
    ),
}


def compare(folder: Path, config: MobileVlmConfig, precision: Precision = Precision.FP32) -> float:
    """The difference of two pictures' features, both encoded at once."""
    checkpoint = write_checkpoint(folder / "checkpoint", config, seed=5)
    convert(checkpoint, folder / "package", ConvertOptions(precision=precision, verify=False))
    read = MobileVlmConfig.read(checkpoint)
    assert read == config
    pixels = np.random.default_rng(0).integers(0, 256, (2, *[config.vision.image_size] * 2, 3), np.uint8)
    (features,) = open_graph(folder / "package" / "vision.onnx").run(["features"], {"pixels": pixels})
    model = load_model(CheckpointTensors.open(checkpoint, read), read)
    with torch.no_grad():
        expected = model.encode_images(normalise(torch.from_numpy(pixels), read.vision)).numpy()
    assert features.shape == (2, config.image_tokens, config.hidden_size)
    return relative(features, expected)


@pytest.mark.parametrize("name", CONFIGS)
def test_features_are_those_of_pytorch(tmp_path: Path, name: str) -> None:
    assert compare(tmp_path, CONFIGS[name]) < TOLERANCE


@pytest.mark.parametrize("kind", list(ProjectorKind))
def test_float16_storage_of_float16_weights_loses_nothing(tmp_path: Path, kind: ProjectorKind) -> None:
    assert compare(tmp_path, tiny_config(kind), Precision.FP16) < TOLERANCE


def exported(folder: Path, config: MobileVlmConfig) -> onnx.ModelProto:
    convert(write_checkpoint(folder / "checkpoint", config), folder / "package", ConvertOptions(verify=False))
    return onnx.load(folder / "package" / "vision.onnx", load_external_data=False)


def test_the_tower_stops_at_the_selected_layer(tmp_path: Path) -> None:
    config = tiny_config(vision=VisionConfig(32, 72, 5, 4, 168, 14))
    names = {tensor.name for tensor in exported(tmp_path, config).graph.initializer}
    layers = {name.split("encoder.layers.")[1].split(".")[0] for name in names if "encoder.layers." in name}
    assert layers == {"0", "1", "2", "3"}
    assert not any("post_layernorm" in name for name in names)


@pytest.mark.parametrize("kind", list(ProjectorKind))
def test_the_graph_is_plain_onnx_but_for_its_attention(tmp_path: Path, kind: ProjectorKind) -> None:
    model = exported(tmp_path, tiny_config(kind))
    onnx.checker.check_model(str(tmp_path / "package" / "vision.onnx"), full_check=True)
    assert {node.op_type for node in model.graph.node if node.domain} == {"MultiHeadAttention"}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17), ("com.microsoft", 1)]


def test_gelu_is_the_exact_one(tmp_path: Path) -> None:
    operators = [node.op_type for node in exported(tmp_path, tiny_config(LDP)).graph.node]
    assert "Erf" in operators
    assert "Tanh" not in operators

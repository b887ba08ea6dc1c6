"""The joined model: names, sizes, where the picture goes, and that it can be trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mobilevlm_ros.checkpoint.config import IMAGE_TOKEN, MobileVlmConfig, ProjectorKind, VisionConfig
from mobilevlm_ros.checkpoint.errors import CheckpointError
from mobilevlm_ros.checkpoint.model import PROJECTOR_PREFIX, VISION_PREFIX, MobileVLM, expected_shapes
from mobilevlm_ros.checkpoint.reader import CheckpointTensors, load_model
from mobilevlm_ros.checkpoint.save import save_checkpoint
from tests.make_checkpoint import random_tensors, tiny_config
from tests.parity import PARITY


def tiny_model(config: MobileVlmConfig | None = None, seed: int = 0) -> MobileVLM:
    config = config or tiny_config()
    return load_model(random_tensors(config, seed), config)


@pytest.mark.parametrize(
    ("hidden", "layers", "heads", "mlp", "published"),
    [(2048, 24, 16, 5632, 1_364_297_728), (2560, 32, 32, 6912, 2_701_560_320)],
)
def test_the_released_language_models_have_the_published_number_of_parameters(
    hidden: int, layers: int, heads: int, mlp: int, published: int
) -> None:
    vision = VisionConfig.clip_vit_l_336()
    shapes = expected_shapes(tiny_config(hidden=hidden, layers=layers, heads=heads, mlp=mlp, vocab=32000, vision=vision))
    language = [shape for name, shape in shapes.items() if not name.startswith((VISION_PREFIX, PROJECTOR_PREFIX))]
    assert sum(torch.Size(shape).numel() for shape in language) == published


@pytest.mark.parametrize("name", ["ldpnet", "ldpnetv2"])
def test_the_tensor_names_are_the_released_ones(name: str) -> None:
    released = torch.load(PARITY / name / "pytorch_model.bin", weights_only=True)
    assert expected_shapes(MobileVlmConfig.read(PARITY / name)) == {key: tuple(t.shape) for key, t in released.items()}


def test_visual_tokens_stand_where_the_image_token_stood() -> None:
    model = tiny_model()
    features = torch.rand(1, 144, 64)
    embeds = model.embed(torch.tensor([[5, 6, IMAGE_TOKEN, 7]]), features)
    words = model.embed(torch.tensor([[5, 6, 7]]))
    assert embeds.shape == (1, 147, 64)
    torch.testing.assert_close(embeds[:, 2:146], features)
    torch.testing.assert_close(torch.cat([embeds[:, :2], embeds[:, 146:]], dim=1), words)


def test_several_pictures_are_taken_in_reading_order() -> None:
    features = torch.arange(3.0)[:, None, None].expand(3, 144, 64)
    embeds = tiny_model().embed(torch.tensor([[IMAGE_TOKEN, 5], [IMAGE_TOKEN, 6], [7, IMAGE_TOKEN]]), features)
    assert [embeds[0, 0, 0], embeds[1, 0, 0], embeds[2, 1, 0]] == [0, 1, 2]


@pytest.mark.parametrize("ids", [[[5, 6]], [[IMAGE_TOKEN, IMAGE_TOKEN]]])
def test_a_picture_too_many_or_too_few_is_refused(ids: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="pictures"):
        tiny_model().embed(torch.tensor(ids), torch.rand(1, 144, 64))


def test_rows_that_would_differ_in_length_are_refused() -> None:
    with pytest.raises(ValueError, match="same number"):
        tiny_model().embed(torch.tensor([[IMAGE_TOKEN, IMAGE_TOKEN], [5, 6]]), torch.rand(2, 144, 64))


def test_what_stands_behind_cannot_change_the_logits_before() -> None:
    model, features = tiny_model(), torch.rand(1, 144, 64)
    first = model(torch.tensor([[1, IMAGE_TOKEN, 5, 6, 0, 0]]), features=features)
    second = model(torch.tensor([[1, IMAGE_TOKEN, 5, 6, 7, 8]]), features=features)
    torch.testing.assert_close(first[:, :-2], second[:, :-2])
    assert not torch.allclose(first[:, -1], second[:, -1])


def test_generation_takes_the_likeliest_token_each_time_and_ends_at_the_end_token() -> None:
    model, ids = tiny_model(), [1, 5, 6]
    tokens = model.generate(torch.tensor([ids]), max_tokens=5)
    for count, token in enumerate(tokens):
        assert token == model(torch.tensor([ids + tokens[:count]]))[0, -1].argmax()
    model.config = replace(model.config, eos_token_id=tokens[1])
    assert model.generate(torch.tensor([ids]), max_tokens=5) == tokens[:2]


@pytest.mark.parametrize("kind", list(ProjectorKind))
def test_a_loss_on_the_answer_trains_everything_the_feature_passes(kind: ProjectorKind) -> None:
    model = tiny_model(tiny_config(kind)).train()
    model(torch.tensor([[1, IMAGE_TOKEN, 5]]), pixel_values=torch.rand(1, 3, 168, 168))[0, -1, 7].backward()
    still = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    # The tower's last layer and its last norm come after the selected hidden state.
    assert still
    assert all("encoder.layers.2." in name or "post_layernorm" in name or "k_proj.bias" in name for name in still), still


def test_other_tower_layers_can_be_selected() -> None:
    tensors = random_tensors(tiny_config(), 0)
    pixels = torch.rand(1, 3, 168, 168)
    features = {}
    for select in (-1, -2, 2):
        features[select] = load_model(tensors, tiny_config(select_layer=select)).encode_patches(pixels)
    torch.testing.assert_close(features[-2], features[2])
    assert not torch.allclose(features[-1], features[-2])


def test_tied_embeddings_are_one_tensor() -> None:
    config = tiny_config(tied=True)
    assert "lm_head.weight" not in expected_shapes(config)
    model = tiny_model(config)
    assert model.language.lm_head.weight is model.language.model.embed_tokens.weight


def test_a_saved_model_reads_back_the_same(tmp_path: Path) -> None:
    model = tiny_model()
    save_checkpoint(model, tmp_path, PARITY / "tokenizer.model", torch.float32)
    config = MobileVlmConfig.read(tmp_path)
    assert config == model.config
    again = load_model(CheckpointTensors.open(tmp_path, config), config)
    assert all(torch.equal(tensor, dict(again.named_tensors())[name]) for name, tensor in model.named_tensors())
    assert (tmp_path / "tokenizer.model").read_bytes() == (PARITY / "tokenizer.model").read_bytes()


def test_a_missing_or_misshapen_tensor_is_named() -> None:
    tensors = random_tensors(tiny_config(), 0)
    name = "model.layers.1.mlp.up_proj.weight"
    with pytest.raises(CheckpointError, match=name):
        MobileVLM(tiny_config()).load_tensors({**tensors, name: torch.zeros(3, 64)})
    del tensors[name]
    with pytest.raises(CheckpointError, match=name):
        MobileVLM(tiny_config()).load_tensors(tensors)

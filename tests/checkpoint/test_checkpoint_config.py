"""Reading a checkpoint's config.json and its vision tower's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.checkpoint.config import MobileVlmConfig, ProjectorKind, VisionConfig
from mobilevlm_ros.checkpoint.errors import CheckpointError
from tests.make_checkpoint import tiny_config
from tests.parity import PARITY

V2_3B = {
    "architectures": ["MobileLlamaForCausalLM"],
    "model_type": "mobilevlm",
    "vocab_size": 32000,
    "hidden_size": 2560,
    "intermediate_size": 6912,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "hidden_act": "silu",
    "mm_hidden_size": 1024,
    "mm_projector_type": "ldpnetv2",
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch",
    "image_aspect_ratio": "pad",
    "image_grid_pinpoints": None,
    "tie_word_embeddings": False,
    # Keys that the released file carries and that mean nothing.
    "n_head": 16,
    "n_query_groups": 16,
    "name": "huggy_llama_3b",
}


def write(folder: Path, **changes: Any) -> Path:
    """The released V2-3B config with some keys changed; a key changed to ... is left out."""
    values = {key: value for key, value in {**V2_3B, **changes}.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def error_of(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        MobileVlmConfig.read(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_released_config_reads_with_its_stale_keys_ignored(tmp_path: Path) -> None:
    config = MobileVlmConfig.read(write(tmp_path))
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (32, 32, 80)
    assert config.projector is ProjectorKind.LDP_V2
    assert config.vision == VisionConfig.clip_vit_l_336()
    assert (config.vision.grid, config.vision_layers_used, config.image_tokens) == (24, 23, 144)


def test_a_tower_that_is_a_folder_of_the_checkpoint_gives_its_own_numbers() -> None:
    vision = MobileVlmConfig.read(PARITY / "ldpnet").vision
    assert (vision.hidden_size, vision.num_hidden_layers, vision.image_size, vision.patch_size) == (48, 3, 336, 14)


def test_a_tower_may_be_given_as_a_whole_clip(tmp_path: Path) -> None:
    tower = {"hidden_size": 1024, "intermediate_size": 8, "num_hidden_layers": 5, "num_attention_heads": 16, "image_size": 224}
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "config.json").write_text(
        json.dumps({"model_type": "clip", "vision_config": {**tower, "patch_size": 14}})
    )
    config = MobileVlmConfig.read(write(tmp_path, mm_vision_tower="somewhere/else"), tmp_path / "clip")
    assert (config.vision.num_hidden_layers, config.vision.grid) == (5, 16)


def test_a_tower_that_is_nowhere_is_named(tmp_path: Path) -> None:
    assert "google/siglip" in error_of(write(tmp_path, mm_vision_tower="google/siglip"))


@pytest.mark.parametrize("name", ["../tower", "/tower"])
def test_a_tower_outside_the_checkpoint_is_not_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / "tower").mkdir()
    (tmp_path / "tower" / "config.json").write_text(json.dumps(VisionConfig.clip_vit_l_336().to_json()))
    (tmp_path / "checkpoint").mkdir()
    assert name in error_of(write(tmp_path / "checkpoint", mm_vision_tower=name))


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "num_hidden_layers", "mm_projector_type", "mm_vision_tower"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    assert f"'{key}' is missing" in error_of(write(tmp_path, **{key: ...}))


def test_an_unknown_projector_is_named_with_the_known_ones(tmp_path: Path) -> None:
    message = error_of(write(tmp_path, mm_projector_type="mlp2x_gelu"))
    assert "mlp2x_gelu" in message
    assert "ldpnet, ldpnetv2" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_aspect_ratio", "anyres"),
        ("mm_vision_select_feature", "cls_patch"),
        ("mm_use_im_start_end", True),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("rope_parameters", {"rope_type": "yarn"}),
        ("attention_bias", True),
        ("hidden_act", "gelu"),
        ("model_type", "llava"),
        ("mm_hidden_size", 768),
        ("mm_vision_select_layer", -26),
        ("num_attention_heads", 7),
        ("num_key_value_heads", 5),
        ("head_dim", 81),
        ("hidden_size", "2560"),
        ("rms_norm_eps", float("inf")),
    ],
)
def test_what_would_need_other_code_is_refused_by_key(tmp_path: Path, key: str, value: object) -> None:
    assert f"'{key}'" in error_of(write(tmp_path, **{key: value}))


@pytest.mark.parametrize("text", ["", "[]", "{", "\udcff"])
def test_a_file_that_is_no_json_object_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    assert str(tmp_path / "config.json") in error_of(tmp_path)


def test_rope_theta_is_found_where_newer_libraries_put_it(tmp_path: Path) -> None:
    nested = {"rope_type": "default", "rope_theta": 5000.0}
    assert MobileVlmConfig.read(write(tmp_path, rope_theta=..., rope_parameters=nested)).rope_theta == 5000.0


@pytest.mark.parametrize(("grid", "tokens"), [(24, 144), (12, 36), (16, 64), (5, 9)])
def test_ldp_halves_the_grid_rounding_up(grid: int, tokens: int) -> None:
    assert tiny_config(ProjectorKind.LDP, image_size=14 * grid).image_tokens == tokens


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(key=st.sampled_from([*V2_3B, "head_dim", "rope_parameters", "mm_use_im_patch_token", "pad_token_id"]), value=values)
def test_any_value_under_any_key_is_understood_or_refused(key: str, value: object) -> None:
    try:
        config = MobileVlmConfig.from_json({**V2_3B, key: value}, VisionConfig.clip_vit_l_336())
    except CheckpointError as error:
        assert "config.json: " in str(error)
        assert "\n" not in str(error)
    else:
        assert MobileVlmConfig.from_json(config.to_json(), config.vision) == config

"""Merging adapters. That the result is the official code's stands in test_torch_parity."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mobilevlm_ros.checkpoint.config import MobileVlmConfig, ProjectorKind
from mobilevlm_ros.checkpoint.errors import CheckpointError
from mobilevlm_ros.checkpoint.lora import AdaptedTensors
from mobilevlm_ros.checkpoint.model import VISION_PREFIX
from mobilevlm_ros.checkpoint.reader import CheckpointTensors
from tests.make_checkpoint import Files, Layout, random_tensors, tiny_config, write_checkpoint, write_weights
from tests.parity import PARITY

QUERY = "model.layers.0.self_attn.q_proj"
TOWER_QUERY = f"{VISION_PREFIX}encoder.layers.0.self_attn.q_proj"


def halves(name: str, width: int, rank: int = 4) -> dict[str, Tensor]:
    """Random A and B of one square weight, under PEFT's names."""
    prefix = f"base_model.model.{name}"
    return {f"{prefix}.lora_A.weight": torch.rand(rank, width), f"{prefix}.lora_B.weight": torch.rand(width, rank)}


def write_adapter(folder: Path, tensors: dict[str, Tensor], layout: Layout = Layout.BIN, **config: Any) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8, **config}))
    write_weights(folder, tensors, layout, "adapter_model")
    return folder


def base(tmp_path: Path, config: MobileVlmConfig, dtype: torch.dtype = torch.float32) -> CheckpointTensors:
    return CheckpointTensors.open(write_checkpoint(tmp_path / "base", config, files=Files(dtype=dtype)), config)


@pytest.mark.parametrize("layout", [Layout.BIN, Layout.SAFETENSORS], ids=lambda layout: layout.value)
@pytest.mark.parametrize(("changes", "scale"), [({}, 2.0), ({"use_rslora": True}, 8 / math.sqrt(4))], ids=["plain", "stabilised"])
def test_a_plain_adapter_adds_scaled_b_times_a(tmp_path: Path, layout: Layout, changes: dict[str, Any], scale: float) -> None:
    config, delta = tiny_config(), halves(QUERY, 64)
    tensors = AdaptedTensors(base(tmp_path, config), write_adapter(tmp_path / "a", delta, layout, **changes), config)
    down, up = delta.values()
    before = random_tensors(config, 0)
    torch.testing.assert_close(tensors[f"{QUERY}.weight"], before[f"{QUERY}.weight"] + scale * up @ down)
    for name, values in before.items():
        if name != f"{QUERY}.weight":
            assert torch.equal(tensors[name], values)


@pytest.mark.parametrize(("dtype", "stored"), [(torch.float32, torch.float32), (torch.bfloat16, torch.float16)])
def test_a_half_precision_base_is_merged_in_float32_and_rounded_once(
    tmp_path: Path, dtype: torch.dtype, stored: torch.dtype
) -> None:
    config, delta = tiny_config(), halves(QUERY, 64)
    tensors = AdaptedTensors(base(tmp_path, config, dtype), write_adapter(tmp_path / "a", delta), config)
    down, up = delta.values()
    exact = random_tensors(config, 0, dtype)[f"{QUERY}.weight"].float() + 2 * up @ down
    assert tensors[f"{QUERY}.weight"].dtype == stored
    torch.testing.assert_close(
        tensors[f"{QUERY}.weight"].float(), exact, rtol=1e-3 if stored == torch.float16 else 1e-6, atol=1e-6
    )


@pytest.mark.parametrize(("kind", "merged"), [(ProjectorKind.LDP, False), (ProjectorKind.LDP_V2, True)])
def test_changes_to_the_tower_count_only_where_the_official_loader_keeps_them(
    tmp_path: Path, kind: ProjectorKind, merged: bool
) -> None:
    config = tiny_config(kind)
    tensors = AdaptedTensors(base(tmp_path, config), write_adapter(tmp_path / "a", halves(TOWER_QUERY, 32)), config)
    before = random_tensors(config, 0)[f"{TOWER_QUERY}.weight"]
    assert torch.equal(tensors[f"{TOWER_QUERY}.weight"], before) is not merged
    assert tensors.ignored == (() if merged else (f"{TOWER_QUERY}.weight",))


@pytest.mark.parametrize("prefix", ["base_model.model.", "base_model.", ""])
def test_fully_trained_tensors_replace_the_bases_whatever_wrapped_them(tmp_path: Path, prefix: str) -> None:
    config = tiny_config()
    name = "model.mm_projector.peg.peg.0.bias"
    adapter = write_adapter(tmp_path / "a", {})
    torch.save({prefix + name: torch.full((64,), 7.0)}, adapter / "non_lora_trainables.bin")
    tensors = AdaptedTensors(base(tmp_path, config), adapter, config)
    assert tensors[name].tolist() == [7.0] * 64


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"peft_type": "IA3"}, "peft_type"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"r": 0}, "r"),
        ({"lora_alpha": None}, "lora_alpha"),
    ],
)
def test_an_adapter_that_needs_other_arithmetic_is_refused_by_key(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    adapter = write_adapter(tmp_path / "a", halves(QUERY, 64), **changes)
    with pytest.raises(CheckpointError, match=f"'{key}'"):
        AdaptedTensors(base(tmp_path, tiny_config()), adapter, tiny_config())


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (dict(list(halves(QUERY, 64).items())[:1]), "has only lora_A"),
        (halves(QUERY, 32), r"is \[32, 32\], the base has \[64, 64\]"),
        (halves("model.layers.9.self_attn.q_proj", 64), "lacks"),
        ({"base_model.model.lm_head.weight": torch.zeros(2)}, "no part of a LoRA"),
    ],
    ids=["half", "misshapen", "unknown", "foreign"],
)
def test_an_adapter_that_does_not_fit_is_told_in_one_line(tmp_path: Path, tensors: dict[str, Tensor], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        AdaptedTensors(base(tmp_path, tiny_config()), write_adapter(tmp_path / "a", tensors), tiny_config())


def test_the_official_layout_needs_its_config(tmp_path: Path) -> None:
    config = MobileVlmConfig.read(PARITY / "ldpnet")
    adapter = tmp_path / "adapter"
    shutil.copytree(PARITY / "ldpnet_lora", adapter)
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: no such file"):
        AdaptedTensors(CheckpointTensors.open(PARITY / "ldpnet", config), adapter, config)

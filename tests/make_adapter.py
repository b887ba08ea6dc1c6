"""Writes random LoRA adapters in the layout of `peft`, which change a model visibly and do not break it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.model import VISION_PREFIX
from mobilevlm_ros.checkpoint.reader import CheckpointTensors
from tests.make_checkpoint import Layout, write_weights

PEFT_PREFIX = "base_model.model."


def decoder_linears(name: str) -> bool:
    """What the official recipe adapts in the decoder."""
    return name.startswith("model.layers.") and "_proj." in name


def all_linears(name: str) -> bool:
    """Those and the tower's."""
    tower = name.startswith(f"{VISION_PREFIX}encoder.") and name.endswith(("_proj.weight", "fc1.weight", "fc2.weight"))
    return tower or decoder_linears(name)


def write_lora(
    folder: Path,
    checkpoint: Path,
    names: Callable[[str], bool] = decoder_linears,
    rank: int = 8,
    strength: float = 0.1,
    seed: int = 3,
    layout: Layout = Layout.SAFETENSORS,
    **config: Any,
) -> Path:
    """Writes an adapter for a checkpoint folder and returns its folder; `strength` is how large B's columns are."""
    folder.mkdir(parents=True)
    base = CheckpointTensors.open(checkpoint, MobileVlmConfig.read(checkpoint))
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for name in filter(names, base):
        outputs, inputs = base.shape(name)
        stem = PEFT_PREFIX + name.removesuffix(".weight")
        tensors[f"{stem}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator) * inputs**-0.5
        tensors[f"{stem}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator) * strength * rank**-0.5
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    write_weights(folder, tensors, layout, "adapter_model")
    return folder

"""Random checkpoints and adapters in the released layout, written tensor by tensor under the released names.

The names and shapes stand here a second time, from the description of the releases: nothing of the package is imported.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.faithful.pictures import CLIP_MEAN, CLIP_STD, Triple

TOWER = "model.vision_tower.vision_tower.vision_model."
PROJECTOR = "model.mm_projector."
TOKENIZER = Path(__file__).parent.parent / "data" / "parity" / "tokenizer.model"
TOKENIZER_PIECES = 600

LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


@dataclass(frozen=True)
class Sizes:
    """Every size of a checkpoint, and the config values that change what is computed."""

    projector: str = "ldpnetv2"
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 4
    head_dim: int = 16
    mlp: int = 136
    vocab: int = TOKENIZER_PIECES
    positions: int = 512
    rms_eps: float = 1e-6
    theta: float = 10000.0
    tower_width: int = 32
    tower_mlp: int = 72
    tower_layers: int = 3
    tower_heads: int = 4
    image_size: int = 168
    patch_size: int = 14
    select_layer: int = -2
    mean: Triple = CLIP_MEAN
    std: Triple = CLIP_STD

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size


def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Every tensor's shape by its released name."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (sizes.vocab, sizes.hidden)}
    queries, keys = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    for layer in range(sizes.layers):
        prefix = f"model.layers.{layer}."
        for part, (rows, columns) in {
            "self_attn.q_proj": (queries, sizes.hidden),
            "self_attn.k_proj": (keys, sizes.hidden),
            "self_attn.v_proj": (keys, sizes.hidden),
            "self_attn.o_proj": (sizes.hidden, queries),
            "mlp.gate_proj": (sizes.mlp, sizes.hidden),
            "mlp.up_proj": (sizes.mlp, sizes.hidden),
            "mlp.down_proj": (sizes.hidden, sizes.mlp),
        }.items():
            found[f"{prefix}{part}.weight"] = (rows, columns)
        found[f"{prefix}input_layernorm.weight"] = found[f"{prefix}post_attention_layernorm.weight"] = (sizes.hidden,)
    found["model.norm.weight"] = (sizes.hidden,)
    return {**found, **_tower_shapes(sizes), **_projector_shapes(sizes), "lm_head.weight": (sizes.vocab, sizes.hidden)}


def _tower_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    width = sizes.tower_width
    found: dict[str, tuple[int, ...]] = {
        "embeddings.class_embedding": (width,),
        "embeddings.patch_embedding.weight": (width, 3, sizes.patch_size, sizes.patch_size),
        "embeddings.position_embedding.weight": (sizes.grid**2 + 1, width),
    }
    norms = ["pre_layrnorm", "post_layernorm"]
    for layer in range(sizes.tower_layers):
        prefix = f"encoder.layers.{layer}."
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found[f"{prefix}self_attn.{part}.weight"] = (width, width)
            found[f"{prefix}self_attn.{part}.bias"] = (width,)
        found |= {f"{prefix}mlp.fc1.weight": (sizes.tower_mlp, width), f"{prefix}mlp.fc1.bias": (sizes.tower_mlp,)}
        found |= {f"{prefix}mlp.fc2.weight": (width, sizes.tower_mlp), f"{prefix}mlp.fc2.bias": (width,)}
        norms += [f"{prefix}layer_norm1", f"{prefix}layer_norm2"]
    for norm in norms:
        found[f"{norm}.weight"] = found[f"{norm}.bias"] = (width,)
    return {TOWER + name: shape for name, shape in found.items()}


def _projector_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    width, wide = sizes.hidden, sizes.tower_width
    if sizes.projector == "ldpnetv2":
        found: dict[str, tuple[int, ...]] = {
            "mlp.mlp.0.weight": (width, wide),
            "mlp.mlp.0.bias": (width,),
            "mlp.mlp.2.weight": (width, width),
            "mlp.mlp.2.bias": (width,),
            "peg.peg.0.weight": (width, 1, 3, 3),
            "peg.peg.0.bias": (width,),
        }
        return {PROJECTOR + name: shape for name, shape in found.items()}
    assert width % 32 == 0, "the squeeze is a quarter only where that is a multiple of 8"
    found = {"mlp.1.weight": (width, wide), "mlp.1.bias": (width,), "mlp.3.weight": (width, width), "mlp.3.bias": (width,)}
    for block in ("mb_block.1.block.", "mb_block.2.block."):
        found |= {f"{block}0.0.weight": (width, 1, 3, 3), f"{block}2.0.weight": (width, width, 1, 1)}
        found |= {f"{block}1.fc1.weight": (width // 4, width, 1, 1), f"{block}1.fc1.bias": (width // 4,)}
        found |= {f"{block}1.fc2.weight": (width, width // 4, 1, 1), f"{block}1.fc2.bias": (width,)}
        for norm in ("0.1", "2.1"):
            found[f"{block}{norm}.weight"] = found[f"{block}{norm}.bias"] = (width,)
    return {f"{PROJECTOR}model.{name}": shape for name, shape in found.items()}


def draw(sizes: Sizes, seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random weights in which every tensor matters: products keep their scale, norms are about 1, biases are not zero."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes(sizes).items():
        values = torch.randn(shape, generator=generator)
        is_norm = len(shape) == 1 and name.endswith(".weight")
        if is_norm:
            values = 1 + 0.2 * values
        elif len(shape) == 1:
            values *= 0.3
        elif "embed_tokens" not in name and "position_embedding" not in name:
            values *= 1.5 / math.sqrt(math.prod(shape[1:]))
        tensors[name] = values.to(dtype)
    return tensors


def released_config(sizes: Sizes) -> dict[str, Any]:
    """`config.json` with the released keys."""
    return {
        "architectures": ["MobileLlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": sizes.hidden,
        "image_aspect_ratio": "pad",
        "image_grid_pinpoints": None,
        "intermediate_size": sizes.mlp,
        "max_position_embeddings": sizes.positions,
        "mm_hidden_size": sizes.tower_width,
        "mm_projector_type": sizes.projector,
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": sizes.select_layer,
        "mm_vision_tower": "tower",
        "model_type": "mobilevlm",
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "pad_token_id": 0,
        "rms_norm_eps": sizes.rms_eps,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_mm_proj": True,
        "vision_tower_type": "clip",
        "vocab_size": sizes.vocab,
        **({} if sizes.kv_heads == sizes.heads else {"num_key_value_heads": sizes.kv_heads}),
        **({} if sizes.head_dim * sizes.heads == sizes.hidden else {"head_dim": sizes.head_dim}),
        **({} if sizes.theta == 10000.0 else {"rope_theta": sizes.theta}),
    }


def write(
    folder: Path, sizes: Sizes, tensors: Mapping[str, Tensor], layout: str = "bin", stale: Mapping[str, Any] | None = None
) -> Path:
    """Writes a checkpoint folder. `layout` is bin or safetensors, with "2-" or "3-" before it where there are as many shards."""
    tower = folder / "tower"
    tower.mkdir(parents=True)
    _json(folder / "config.json", {**released_config(sizes), **(stale or {})})
    _json(
        tower / "config.json",
        {
            "model_type": "clip_vision_model",
            "hidden_size": sizes.tower_width,
            "intermediate_size": sizes.tower_mlp,
            "num_hidden_layers": sizes.tower_layers,
            "num_attention_heads": sizes.tower_heads,
            "image_size": sizes.image_size,
            "patch_size": sizes.patch_size,
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
        },
    )
    _json(tower / "preprocessor_config.json", {"image_mean": list(sizes.mean), "image_std": list(sizes.std)})
    shutil.copyfile(TOKENIZER, folder / "tokenizer.model")
    count, _, suffix = layout.rpartition("-")
    write_shards(folder, "pytorch_model" if suffix == "bin" else "model", suffix, tensors, int(count or 1))
    return folder


def write_shards(folder: Path, stem: str, suffix: str, tensors: Mapping[str, Tensor], count: int) -> None:
    """Writes tensors as one file, or dealt out to several with an index."""
    if count == 1:
        return _save(folder / f"{stem}.{suffix}", dict(tensors))
    places = {name: f"{stem}-{number % count + 1:05}-of-{count:05}.{suffix}" for number, name in enumerate(tensors)}
    for file in sorted(set(places.values())):
        _save(folder / file, {name: tensors[name] for name, place in places.items() if place == file})
    return _json(folder / f"{stem}.{suffix}.index.json", {"metadata": {"total_size": 1}, "weight_map": places})


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    if path.suffix == ".bin":
        torch.save(tensors, path)
    else:
        from safetensors.torch import save_file

        save_file(tensors, path, metadata={"format": "pt"})


def write_adapter(folder: Path, sizes: Sizes, seed: int, kind: str) -> Path:
    """Writes a LoRA adapter: `official`, with the whole projector trained beside it and the tower's queries, or `peft`."""
    folder.mkdir(parents=True)
    choose = random.Random(seed)
    rank = choose.choice([2, 3, 8])
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": choose.choice([4, 16]), "lora_dropout": 0.05, "bias": "none"}
    config |= {"use_rslora": choose.random() < 0.5, "base_model_name_or_path": "elsewhere", "target_modules": ["q_proj"]}
    _json(folder / "adapter_config.json", config)
    generator = torch.Generator().manual_seed(seed)
    linears = [f"model.layers.{layer}.{part}" for layer in range(sizes.layers) for part in (*LINEARS, *MLP)]
    if kind == "official":
        linears += [f"{TOWER}encoder.layers.{layer}.self_attn.q_proj" for layer in range(sizes.tower_layers)]
    halves = {}
    for name in linears:
        rows, columns = shapes(sizes)[f"{name}.weight"]
        scale = 0.3 / math.sqrt(columns)
        halves[f"base_model.model.{name}.lora_A.weight"] = scale * torch.randn(rank, columns, generator=generator)
        halves[f"base_model.model.{name}.lora_B.weight"] = 0.5 * torch.randn(rows, rank, generator=generator)
    suffix = "bin" if kind == "official" else "safetensors"
    write_shards(folder, "adapter_model", suffix, halves, 1)
    if kind == "official":
        projector = {name: values for name, values in draw(sizes, seed + 1).items() if name.startswith(PROJECTOR)}
        torch.save({f"base_model.model.{name}": values for name, values in projector.items()}, folder / "non_lora_trainables.bin")
    return folder


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")

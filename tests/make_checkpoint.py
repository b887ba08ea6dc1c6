"""Writes random MobileVLM checkpoints of any size in the released layout.

From the shell: python -m tests.make_checkpoint FOLDER --projector ldpnetv2 --hidden 2048 --layers 24 ... (see --help).
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import torch
from torch import Tensor

from mobilevlm_ros.checkpoint.config import MobileVlmConfig, ProjectorKind, VisionConfig
from mobilevlm_ros.checkpoint.model import VISION_PREFIX, expected_shapes
from tests.parity import PARITY

TOWER = "openai_clip"


class Layout(str, Enum):
    """In which files the weights lie."""

    BIN = "bin"
    SHARDED_BIN = "sharded-bin"
    SAFETENSORS = "safetensors"
    SHARDED_SAFETENSORS = "sharded-safetensors"


@dataclass(frozen=True)
class Files:
    """How a checkpoint is stored. `tower` says whether the vision tower's weights are among the others."""

    layout: Layout = Layout.BIN
    dtype: torch.dtype = torch.float16
    tower: bool = True


def tiny_config(
    projector: ProjectorKind = ProjectorKind.LDP_V2,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 600,
    mlp: int | None = None,
    image_size: int = 168,
    vision: VisionConfig | None = None,
    select_layer: int = -2,
    tied: bool = False,
) -> MobileVlmConfig:
    """A small config; what is not given is chosen to fit the rest."""
    return MobileVlmConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=mlp or hidden * 2 + 8,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads or heads,
        head_dim=head_dim or hidden // heads,
        max_position_embeddings=512,
        projector=projector,
        vision=vision or VisionConfig(32, 72, 3, 4, image_size, 14),
        tie_word_embeddings=tied,
        mm_vision_select_layer=select_layer,
        mm_vision_tower=TOWER,
    )


def random_tensors(config: MobileVlmConfig, seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Weights whose activations stay near 1, by released name."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in expected_shapes(config).items():
        tensors[name] = random_tensor(name, shape, generator, dtype)
    return tensors


def random_tensor(name: str, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A weight of that released name with which activations stay near 1."""
    values = torch.empty(shape, dtype=dtype).normal_(generator=generator)
    if len(shape) > 1 and "embed" not in name:
        values *= 1 / math.sqrt(math.prod(shape[1:]))
    elif len(shape) == 1:
        values *= 0.1
        if name.endswith(("norm.weight", "layernorm.weight", "norm1.weight", "norm2.weight", ".0.1.weight", ".2.1.weight")):
            values += 1
    return values


def write_checkpoint(folder: Path, config: MobileVlmConfig, seed: int = 0, files: Files = Files()) -> Path:
    """Writes config, tower config, tokenizer and random weights; returns the folder."""
    (folder / TOWER).mkdir(parents=True)
    _write_json(folder / "config.json", config.to_json())
    if config.mm_vision_tower == TOWER:
        _write_json(folder / TOWER / "config.json", config.vision.to_json())
        _write_json(folder / TOWER / "preprocessor_config.json", config.vision.preprocessor_json())
    shutil.copyfile(PARITY / "tokenizer.model", folder / "tokenizer.model")
    tensors = random_tensors(config, seed, files.dtype)
    if not files.tower:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(VISION_PREFIX)}
    write_weights(folder, tensors, files.layout)
    return folder


def write_tower(folder: Path, config: MobileVlmConfig, seed: int) -> Path:
    """Writes only the vision tower of `write_checkpoint` with the same seed, in the layout of `transformers`."""
    folder.mkdir(parents=True)
    _write_json(folder / "config.json", config.vision.to_json())
    tensors = random_tensors(config, seed, torch.float16)
    tower = {name.replace(VISION_PREFIX, "vision_model."): t for name, t in tensors.items() if name.startswith(VISION_PREFIX)}
    write_weights(folder, {**tower, "text_model.final_layer_norm.weight": torch.ones(3)}, Layout.SAFETENSORS, "model")
    return folder


def write_weights(folder: Path, tensors: dict[str, Tensor], layout: Layout, stem: str | None = None) -> None:
    """Writes tensors as one file, or as two with an index."""
    safe = layout in (Layout.SAFETENSORS, Layout.SHARDED_SAFETENSORS)
    suffix = ".safetensors" if safe else ".bin"
    stem = stem or ("model" if safe else "pytorch_model")
    if layout in (Layout.BIN, Layout.SAFETENSORS):
        _save(folder / (stem + suffix), tensors)
        return
    names = list(tensors)
    weight_map = {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        shard = f"{stem}-{number:05}-of-00002{suffix}"
        _save(folder / shard, {name: tensors[name] for name in part})
        weight_map.update(dict.fromkeys(part, shard))
    _write_json(folder / f"{stem}{suffix}.index.json", {"metadata": {}, "weight_map": weight_map})


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    if path.suffix == ".bin":
        torch.save(tensors, path)
    else:
        from safetensors.torch import save_file

        save_file(tensors, path)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--projector", type=ProjectorKind, default=ProjectorKind.LDP_V2, help="ldpnet or ldpnetv2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layout", type=Layout, default=Layout.BIN, help=", ".join(layout.value for layout in Layout))
    parser.add_argument("--no-tower", action="store_true", help="leave the vision tower's weights out")
    parser.add_argument("--clip-l-336", action="store_true", help="a vision tower of CLIP ViT-L/14-336's size")
    parser.add_argument("--bf16", action="store_true", help="store bfloat16, as the released checkpoints do")
    for name, default in (("hidden", 64), ("layers", 2), ("heads", 4), ("vocab", 600), ("image-size", 336)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--head-dim", type=int, default=None)
    parser.add_argument("--mlp", type=int, default=None)
    args = parser.parse_args()
    config = tiny_config(
        args.projector,
        args.hidden,
        args.layers,
        args.heads,
        head_dim=args.head_dim,
        vocab=args.vocab,
        mlp=args.mlp,
        image_size=args.image_size,
        vision=VisionConfig.clip_vit_l_336() if args.clip_l_336 else None,
    )
    files = Files(args.layout, torch.bfloat16 if args.bf16 else torch.float16, not args.no_tower)
    write_checkpoint(args.folder, config, args.seed, files)


if __name__ == "__main__":
    main()

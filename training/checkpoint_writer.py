"""Trained parts to a checkpoint folder in the released MobileVLM layout.

`python -m training.checkpoint_writer --tower T --decoder D --tokenizer M --out models/nano`: writes `checkpoint/` and
`phrasings.json` there. The tower's last layer, which MobileVLM never uses, was not trained: its weights are zero.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mobilevlm_ros.checkpoint.config import MobileVlmConfig, ProjectorKind, VisionConfig
from mobilevlm_ros.checkpoint.model import PROJECTOR_PREFIX, VISION_PREFIX, MobileVLM
from mobilevlm_ros.checkpoint.save import save_checkpoint
from training import network, wording
from training.pictures import PATCH, SIDE
from training.vocabulary import SIZE

_LAST_LAYER = f"encoder.layers.{network.VISION_LAYERS - 1}."


def nano_config() -> MobileVlmConfig:
    """The nano model's numbers."""
    vision = VisionConfig(network.WIDTH, network.VISION_MLP, network.VISION_LAYERS, network.VISION_HEADS, SIDE, PATCH)
    return MobileVlmConfig(
        vocab_size=SIZE,
        hidden_size=network.WIDTH,
        intermediate_size=network.MLP,
        num_hidden_layers=network.LAYERS,
        num_attention_heads=network.HEADS,
        num_key_value_heads=network.HEADS,
        head_dim=network.WIDTH // network.HEADS,
        max_position_embeddings=network.MAX_POSITION,
        projector=ProjectorKind.LDP_V2,
        vision=vision,
        mm_vision_tower="openai_clip",
    )


def released_tensors(tower: Path, decoder: Path, model: MobileVLM) -> dict[str, Tensor]:
    """All weights by released name; projector and decoder are the averaged ones of the second step."""
    eyes = torch.load(tower, weights_only=True)["eyes"]
    reader = torch.load(decoder, weights_only=True)["average"]
    tensors = {name: torch.zeros_like(tensor) for name, tensor in model.named_tensors() if _LAST_LAYER in name}
    tensors |= {VISION_PREFIX + _tail(name, "tower."): eyes[name] for name in eyes if name.startswith("tower.")}
    for name, tensor in reader.items():
        if name.startswith("projector."):
            tensors[PROJECTOR_PREFIX + name.removeprefix("projector.")] = tensor
        else:
            tensors[name.removeprefix("decoder.")] = tensor
    return tensors


def _tail(name: str, prefix: str) -> str:
    """The name below the tower; `transformers` before 5 nests it once more."""
    return name.removeprefix(prefix).removeprefix("vision_model.")


def write(tower: Path, decoder: Path, tokenizer: Path, out: Path) -> None:
    """The checkpoint folder and the phrasings."""
    model = MobileVLM(nano_config())
    model.load_tensors(released_tensors(tower, decoder, model))
    folder = out / "checkpoint"
    save_checkpoint(model, folder, tokenizer)
    special = {name: _token(text) for name, text in (("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>"))}
    _write(folder / "special_tokens_map.json", special)
    _write(folder / "tokenizer_config.json", _tokenizer_config())
    _write(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    _write(out / "phrasings.json", wording.FIXED)


def _token(text: str) -> dict[str, Any]:
    return {"content": text, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


def _tokenizer_config() -> dict[str, Any]:
    texts = ("<unk>", "<s>", "</s>")
    return {
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": True,
        "added_tokens_decoder": {str(number): {**_token(text), "special": True} for number, text in enumerate(texts)},
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "</s>",
        "legacy": True,
        "model_max_length": network.MAX_POSITION,
        "pad_token": None,
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
        "use_default_system_prompt": False,
    }


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tower", type=Path, required=True, help="checkpoint of training.tower")
    parser.add_argument("--decoder", type=Path, required=True, help="checkpoint of training.decoder")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="the model's folder, such as models/nano")
    args = parser.parse_args()
    write(args.tower, args.decoder, args.tokenizer, args.out)
    size = sum(path.stat().st_size for path in (args.out / "checkpoint").rglob("*") if path.is_file())
    print(f"{args.out / 'checkpoint'}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

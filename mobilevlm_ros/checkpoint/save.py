"""Writes a checkpoint in the released layout, so that what is trained here is read like what was released.

Knows the layout's files; knows nothing of how the weights came about.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from mobilevlm_ros.checkpoint.config import CONFIG_FILE, PREPROCESSOR_FILE
from mobilevlm_ros.checkpoint.model import MobileVLM

TOKENIZER_FILE = "tokenizer.model"
WEIGHTS_FILE = "pytorch_model.bin"


def save_checkpoint(
    model: MobileVLM, folder: str | Path, tokenizer: str | Path | None = None, dtype: torch.dtype = torch.float16
) -> None:
    """Writes config, weights (one pickled file in `dtype`, the tower inside) and a copy of a SentencePiece `tokenizer`.

    Where the config's `mm_vision_tower` is a plain name, a folder of that name gets the tower's config and preprocessor; where it
    is a hub id, nothing more is written. The folder is created if need be; files in it are overwritten. Raises OSError.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    name = model.config.mm_vision_tower
    if "/" not in name:
        (root / name).mkdir(exist_ok=True)
        _write_json(root / name / CONFIG_FILE, model.config.vision.to_json())
        _write_json(root / name / PREPROCESSOR_FILE, model.config.vision.preprocessor_json())
    _write_json(root / CONFIG_FILE, model.config.to_json())
    # clone(): a tensor that is a view would be pickled with the whole of its storage.
    weights = {name: tensor.detach().to("cpu", dtype).clone() for name, tensor in model.named_tensors()}
    torch.save(weights, root / WEIGHTS_FILE)
    if tokenizer is not None:
        shutil.copyfile(tokenizer, root / TOKENIZER_FILE)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")

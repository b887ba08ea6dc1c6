"""Writes what was trained in the layout of the official recipe, which `mobilevlm convert --lora` merges.

Knows the layout's files and names; knows nothing of how the weights came about.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import torch

from mobilevlm_ros.checkpoint.config import CONFIG_FILE
from mobilevlm_ros.checkpoint.model import PROJECTOR_PREFIX
from mobilevlm_ros.finetune.recipe import Projector
from mobilevlm_ros.finetune.student import Student

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
NON_LORA = "non_lora_trainables.bin"
ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, NON_LORA, CONFIG_FILE)
_PEFT_PREFIX = "base_model.model."


def write_adapter(student: Student, base: Path, base_name: str, folder: Path) -> list[Path]:
    """Writes adapter_model.safetensors, non_lora_trainables.bin, config.json (the base's) and adapter_config.json.

    Without a trained projector there is no non_lora_trainables.bin. Each file appears whole, and the one without which no loader
    takes the folder comes last. Returns the files; raises OSError.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".adapter-") as name:
        made = Path(name)
        student.save_adapter(name)
        _settle_config(made / ADAPTER_CONFIG, base_name)
        files = [ADAPTER_WEIGHTS]
        if student.projector_use is Projector.TRAINED:
            prefix = _PEFT_PREFIX + PROJECTOR_PREFIX
            torch.save({prefix + key: tensor for key, tensor in student.projector_tensors().items()}, made / NON_LORA)
            files.append(NON_LORA)
        shutil.copyfile(base / CONFIG_FILE, made / CONFIG_FILE)
        shutil.copymode(made / CONFIG_FILE, made / ADAPTER_WEIGHTS)  # safetensors lets only the owner read
        files += [CONFIG_FILE, ADAPTER_CONFIG]
        for file in files:
            os.replace(made / file, folder / file)
    return [folder / file for file in files]


def _settle_config(path: Path, base_name: str) -> None:
    """Names the base, and puts in order what `peft` keeps as a set: equal trainings give equal files."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_name
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")

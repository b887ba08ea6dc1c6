"""Which files of a repository a conversion needs.

Knows the names of the released layouts, of safetensors releases and of PEFT adapters; opens nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection

CONFIG_FILE = "config.json"
ADAPTER_CONFIG_FILE = "adapter_config.json"

_SMALL = re.compile(
    r"config\.json|generation_config\.json|preprocessor_config\.json|tokenizer\.model|adapter_config\.json|phrasings\.json"
    r"|(LICENSE|LICENCE|NOTICE)(\.txt|\.md)?"
)
# The config of a vision tower that a checkpoint keeps in a folder of its own.
_TOWER = re.compile(r"\w[\w.-]*/(config|preprocessor_config)\.json")
# Each is read from the first of its forms that is there, as checkpoint/reader.py does.
_WEIGHTS = (("model", "pytorch_model"), ("adapter_model",), ("non_lora_trainables",))
_SUFFIXES = (".safetensors", ".bin")


def wanted_files(names: Collection[str]) -> tuple[str, ...]:
    """Of a repository's file names (paths with "/"), those that a conversion reads, sorted.

    Weights that are there both as safetensors and as pickles are wanted once, as safetensors.
    """
    wanted = {name for name in names if _SMALL.fullmatch(name) or _TOWER.fullmatch(name)}
    for stems in _WEIGHTS:
        wanted.update(_weights(names, stems))
    return tuple(sorted(wanted))


def is_convertible(names: Collection[str]) -> bool:
    """Whether files of these names make a checkpoint, a vision tower or an adapter: a config and weights."""
    if ADAPTER_CONFIG_FILE in names and _weights(names, _WEIGHTS[1]):
        return True
    return CONFIG_FILE in names and bool(_weights(names, _WEIGHTS[0]))


def _weights(names: Collection[str], stems: tuple[str, ...]) -> set[str]:
    for suffix in _SUFFIXES:
        for stem in stems:
            if stem + suffix in names:
                return {stem + suffix}
            index = f"{stem}{suffix}.index.json"
            if index in names:
                shard = re.compile(rf"{stem}-\d+-of-\d+{re.escape(suffix)}")
                return {index, *(name for name in names if shard.fullmatch(name))}
    return set()

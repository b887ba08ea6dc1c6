"""Reads a LoRA adapter, and merges it into a checkpoint while its tensors are read.

Takes PEFT adapter folders, with or without the official recipe's `non_lora_trainables.bin`. Knows the two file layouts, LoRA's
arithmetic and what the official loader does with the result; knows nothing of the model beyond tensor names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import torch
from torch import Tensor

from mobilevlm_ros.checkpoint.config import MobileVlmConfig, ProjectorKind
from mobilevlm_ros.checkpoint.errors import CheckpointError
from mobilevlm_ros.checkpoint.json_keys import read_json
from mobilevlm_ros.checkpoint.model import VISION_PREFIX
from mobilevlm_ros.checkpoint.reader import Tensors, open_weights

_PEFT_PREFIX = "base_model.model."
_DOWN = ".lora_A.weight"
_UP = ".lora_B.weight"
# Settings that would need other arithmetic than W + scale * B @ A, with the value that asks for nothing.
_PLAIN = {
    "use_dora": False,
    "fan_in_fan_out": False,
    "bias": "none",
    "rank_pattern": {},
    "alpha_pattern": {},
    "modules_to_save": None,
}


class Merging(Enum):
    """How a merged tensor is stored."""

    OFFICIAL = "official"
    """Rounded to float16 where the base has half precision, in which the official code holds the merged model."""
    BESIDE = "beside"
    """Likewise, but tensors with a low-rank change in float32: what a base and an adapter beside it compute."""


@dataclass(frozen=True)
class LowRank:
    """One low-rank change, `scale` * `up` [out, rank] @ `down` [rank, in]."""

    down: Tensor
    up: Tensor
    scale: float


class AdaptedTensors(Tensors):
    """A checkpoint's tensors with an adapter merged in: W + scale * (B @ A), computed in float32 as each is read.

    With the `ldpnet` projector an adapter's changes to the vision tower have no effect, because the official loader loads the
    frozen tower anew after merging.
    """

    def __init__(self, base: Tensors, adapter: str | Path, config: MobileVlmConfig, merging: Merging = Merging.OFFICIAL) -> None:
        """Opens an adapter folder over `base`, whose config is `config`.

        Raises CheckpointError in one line where the adapter is incomplete, of another kind, or names what the base lacks.
        """
        folder = Path(adapter)
        self.where = f"{base.where} with adapter {folder}"
        self._base = base
        self._merging = merging
        self.files = (*base.files, *sorted(path for path in folder.iterdir() if path.suffix in (".bin", ".safetensors")))
        self._replaced = _read_replaced(folder)
        self._deltas = _read_deltas(folder, _read_scale(folder))
        self._check_fit(folder)
        self.ignored: tuple[str, ...] = ()
        """Names of tensors whose changes have no effect."""
        if config.projector is ProjectorKind.LDP:
            self.ignored = tuple(name for name in self._deltas if name.startswith(VISION_PREFIX))
            self._deltas = {name: delta for name, delta in self._deltas.items() if name not in self.ignored}

    @property
    def low_rank(self) -> Mapping[str, LowRank]:
        """The changes of low rank that have an effect, by the changed tensor's name."""
        return self._deltas

    @property
    def replaced(self) -> frozenset[str]:
        """Names of the tensors that the adapter gives whole; some may be changed by `low_rank` too."""
        return frozenset(self._replaced)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._base.shape(name)

    def __getitem__(self, name: str) -> Tensor:
        base = self._base[name]
        delta = self._deltas.get(name)
        if delta is None and name not in self._replaced:
            return base
        tensor = self._replaced.get(name, base).float()
        if delta is not None:
            tensor = tensor.addmm(delta.up.float(), delta.down.float(), alpha=delta.scale)
        exact = base.dtype == torch.float32 or (delta is not None and self._merging is Merging.BESIDE)
        return tensor if exact else tensor.to(torch.float16)

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)

    def _check_fit(self, folder: Path) -> None:
        shapes = {name: tuple(tensor.shape) for name, tensor in self._replaced.items()}
        for name, delta in self._deltas.items():
            if delta.down.dim() != 2 or delta.up.dim() != 2 or delta.down.shape[0] != delta.up.shape[1]:
                raise CheckpointError(f"{folder}: the two halves of {name} do not fit each other")
            shapes[name] = (delta.up.shape[0], delta.down.shape[1])
        for name, shape in shapes.items():
            if name not in self._base:
                raise CheckpointError(f"{folder}: changes {name}, which {self._base.where} lacks")
            if self._base.shape(name) != shape:
                raise CheckpointError(f"{folder}: {name} is {list(shape)}, the base has {list(self._base.shape(name))}")


def _read_scale(folder: Path) -> float:
    """alpha / r, or alpha / sqrt(r) for rank-stabilised adapters (PEFT's rule)."""
    path = folder / "adapter_config.json"
    config = read_json(path)
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"{path}: key 'peft_type' is {config.get('peft_type')!r}, wanted 'LORA'")
    for key, plain in _PLAIN.items():
        if config.get(key, plain) not in (plain, None):
            raise CheckpointError(f"{path}: key '{key}' is {config[key]!r}, which is not supported")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, (int, float)):
        raise CheckpointError(f"{path}: keys 'r' and 'lora_alpha' must be numbers")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _read_deltas(folder: Path, scale: float) -> dict[str, LowRank]:
    halves: dict[str, dict[str, Tensor]] = {}
    for file in open_weights(folder, ("adapter_model",)):
        for stored in file:
            name = stored.removeprefix(_PEFT_PREFIX)
            for end in (_DOWN, _UP):
                if name.endswith(end):
                    halves.setdefault(name.removesuffix(end) + ".weight", {})[end] = file[stored]
                    break
            else:
                raise CheckpointError(f"{folder}: {stored} is no part of a LoRA adapter")
    for name, parts in halves.items():
        if len(parts) != 2:
            raise CheckpointError(f"{folder}: {name} has only {next(iter(parts)).strip('.')}")
    return {name: LowRank(parts[_DOWN], parts[_UP], scale) for name, parts in halves.items()}


def _read_replaced(folder: Path) -> dict[str, Tensor]:
    """Whole tensors that the official recipe trains beside the adapter, under the base's names."""
    if not (folder / "non_lora_trainables.bin").is_file():
        return {}
    (file,) = open_weights(folder, ("non_lora_trainables",))
    tensors: dict[str, Tensor] = {name.removeprefix("base_model."): file[name] for name in file}
    if any(name.startswith("model.model.") for name in tensors):
        tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    return tensors

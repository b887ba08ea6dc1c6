"""Snapshots of a running training: everything that it needs to go on as if nothing had happened.

Written atomically, the newest few kept. Knows files and states; knows nothing of what is trained.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mobilevlm_ros.checkpoint.errors import first_line
from mobilevlm_ros.finetune.errors import FinetuneError

FOLDER = "checkpoints"
_PREFIX, _SUFFIX = "step-", ".pt"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The state after `step` steps.

    Attributes:
        identity: what must be the same for the training to go on: recipe, data and base.
        weights: what is trained, by name.
        optimizer, schedule: as torch's `state_dict` gives them.
        random: the states of torch's generators, the processor's first.
    """

    step: int
    identity: dict[str, str]
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    random: list[Tensor]


def random_state(device: torch.device) -> list[Tensor]:
    """The states of the generators that a training on `device` draws from."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def set_random_state(states: list[Tensor], device: torch.device) -> None:
    """The inverse; a snapshot from a machine without CUDA sets only what it has."""
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)


def save_snapshot(folder: Path, snapshot: Snapshot, keep: int) -> Path:
    """Writes a snapshot below `folder` and removes all but the newest `keep`; raises OSError.

    What is there under the snapshot's name is always whole.
    """
    target = folder / FOLDER / f"{_PREFIX}{snapshot.step:08}{_SUFFIX}"
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    with part.open("wb") as file:
        torch.save(vars(snapshot), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, target)
    for old in snapshots(folder)[:-keep]:
        old.unlink()
    return target


def snapshots(folder: Path) -> list[Path]:
    """The snapshots below `folder`, oldest first."""
    return sorted((folder / FOLDER).glob(f"{_PREFIX}*{_SUFFIX}"))


def load_snapshot(folder: Path, identity: dict[str, str]) -> Snapshot:
    """The newest snapshot.

    Raises:
        FinetuneError: there is none, it cannot be read, or it belongs to a training with another `identity`.
    """
    found = snapshots(folder)
    if not found:
        raise FinetuneError(f"{folder}: nothing to resume: no checkpoint of a training here")
    path = found[-1]
    try:
        snapshot = Snapshot(**torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise FinetuneError(f"{path}: not readable as a checkpoint ({first_line(error)})") from None
    for name, value in _differences(snapshot.identity, identity):
        raise FinetuneError(f"{path}: belongs to another training: {name} was {value}, is {identity.get(name, 'not given')}")
    return snapshot


def _differences(before: dict[str, str], now: dict[str, str]) -> Iterable[tuple[str, str]]:
    names = sorted({*before, *now})
    return [(name, before.get(name, "not given")) for name in names if before.get(name) != now.get(name)]

"""What every training loop needs: checkpoints that survive a kill, a learning-rate curve, a pace."""

from __future__ import annotations

import copy
import math
import os
import time
from pathlib import Path
from typing import Any, Protocol

import torch


class Stateful(Protocol):
    """A module or an optimizer."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


def checkpoint_exists(path: Path) -> bool:
    return path.exists()


def save(path: Path, parts: dict[str, Any], step: int) -> None:
    """All parts' states in one file, written whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    states = {name: part.state_dict() for name, part in parts.items()}
    partial = path.with_suffix(".part")
    torch.save({"step": step, **states}, partial)
    os.replace(partial, path)


def load(path: Path, parts: dict[str, Any]) -> int:
    """Fills the parts from a file; returns its step."""
    states = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(states[name])
    return int(states["step"])


def learning_rate(step: int, steps: int, peak: float, warm_up: int) -> float:
    """Linear warm-up, then a cosine down to a fiftieth of the peak."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    share = (step - warm_up) / max(steps - warm_up, 1)
    return peak * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0))))


class Pace:
    """Steps a second since the last time it was asked."""

    def __init__(self, step: int) -> None:
        self._step, self._time = step, time.monotonic()

    def per_second(self, step: int) -> float:
        now = time.monotonic()
        rate = (step - self._step) / max(now - self._time, 1e-6)
        self._step, self._time = step, now
        return rate


class Average:
    """A running mean of a module's weights, which answers better than the last step's."""

    def __init__(self, module: torch.nn.Module, keep: float = 0.998) -> None:
        self.module, self._source, self._keep = copy.deepcopy(module), module, keep

    @torch.no_grad()
    def update(self, step: int) -> None:
        keep = min(self._keep, (step + 1) / (step + 10))
        means, values = list(self.module.parameters()), list(self._source.parameters())
        torch._foreach_lerp_(means, values, 1.0 - keep)


class Mean:
    """The mean of what was added since it was last taken."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, value: float) -> None:
        self._sum, self._count = self._sum + value, self._count + 1

    def take(self) -> float:
        mean = self._sum / max(self._count, 1)
        self._sum, self._count = 0.0, 0
        return mean

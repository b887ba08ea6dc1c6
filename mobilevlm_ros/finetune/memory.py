"""How much memory a training will need, from the model's sizes, and how much there is.

Knows sizes; allocates nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.model import PROJECTOR_PREFIX, VISION_PREFIX, expected_shapes
from mobilevlm_ros.finetune.recipe import Projector, Recipe
from mobilevlm_ros.finetune.student import TARGETS, Compute
from mobilevlm_ros.machine import read_machine

_TRAINED_BYTES = 16  # a float32 weight, its gradient and Adam's two moments
# Elements that autograd keeps for a token in a layer, times hidden width, MLP width and rank; found by counting, with PEFT's
# dropout. bfloat16 counts twice where PEFT casts to float32.
_KEPT = {torch.float32: (18, 5, 7), torch.bfloat16: (27, 6, 18)}


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes: the frozen base; what is trained, with gradients and the optimiser's state; what a micro-batch of the longest
    examples holds for its gradient, about."""

    base: int
    trained: int
    activations: int

    @property
    def total(self) -> int:
        """All of it at once."""
        return self.base + self.trained + self.activations

    def __str__(self) -> str:
        parts = f"base {_size(self.base)}, trained with its optimiser {_size(self.trained)}"
        return f"about {_size(self.total)}: {parts}, a micro-batch {_size(self.activations)}"


def memory_need(config: MobileVlmConfig, recipe: Recipe, compute: Compute, longest: int) -> MemoryNeed:
    """What training needs where examples have at most `longest` tokens."""
    shapes = expected_shapes(config)
    element = torch.finfo(compute.dtype).bits // 8
    base = element * sum(prod(shape) for shape in shapes.values())
    return MemoryNeed(base, _TRAINED_BYTES * trained_numbers(config, recipe), _activations(config, recipe, compute, longest))


def trained_numbers(config: MobileVlmConfig, recipe: Recipe) -> int:
    """How many numbers are trained."""
    shapes = expected_shapes(config)
    ends = tuple(f".{target}.weight" for target in TARGETS)
    language = [shape for name, shape in shapes.items() if name.endswith(ends) and not name.startswith(VISION_PREFIX)]
    adapter = sum(recipe.rank * (rows + columns) for rows, columns in language)
    projector = [shape for name, shape in shapes.items() if name.startswith(PROJECTOR_PREFIX)]
    return adapter + (sum(map(prod, projector)) if recipe.projector is Projector.TRAINED else 0)


def free_memory(device: torch.device) -> int:
    """Bytes that a program can still have on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return read_machine().available


def _activations(config: MobileVlmConfig, recipe: Recipe, compute: Compute, longest: int) -> int:
    element = torch.finfo(compute.dtype).bits // 8
    tokens = recipe.micro_batch * longest
    hidden, mlp, rank = _KEPT[compute.dtype]
    layer = tokens * (hidden * config.hidden_size + mlp * config.intermediate_size + rank * recipe.rank) * element
    logits = tokens * config.vocab_size * 4  # no more than that: only answers reach the head
    if compute.recompute:
        return layer + tokens * config.num_hidden_layers * config.hidden_size * element + logits
    return layer * config.num_hidden_layers + logits


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"

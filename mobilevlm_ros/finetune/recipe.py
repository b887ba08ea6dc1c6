"""The figures of a training. Values; nothing runs here.

The defaults are those of MobileVLM's `finetune.lora` scripts (run.sh, run_v1.sh) and of what they leave to `transformers`: on 8
devices they make 16 examples each a step. The script for MobileVLM-1.7B alone has a learning rate of 1e-4.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from mobilevlm_ros.finetune.errors import FinetuneError


class Projector(str, Enum):
    """What happens to the projector, all of whose weights the official recipe trains."""

    TRAINED = "trained"
    FROZEN = "frozen"


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        rank, alpha, dropout: of the adapter on every Linear of the language model but `lm_head`.
        learning_rate: the highest, reached after the warm-up, from where it falls to 0 along a cosine.
        projector_rate: the projector's; None is `learning_rate`, as in the official scripts.
        weight_decay: of matrices; biases and norms have none.
        warmup: the share of all steps in which the rate rises.
        max_grad_norm: longer gradients are shortened to this; 0 leaves them. (The official DeepSpeed settings leave them.)
        batch: examples a step.
        micro_batch: examples that are computed at once; a step's gradient does not depend on it but for rounding.
        epochs: how often every example is seen; `steps` instead ends after so many steps.
        max_length: tokens of an example, visual tokens included; what is longer is cut.
        eval_split: the share of examples that is kept from training.
        seed: for the order, the adapter's first weights and dropout.

    Raises:
        FinetuneError: a figure is out of its range.
    """

    rank: int = 128
    alpha: int = 256
    dropout: float = 0.05
    learning_rate: float = 2e-4
    projector: Projector = Projector.TRAINED
    projector_rate: float | None = None
    weight_decay: float = 0.0
    warmup: float = 0.03
    max_grad_norm: float = 1.0
    batch: int = 128
    micro_batch: int = 16
    epochs: int = 1
    steps: int | None = None
    max_length: int = 2048
    eval_split: float = 0.0
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("rank", "alpha", "batch", "micro_batch", "epochs", "max_length"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        _check("steps", self.steps, self.steps is None or self.steps >= 1, "at least 1")
        _check("seed", self.seed, 0 <= self.seed < 2**63, "0 to 2**63 - 1")
        for name in ("learning_rate", "projector_rate"):
            rate = getattr(self, name)
            _check(name, rate, rate is None or 0 < rate < math.inf, "above 0")
        for name in ("weight_decay", "max_grad_norm"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) < math.inf, "at least 0")
        for name in ("dropout", "warmup", "eval_split"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) < 1, "0 to below 1")

    def total_steps(self, examples: int) -> int:
        """Steps for so many training examples."""
        return self.steps if self.steps is not None else self.epochs * -(-examples // self.batch)

    def warmup_steps(self, total: int) -> int:
        """Steps in which the rate rises, rounded up as `transformers` does."""
        return math.ceil(self.warmup * total)

    def to_json(self) -> dict[str, Any]:
        """The figures by name."""
        return {**asdict(self), "projector": self.projector.value}


def _check(name: str, value: object, fine: bool, wanted: str) -> None:
    if not fine:
        raise FinetuneError(f"--{name.replace('_', '-')} is {value}, wanted {wanted}")

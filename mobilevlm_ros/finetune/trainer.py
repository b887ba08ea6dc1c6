"""One step of training after another: gradient, optimiser, schedule; and the state between two steps.

Knows the model that learns and its examples; knows nothing of files, of progress bars and of when to stop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import get_cosine_schedule_with_warmup

from mobilevlm_ros.finetune.batches import Batch, Order, collate, micro_batches
from mobilevlm_ros.finetune.errors import FinetuneError
from mobilevlm_ros.finetune.examples import Example
from mobilevlm_ros.finetune.pictures import FeatureStore
from mobilevlm_ros.finetune.recipe import Recipe
from mobilevlm_ros.finetune.snapshots import Snapshot, random_state, set_random_state
from mobilevlm_ros.finetune.student import Student

Ask = Callable[[], bool]


@dataclass(frozen=True)
class StepReport:
    """What a step did: its number counted from 1, its mean loss an answer token, the adapter's rate, the gradient's length before
    it was shortened, all tokens read and those learnt, and how long it took."""

    step: int
    loss: float
    rate: float
    grad_norm: float
    tokens: int
    answer_tokens: int
    seconds: float


class Trainer:
    """Trains a student on examples, step by step."""

    def __init__(
        self, student: Student, store: FeatureStore, train: Sequence[Example], held: Sequence[Example], recipe: Recipe
    ) -> None:
        self.total = recipe.total_steps(len(train))
        self.step_number = 0
        """Steps that are done."""
        self._student, self._store, self._recipe = student, store, recipe
        self._train, self._held = train, held
        self._order = Order(len(train), recipe.batch, recipe.seed)
        self._weights = dict(student.trainable())
        self._optimizer = torch.optim.AdamW(self._groups(), lr=recipe.learning_rate)
        self._schedule = get_cosine_schedule_with_warmup(self._optimizer, recipe.warmup_steps(self.total), self.total)
        torch.manual_seed(recipe.seed)

    def step(self, stop: Ask = lambda: False) -> StepReport | None:
        """Does the next step; None, with everything as before it, if `stop` said so on the way.

        Raises:
            FinetuneError: the loss is no number any more.
            VlmError: BAD_IMAGE if a picture cannot be read.
        """
        began, drawn = time.perf_counter(), random_state(self._student.compute.device)
        batches = self._batches([self._train[number] for number in self._order.examples(self.step_number)])
        learnt = sum(int((batch.labels[:, 1:] >= 0).sum()) for batch in batches)
        self._student.learn_mode()
        summed = 0.0
        for batch, coming in zip(batches, [*batches[1:], None]):
            if stop():
                self._optimizer.zero_grad(set_to_none=True)
                set_random_state(drawn, self._student.compute.device)
                return None
            loss, _ = self._student.loss(batch, self._features(batch, coming))
            (loss / learnt).backward()
            summed += float(loss.detach())
        if not math.isfinite(summed):
            raise FinetuneError(f"step {self.step_number + 1}: the loss is {summed}; a lower --learning-rate may help")
        rate = float(self._optimizer.param_groups[0]["lr"])
        norm = self._update()
        tokens = sum(batch.tokens for batch in batches)
        return StepReport(self.step_number, summed / learnt, rate, norm, tokens, learnt, time.perf_counter() - began)

    def held_out_loss(self, stop: Ask = lambda: False) -> float | None:
        """The mean loss an answer token on the examples kept from training; None if there are none or `stop` said so."""
        if not self._held:
            return None
        self._student.test_mode()
        summed, learnt = 0.0, 0
        batches = self._batches(self._held)
        with torch.no_grad():
            for batch, coming in zip(batches, [*batches[1:], None]):
                if stop():
                    return None
                loss, count = self._student.loss(batch, self._features(batch, coming))
                summed, learnt = summed + float(loss), learnt + count
        return summed / learnt

    def snapshot(self, identity: dict[str, str]) -> Snapshot:
        """The state after the last step that was done."""
        return Snapshot(
            step=self.step_number,
            identity=identity,
            weights={name: weight.detach().cpu().clone() for name, weight in self._weights.items()},
            optimizer=self._optimizer.state_dict(),
            schedule=self._schedule.state_dict(),
            random=random_state(self._student.compute.device),
        )

    @torch.no_grad()
    def restore(self, snapshot: Snapshot) -> None:
        """Goes on from a snapshot of the same training."""
        self.step_number = snapshot.step
        for name, weight in self._weights.items():
            weight.copy_(snapshot.weights[name])
        self._optimizer.load_state_dict(snapshot.optimizer)
        self._schedule.load_state_dict(snapshot.schedule)
        set_random_state(snapshot.random, self._student.compute.device)

    def _groups(self) -> list[dict[str, object]]:
        """The weights by learning rate, and by whether weight decay is for them."""
        recipe = self._recipe
        rates = {"language": recipe.learning_rate, "projector": recipe.projector_rate or recipe.learning_rate}
        groups = []
        for part, rate in rates.items():
            weights = [weight for name, weight in self._weights.items() if name.startswith(f"{part}.")]
            matrices, others = [w for w in weights if w.dim() > 1], [w for w in weights if w.dim() <= 1]
            groups += [{"params": matrices, "lr": rate, "weight_decay": recipe.weight_decay}] if matrices else []
            groups += [{"params": others, "lr": rate, "weight_decay": 0.0}] if others else []
        return groups

    def _update(self) -> float:
        limit = self._recipe.max_grad_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self._weights.values(), limit)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step_number += 1
        return float(norm)

    def _batches(self, examples: Sequence[Example]) -> list[Batch]:
        groups = micro_batches(examples, self._recipe.micro_batch)
        return [collate(group, self._student.config.image_tokens) for group in groups]

    def _features(self, batch: Batch, coming: Batch | None) -> Tensor | None:
        """The features of a batch's pictures, while the next batch's pictures begin to be read."""
        self._store.expect(batch.images)
        if coming is not None:
            self._store.expect(coming.images)
        return self._store.features(batch.images, self._student.compute.device) if batch.images else None

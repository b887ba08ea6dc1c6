"""The memory that is announced before a training is what the training takes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mobilevlm_ros.checkpoint.config import ProjectorKind
from mobilevlm_ros.checkpoint.model import expected_shapes
from mobilevlm_ros.finetune.batches import Batch
from mobilevlm_ros.finetune.examples import IGNORE_INDEX
from mobilevlm_ros.finetune.memory import free_memory, memory_need, trained_numbers
from mobilevlm_ros.finetune.recipe import Projector, Recipe
from mobilevlm_ros.finetune.student import Compute, Student
from mobilevlm_ros.machine import read_machine
from tests.finetune.helpers import CPU, SMALL
from tests.make_checkpoint import random_tensors, tiny_config

LENGTH = 150


def counted(student: Student, batch: Batch) -> int:
    """Bytes that autograd keeps of a batch, weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in student.model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        student.loss(batch, None)
    return sum(kept.values())


@pytest.mark.parametrize("use", list(Projector))
@pytest.mark.parametrize("kind", list(ProjectorKind))
def test_the_numbers_that_are_trained_are_counted_exactly(kind: ProjectorKind, use: Projector) -> None:
    config, recipe = tiny_config(kind, kv_heads=2), dataclasses.replace(SMALL, projector=use)
    student = Student(random_tensors(config, 0), config, recipe, CPU)
    assert trained_numbers(config, recipe) == sum(parameter.numel() for _, parameter in student.trainable())
    need = memory_need(config, recipe, CPU, LENGTH)
    assert need.trained == 16 * trained_numbers(config, recipe)
    assert need.base == 4 * sum(torch.Size(shape).numel() for shape in expected_shapes(config).values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("recompute", [False, True])
def test_what_a_micro_batch_takes_is_neither_hidden_nor_doubled(dtype: torch.dtype, recompute: bool) -> None:
    config = tiny_config(hidden=128, layers=6, mlp=320)
    recipe, compute = Recipe(rank=32, micro_batch=2), Compute(torch.device("cpu"), dtype, recompute)
    student = Student(random_tensors(config, 0), config, recipe, compute)
    student.learn_mode()
    ids = torch.randint(3, 500, (2, LENGTH))
    labels = ids.where(torch.arange(LENGTH) >= LENGTH - 5, IGNORE_INDEX)
    batch = Batch(ids, labels, torch.zeros(0, dtype=torch.int64), 0, (), 2 * LENGTH)
    announced, found = memory_need(config, recipe, compute, LENGTH).activations, counted(student, batch)
    if recompute:
        whole = memory_need(config, recipe, dataclasses.replace(compute, recompute=False), LENGTH).activations
        assert found < announced < whole / 2  # the layer that is computed again comes on top of what was kept
    else:
        assert 0.9 * found < announced < 1.6 * found


def test_on_the_processor_a_containers_limit_counts() -> None:
    free, machine = free_memory(torch.device("cpu")), read_machine()
    assert 0 < free <= machine.memory

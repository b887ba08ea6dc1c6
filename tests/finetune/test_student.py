"""The model that learns: its loss is the whole model's, and only what should learn does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from mobilevlm_ros.checkpoint.config import IMAGE_TOKEN, ProjectorKind
from mobilevlm_ros.checkpoint.reader import CheckpointTensors, load_model
from mobilevlm_ros.finetune.batches import collate
from mobilevlm_ros.finetune.examples import Example
from mobilevlm_ros.finetune.recipe import Projector, Recipe
from mobilevlm_ros.finetune.run import prepare
from mobilevlm_ros.finetune.student import Compute, Student, device_named
from tests.finetune.helpers import CPU, SMALL, Quiet, small_training
from tests.make_checkpoint import random_tensors, tiny_config


def pixels_of(count: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def student_and_examples(tmp_path: Path, kind: ProjectorKind, compute: Compute = CPU) -> tuple[Student, list[Example]]:
    places = small_training(tmp_path, tiny_config(kind))
    prepared = prepare(places, SMALL, Quiet())
    return Student(CheckpointTensors.open(places.base, prepared.config), prepared.config, SMALL, compute), prepared.train


@pytest.mark.parametrize("kind", list(ProjectorKind))
def test_the_loss_is_that_of_the_whole_model_example_by_example(tmp_path: Path, kind: ProjectorKind) -> None:
    student, examples = student_and_examples(tmp_path, kind)
    whole = load_model(CheckpointTensors.open(tmp_path / "base", student.config), student.config)
    batch = collate(examples, student.config.image_tokens)
    pixels = pixels_of(len(batch.images), student.config.vision.image_size)
    student.test_mode()
    loss, learnt = student.loss(batch, student.encode(pixels))
    expected, count, shown = 0.0, 0, iter(pixels)
    for example in examples:
        ids = torch.from_numpy(example.ids.astype("int64"))
        pictured = bool((ids == IMAGE_TOKEN).any())
        features = student.model.projector(student.encode(next(shown)[None])) if pictured else None
        with torch.no_grad():
            logits = whole(ids[None], features=features)[0]
        for start, end in example.answers:
            shift = student.config.image_tokens - 1 if pictured else 0
            expected += float(cross_entropy(logits[start + shift - 1 : end + shift - 1], ids[start:end], reduction="sum"))
            count += end - start
    assert learnt == count
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_every_linear_of_the_language_model_but_the_head_is_adapted() -> None:
    config = tiny_config()
    student = Student(random_tensors(config, 0), config, SMALL, CPU)
    adapted = {name.split(".lora_")[0] for name, _ in student.trainable() if "lora_" in name}
    linears = {
        f"language.base_model.model.{name.removesuffix('.base_layer')}"
        for name, module in student.model.language.named_modules()
        if isinstance(module, torch.nn.Linear) and "lora_" not in name and name != "lm_head"
    }
    assert adapted == linears
    assert len(adapted) == 7 * config.num_hidden_layers


@pytest.mark.parametrize("use", list(Projector))
def test_only_adapter_and_projector_learn(tmp_path: Path, use: Projector) -> None:
    config = tiny_config()
    student = Student(random_tensors(config, 0), config, dataclasses.replace(SMALL, projector=use), CPU)
    learning = {name.split(".")[0] for name, _ in student.trainable()}
    assert learning == ({"language", "projector"} if use is Projector.TRAINED else {"language"})
    assert all("lora_" in name for name, _ in student.trainable() if name.startswith("language"))
    _, examples = student_and_examples(tmp_path, ProjectorKind.LDP_V2)
    batch = collate(examples, config.image_tokens)
    loss, _ = student.loss(batch, student.encode(pixels_of(len(batch.images), config.vision.image_size)))
    loss.backward()
    others = [p for p in student.model.parameters() if not any(p is trained for _, trained in student.trainable())]
    assert others
    assert all(parameter.grad is None for parameter in others)
    assert all(parameter.grad is not None for _, parameter in student.trainable())


def test_computing_layers_twice_changes_no_gradient(tmp_path: Path) -> None:
    gradients = []
    for number, recompute in enumerate((False, True)):
        student, examples = student_and_examples(
            tmp_path / str(number), ProjectorKind.LDP_V2, Compute(torch.device("cpu"), recompute=recompute)
        )
        student.learn_mode()
        batch = collate(examples, student.config.image_tokens)
        features = student.encode(pixels_of(len(batch.images), student.config.vision.image_size))
        torch.manual_seed(0)
        student.loss(batch, features)[0].backward()
        gradients.append([p.grad for _, p in student.trainable()])
    for plain, again in zip(*gradients):
        torch.testing.assert_close(plain, again)


def test_bfloat16_holds_what_is_trained_in_float32_and_comes_near(tmp_path: Path) -> None:
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        student, examples = student_and_examples(tmp_path / str(dtype), ProjectorKind.LDP_V2, Compute(torch.device("cpu"), dtype))
        assert {parameter.dtype for _, parameter in student.trainable()} == {torch.float32}
        assert student.model.language.model.layers[0].self_attn.q_proj.base_layer.weight.dtype == dtype
        batch = collate(examples, student.config.image_tokens)
        features = student.encode(pixels_of(len(batch.images), student.config.vision.image_size))
        loss, learnt = student.loss(batch, features)
        loss.backward()
        losses.append(float(loss.detach()) / learnt)
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_the_same_seed_draws_the_same_adapter() -> None:
    config = tiny_config()

    def first(seed: int) -> torch.Tensor:
        recipe = dataclasses.replace(SMALL, seed=seed)
        return next(p for name, p in Student(random_tensors(config, 0), config, recipe, CPU).trainable() if "lora_A" in name)

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_defaults_are_the_official_recipes() -> None:
    assert Recipe().to_json() == {
        "rank": 128,
        "alpha": 256,
        "dropout": 0.05,
        "learning_rate": 2e-4,
        "projector": "trained",
        "projector_rate": None,
        "weight_decay": 0.0,
        "warmup": 0.03,
        "max_grad_norm": 1.0,
        "batch": 128,
        "micro_batch": 16,
        "epochs": 1,
        "steps": None,
        "max_length": 2048,
        "eval_split": 0.0,
        "seed": 42,
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there_is_said() -> None:
    assert device_named("auto").type == "cpu"
    with pytest.raises(ValueError, match="no CUDA device"):
        device_named("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
def test_cuda_comes_near_the_processor(tmp_path: Path) -> None:
    losses = []
    for name in ("cpu", "cuda"):
        student, examples = student_and_examples(tmp_path / name, ProjectorKind.LDP, Compute(torch.device(name)))
        student.test_mode()
        batch = collate(examples, student.config.image_tokens)
        features = student.encode(pixels_of(len(batch.images), student.config.vision.image_size))
        losses.append(float(student.loss(batch, features)[0].detach()))
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)

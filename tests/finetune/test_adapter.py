"""What is written is the official layout, and the package that `convert --lora` makes of it is the model that was trained."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from mobilevlm_ros.checkpoint.config import IMAGE_TOKEN, MobileVlmConfig, ProjectorKind
from mobilevlm_ros.checkpoint.lora import AdaptedTensors
from mobilevlm_ros.checkpoint.reader import CheckpointTensors, load_model
from mobilevlm_ros.export.convert import ConvertOptions, convert
from mobilevlm_ros.finetune.examples import Example
from mobilevlm_ros.finetune.run import Places
from mobilevlm_ros.finetune.student import Student
from tests.export.graph_runner import GraphRunner
from tests.finetune.helpers import run_training, small_training
from tests.make_checkpoint import tiny_config
from tests.parity import relative


@pytest.fixture(scope="module", params=list(ProjectorKind), ids=lambda kind: kind.value)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Places, Student, Example]:
    """A training on a tiny model, what came of it, and an example about a picture."""
    places = small_training(tmp_path_factory.mktemp("training"), tiny_config(request.param))
    _, student, prepared = run_training(places)
    student.test_mode()
    return places, student, next(example for example in prepared.train if example.image is not None)


def pixels(config: MobileVlmConfig) -> np.ndarray:
    size = config.vision.image_size
    return np.random.default_rng(3).integers(0, 256, (1, size, size, 3), np.uint8)


@torch.no_grad()
def taught_logits(student: Student, example: Example) -> np.ndarray:
    """Logits [L, vocab] of the model as it was trained, adapter and base apart."""
    features = student.model.projector(student.encode(torch.from_numpy(pixels(student.config))))
    return student.model(torch.from_numpy(example.ids.astype(np.int64))[None], features=features)[0].numpy()


def test_the_folder_has_the_official_files_and_names(trained: tuple[Places, Student, Example]) -> None:
    places, student, _ = trained
    config = json.loads((places.out / "adapter_config.json").read_text())
    assert {key: config[key] for key in ("peft_type", "task_type", "r", "lora_alpha", "bias", "lora_dropout")} == {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 4,
        "lora_alpha": 8,
        "bias": "none",
        "lora_dropout": 0.05,
    }
    assert config["target_modules"] == sorted(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
    assert config["base_model_name_or_path"] == "tiny"
    assert (places.out / "config.json").read_bytes() == (places.base / "config.json").read_bytes()
    projector = torch.load(places.out / "non_lora_trainables.bin", weights_only=True)
    first = {ProjectorKind.LDP: "model.mlp.1.weight", ProjectorKind.LDP_V2: "mlp.mlp.0.weight"}[student.config.projector]
    assert f"base_model.model.model.mm_projector.{first}" in projector
    assert len(projector) == len(student.model.projector.state_dict())
    modes = {stat.S_IMODE(path.stat().st_mode) for path in places.out.iterdir() if path.is_file()}
    assert len(modes) == 1
    assert not list(places.out.glob(".adapter-*"))


def test_merged_weights_answer_as_the_trained_model(trained: tuple[Places, Student, Example]) -> None:
    places, student, example = trained
    base = CheckpointTensors.open(places.base, student.config)
    merged = load_model(AdaptedTensors(base, places.out, student.config), student.config)
    ids = torch.from_numpy(example.ids.astype(np.int64))[None]
    shown = torch.from_numpy(pixels(student.config))
    with torch.no_grad():
        found = merged(ids, features=merged.projector(student.encode(shown)))[0].numpy()
        before = load_model(base, student.config)
        unchanged = before(ids, features=before.projector(student.encode(shown)))[0].numpy()
    expected = taught_logits(student, example)
    assert relative(found, expected) < 1e-5
    assert relative(unchanged, expected) > 0.05


def test_the_converted_package_answers_as_the_trained_model(trained: tuple[Places, Student, Example], tmp_path: Path) -> None:
    places, student, example = trained
    report = convert(places.base, tmp_path / "package", ConvertOptions(adapter=places.out))
    assert report.ignored == ()
    runner = GraphRunner(report.package)
    at = int(np.flatnonzero(example.ids == IMAGE_TOKEN)[0])
    ids = example.ids.tolist()
    embeds = np.concatenate([runner.embed(ids[:at]), runner.encode(pixels(student.config))[0], runner.embed(ids[at + 1 :])])
    found = runner.prefill(embeds, list(range(len(embeds))))
    assert relative(found, taught_logits(student, example)) < 1e-4

"""Whole trainings on a tiny model: they learn, repeat, and go on after an interruption as if there had been none."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mobilevlm_ros.finetune.errors import FinetuneError
from mobilevlm_ros.finetune.recipe import Projector, Recipe
from mobilevlm_ros.finetune.run import Habits, Start, check_out, prepare
from mobilevlm_ros.finetune.snapshots import load_snapshot, save_snapshot, snapshots
from mobilevlm_ros.runtime.errors import VlmError
from tests.finetune.helpers import SMALL, Quiet, item, run_training, small_training, write_data

TIMES = ("seconds", "tokens_per_second")


def weights(folder: Path) -> dict[str, bytes]:
    """The adapter's files that hold what was learnt."""
    return {name: (folder / name).read_bytes() for name in ("adapter_model.safetensors", "adapter_config.json")}


def projector(folder: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(folder / "non_lora_trainables.bin", weights_only=True))


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def same(first: Path, second: Path) -> bool:
    """Bit for bit."""
    ours, theirs = projector(first), projector(second)
    equal = ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    return weights(first) == weights(second) and metrics(first) == metrics(second) and equal


def test_the_loss_falls_and_is_logged_step_by_step(tmp_path: Path) -> None:
    places = small_training(tmp_path)
    outcome, *_ = run_training(places, dataclasses.replace(SMALL, steps=25, batch=8, micro_batch=8))
    log = metrics(places.out)
    assert [line["step"] for line in log] == list(range(1, 26))
    assert outcome.finished
    assert outcome.loss == log[-1]["loss"] < log[0]["loss"] / 3


def test_a_stopped_and_resumed_training_equals_an_unbroken_one_bit_for_bit(tmp_path: Path) -> None:
    places = small_training(tmp_path)
    recipe = dataclasses.replace(SMALL, steps=7, eval_split=0.2)
    habits = Habits(save_steps=3, eval_steps=2)
    unbroken = dataclasses.replace(places, out=tmp_path / "unbroken")
    run_training(unbroken, recipe, habits)
    outcome, *_ = run_training(places, recipe, habits, watcher=Quiet(stop_after=4))
    assert not outcome.finished
    assert outcome.steps == 4
    assert not (places.out / "adapter_config.json").exists()
    outcome, *_ = run_training(places, recipe, habits, Start.RESUME)
    assert outcome.finished
    assert same(places.out, unbroken.out)


def test_a_killed_training_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    places = small_training(tmp_path)
    unbroken = dataclasses.replace(places, out=tmp_path / "unbroken")
    run_training(unbroken, SMALL)

    class Killed(Quiet):
        def stepped(self, report: Any, held_out: float | None) -> None:
            if report.step == 5:
                raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run_training(places, SMALL, watcher=Killed())
    assert [path.stem for path in snapshots(places.out)] == ["step-00000002", "step-00000004"]
    assert len(metrics(places.out)) == 5
    run_training(places, SMALL, start=Start.RESUME)
    assert same(places.out, unbroken.out)


def test_a_step_that_is_broken_off_leaves_everything_as_before(tmp_path: Path) -> None:
    from mobilevlm_ros.finetune.pictures import FeatureStore, PictureReader
    from mobilevlm_ros.finetune.run import load_student
    from mobilevlm_ros.finetune.trainer import Trainer
    from tests.finetune.helpers import CPU

    places = small_training(tmp_path)
    prepared = prepare(places, SMALL, Quiet())
    losses = []
    for broken in (False, True):
        student = load_student(places, prepared, SMALL, CPU)
        reader = PictureReader(places.images, prepared.config.vision.image_size, 1)
        trainer = Trainer(student, FeatureStore(reader, student.encode, 1 << 30, 1), prepared.train, [], SMALL)
        if broken:
            assert trainer.step(iter([False, True]).__next__) is None
            assert trainer.step_number == 0
        losses.append([report.loss for _ in range(3) if (report := trainer.step()) is not None])
        reader.close()
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    places = small_training(tmp_path)
    other = dataclasses.replace(places, out=tmp_path / "other")
    run_training(places)
    run_training(other)
    assert same(places.out, other.out)
    third = dataclasses.replace(places, out=tmp_path / "third")
    run_training(third, dataclasses.replace(SMALL, seed=1))
    assert weights(third.out) != weights(places.out)


def test_the_gradient_does_not_depend_on_the_micro_batch(tmp_path: Path) -> None:
    places = small_training(tmp_path)
    logs = []
    for size in (1, 3, 8):
        recipe = dataclasses.replace(SMALL, batch=8, micro_batch=size, dropout=0.0, steps=3)
        run_training(dataclasses.replace(places, out=tmp_path / f"by {size}"), recipe)
        logs.append(metrics(tmp_path / f"by {size}"))
    for other in logs[1:]:
        for ours, theirs in zip(logs[0], other):
            assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-4)
            assert theirs["grad_norm"] == pytest.approx(ours["grad_norm"], rel=1e-3)


def test_the_rate_rises_and_falls_along_a_cosine_and_the_projectors_is_its_own(tmp_path: Path) -> None:
    places = small_training(tmp_path)
    recipe = dataclasses.replace(SMALL, steps=10, warmup=0.2, learning_rate=1e-3, projector_rate=1e-6)
    _, student, _ = run_training(places, recipe, Habits(save_steps=5))
    rates = [line["rate"] for line in metrics(places.out)]
    expected = [0, 0.5e-3, *(1e-3 * 0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(8))]
    assert rates == pytest.approx(expected, abs=1e-12)
    state = torch.load(snapshots(places.out)[-1], weights_only=True)
    assert {group["initial_lr"] for group in state["optimizer"]["param_groups"]} == {1e-3, 1e-6}
    assert student.projector_use is Projector.TRAINED


def test_a_frozen_projector_stays_as_it_is(tmp_path: Path) -> None:
    places = small_training(tmp_path)
    _, student, _ = run_training(places, dataclasses.replace(SMALL, projector=Projector.FROZEN))
    fresh = small_training(tmp_path / "again")
    _, other, _ = run_training(fresh, dataclasses.replace(SMALL, steps=1, projector=Projector.FROZEN))
    assert not (places.out / "non_lora_trainables.bin").exists()
    for name, tensor in student.projector_tensors().items():
        assert torch.equal(tensor, other.projector_tensors()[name])


def test_the_held_out_loss_is_of_examples_that_are_not_trained_on(tmp_path: Path) -> None:
    places = small_training(tmp_path)
    recipe = dataclasses.replace(SMALL, eval_split=0.3, steps=4)
    prepared = prepare(places, recipe, Quiet())
    assert len(prepared.train) + len(prepared.held) == 8
    assert not {id(one) for one in prepared.train} & {id(one) for one in prepared.held}
    watcher = Quiet()
    outcome, *_ = run_training(places, recipe, Habits(eval_steps=2), watcher=watcher)
    assert len(watcher.held_out) == 2
    assert outcome.held_out == watcher.held_out[-1] > 0
    assert [("held_out_loss" in line) for line in metrics(places.out)] == [False, True, False, True]


def test_only_the_newest_checkpoints_stay_and_none_is_half_written(tmp_path: Path) -> None:
    places = small_training(tmp_path)
    run_training(places, SMALL, Habits(save_steps=1, keep=3))
    assert sorted(path.name for path in (places.out / "checkpoints").iterdir()) == [f"step-0000000{n}.pt" for n in (4, 5, 6)]


def test_a_checkpoint_of_another_training_is_refused_with_what_differs(tmp_path: Path) -> None:
    places = small_training(tmp_path)
    run_training(places)
    with pytest.raises(FinetuneError, match=r"belongs to another training: --learning-rate was 0.01, is 0.5"):
        run_training(places, dataclasses.replace(SMALL, learning_rate=0.5), start=Start.RESUME)
    write_data(tmp_path / "data", [item([("What?", "Else.")])])
    with pytest.raises(FinetuneError, match="another training: data was"):
        run_training(places, start=Start.RESUME)


def test_a_damaged_checkpoint_and_none_at_all_are_one_line(tmp_path: Path) -> None:
    places = small_training(tmp_path)
    with pytest.raises(FinetuneError, match="nothing to resume"):
        run_training(places, start=Start.RESUME)
    run_training(places)
    newest = snapshots(places.out)[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.raises(FinetuneError, match=f"{newest.name}: not readable as a checkpoint"):
        run_training(places, start=Start.RESUME)


def test_a_checkpoint_survives_a_save_that_fails(tmp_path: Path) -> None:
    places = small_training(tmp_path)
    run_training(places)
    prepared = prepare(places, SMALL, Quiet())
    snapshot = load_snapshot(places.out, prepared.identity)
    with pytest.raises(Exception, match="pickle"):
        save_snapshot(places.out, dataclasses.replace(snapshot, random=[lambda: None]), 2)
    assert load_snapshot(places.out, prepared.identity).step == snapshot.step


def test_a_finished_training_is_not_overwritten_unasked(tmp_path: Path) -> None:
    places = small_training(tmp_path)
    check_out(places.out, Start.FRESH)
    run_training(places)
    with pytest.raises(FinetuneError, match="--resume goes on with it, --force replaces it"):
        check_out(places.out, Start.FRESH)
    check_out(places.out, Start.RESUME)
    outcome, *_ = run_training(places, dataclasses.replace(SMALL, steps=2, projector=Projector.FROZEN))
    assert outcome.steps == 2
    assert len(metrics(places.out)) == 2
    assert not (places.out / "non_lora_trainables.bin").exists()


def test_a_loss_that_is_no_number_ends_the_training_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match="a lower --learning-rate may help"):
        run_training(small_training(tmp_path), dataclasses.replace(SMALL, learning_rate=1e30, max_grad_norm=0.0, warmup=0.0))


def test_a_picture_that_breaks_after_the_check_is_named(tmp_path: Path) -> None:
    places = small_training(tmp_path)
    path = places.images / "0.png"
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(VlmError, match=r"0\.png"):
        run_training(places)


def test_data_without_an_answer_in_the_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match="no answer lies within --max-length 20 tokens"):
        prepare(small_training(tmp_path), dataclasses.replace(SMALL, max_length=20), Quiet())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, "--rank is 0, wanted at least 1"),
        ({"dropout": 1.0}, "--dropout is 1.0, wanted 0 to below 1"),
        ({"learning_rate": 0.0}, "--learning-rate is 0.0, wanted above 0"),
        ({"projector_rate": -1.0}, "--projector-rate is -1.0, wanted above 0"),
        ({"steps": 0}, "--steps is 0"),
        ({"weight_decay": math.nan}, "--weight-decay is nan"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_a_figure_out_of_its_range_is_named_as_its_option(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FinetuneError, match=message):
        Recipe(**changes)


def test_steps_follow_from_epochs_or_are_given() -> None:
    assert Recipe(batch=16, epochs=3).total_steps(100) == 21
    assert Recipe(batch=16, steps=5).total_steps(100) == 5
    assert Recipe(warmup=0.03).warmup_steps(100) == 3
    assert Recipe(warmup=0.03).warmup_steps(10) == 1

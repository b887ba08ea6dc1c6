"""A tiny base, and data to train it on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mobilevlm_ros.checkpoint.config import MobileVlmConfig, ProjectorKind
from mobilevlm_ros.finetune.recipe import Recipe
from mobilevlm_ros.finetune.run import Habits, Outcome, Places, Prepared, Start, load_student, prepare, train
from mobilevlm_ros.finetune.student import Compute, Student
from mobilevlm_ros.finetune.trainer import StepReport
from tests.make_checkpoint import Files, tiny_config, write_checkpoint

CPU = Compute(torch.device("cpu"))
OFTEN = Habits(save_steps=2)
SMALL = Recipe(rank=4, alpha=8, batch=4, micro_batch=2, learning_rate=1e-2, steps=6)


def item(turns: Sequence[tuple[str, str]], image: Any = None, **changes: Any) -> dict[str, Any]:
    """A conversation as LLaVA's JSON has it."""
    messages = []
    for number, (question, answer) in enumerate(turns):
        shown = f"<image>\n{question}" if image is not None and number == 0 else question
        messages += [{"from": "human", "value": shown}, {"from": "gpt", "value": answer}]
    return {"id": "x", **({} if image is None else {"image": image}), "conversations": messages, **changes}


def write_data(folder: Path, records: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "data.json"
    path.write_text(json.dumps(records))
    return path


def write_pictures(folder: Path, count: int) -> list[str]:
    """Pictures of noise in several shapes."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    names = []
    for number in range(count):
        height, width = ((30, 40), (40, 30), (32, 32))[number % 3]
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(folder / f"{number}.png")
        names.append(f"{number}.png")
    return names


def small_training(folder: Path, config: MobileVlmConfig | None = None) -> Places:
    """A tiny random float32 base, and eight conversations: about pictures, of one turn and of several, and without a picture."""
    base = write_checkpoint(folder / "base", config or tiny_config(ProjectorKind.LDP_V2), files=Files(dtype=torch.float32))
    names = write_pictures(folder / "pictures", 5)
    records = [item([(f"What is number {n}?", f"It is {n}.")], name) for n, name in enumerate(names)]
    records.append(item([("What?", "A ball."), ("And now?", "A red cube on the left.")], names[0]))
    records.append(item([("Who?", "Nobody.")]))
    records.append(item([("How many?", "Two."), ("Why?", "Because.")]))
    return Places(base, "tiny", write_data(folder / "data", records), folder / "pictures", folder / "adapter")


class Quiet:
    """A watcher that keeps the reports, and stops by Ctrl-C's signal after a step if that is wanted."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.reports: list[StepReport] = []
        self.held_out: list[float] = []
        self._stop_after = stop_after

    def reading(self, what: str, count: int) -> None:
        pass

    def read(self) -> None:
        pass

    def stepped(self, report: StepReport, held_out: float | None) -> None:
        import signal

        self.reports.append(report)
        if held_out is not None:
            self.held_out.append(held_out)
        if report.step == self._stop_after:
            signal.raise_signal(signal.SIGINT)


def run_training(
    places: Places,
    recipe: Recipe = SMALL,
    habits: Habits = OFTEN,
    start: Start = Start.FRESH,
    watcher: Quiet | None = None,
) -> tuple[Outcome, Student, Prepared]:
    """Prepares, loads and trains on one processor thread."""
    torch.set_num_threads(1)
    watcher = watcher or Quiet()
    prepared = prepare(places, recipe, watcher)
    student = load_student(places, prepared, recipe, CPU)
    return train(places, prepared, student, recipe, habits, start, watcher), student, prepared

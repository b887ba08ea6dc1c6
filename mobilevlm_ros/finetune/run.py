"""A whole training: data and base in, adapter out, with snapshots on the way and a log of the loss.

Joins reading, training and writing. Knows the output folder's files; prints nothing, but tells a `Watcher`.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from mobilevlm_ros.checkpoint.config import CONFIG_FILE, MobileVlmConfig
from mobilevlm_ros.checkpoint.errors import CheckpointError
from mobilevlm_ros.checkpoint.reader import CheckpointTensors
from mobilevlm_ros.checkpoint.save import TOKENIZER_FILE
from mobilevlm_ros.finetune.adapter import ADAPTER_CONFIG, ADAPTER_FILES, write_adapter
from mobilevlm_ros.finetune.batches import held_out
from mobilevlm_ros.finetune.dataset import Sample, check_pictures, read_samples
from mobilevlm_ros.finetune.errors import FinetuneError
from mobilevlm_ros.finetune.examples import Example, ExampleMaker
from mobilevlm_ros.finetune.pictures import FeatureStore, PictureReader
from mobilevlm_ros.finetune.recipe import Recipe
from mobilevlm_ros.finetune.snapshots import load_snapshot, save_snapshot, snapshots
from mobilevlm_ros.finetune.student import Compute, Student
from mobilevlm_ros.finetune.trainer import Ask, StepReport, Trainer
from mobilevlm_ros.runtime.tokenizer import Tokenizer

METRICS = "metrics.jsonl"
RECIPE = "recipe.json"


class Start(Enum):
    """How a training begins."""

    FRESH = "fresh"
    RESUME = "resume"


@dataclass(frozen=True)
class Places:
    """Where things are: the checkpoint's folder and what it is called, the data's file, the pictures' folder, the folder to
    write, and a CLIP folder for a checkpoint that holds no tower."""

    base: Path
    base_name: str
    data: Path
    images: Path
    out: Path
    vision_tower: Path | None = None


@dataclass(frozen=True)
class Habits:
    """What does not change the result: snapshots every `save_steps` steps of which the newest `keep` stay, held-out loss every
    `eval_steps`, `workers` threads that read pictures, `cache` bytes of features in memory."""

    save_steps: int = 100
    keep: int = 2
    eval_steps: int = 100
    workers: int = 4
    cache: int = 4_000_000_000


class Watcher(Protocol):
    """Who is told how it goes."""

    def reading(self, what: str, count: int) -> None:
        """`count` pictures or conversations are about to be checked."""

    def read(self) -> None:
        """One more is checked."""

    def stepped(self, report: StepReport, held_out: float | None) -> None:
        """A step is done; with it, now and then, the loss on what was kept from training."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Checked training data as tokens; `cut` examples were shortened, `dropped` had no answer within the length."""

    config: MobileVlmConfig
    train: list[Example]
    held: list[Example]
    identity: dict[str, str]
    cut: int
    dropped: int

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return max(example.length for example in (*self.train, *self.held))


@dataclass(frozen=True)
class Outcome:
    """How a training ended: after how many steps, with which mean loss of the last step, and whether it was taken to its end."""

    steps: int
    loss: float | None
    held_out: float | None
    finished: bool


def prepare(places: Places, recipe: Recipe, watcher: Watcher) -> Prepared:
    """Reads and checks everything that a training needs, without its weights.

    Raises:
        FinetuneError, CheckpointError, VlmError: in one line what is wrong with the data, the pictures or the checkpoint.
    """
    config = MobileVlmConfig.read(places.base, places.vision_tower)
    tokenizer = places.base / TOKENIZER_FILE
    if not tokenizer.is_file():
        raise CheckpointError(f"{tokenizer}: no such file")
    samples = read_samples(places.data)
    watcher.reading("pictures", len({sample.image for sample in samples if sample.image is not None}))
    check_pictures(samples, places.images, watcher.read)
    maker = ExampleMaker(config, Tokenizer(tokenizer), min(recipe.max_length, config.max_position_embeddings))
    watcher.reading("conversations", len(samples))
    examples = list(_examples(samples, maker, places.data, watcher))
    if not examples:
        raise FinetuneError(f"{places.data}: no answer lies within --max-length {recipe.max_length} tokens")
    kept = set(held_out([example.image for example in examples], recipe.eval_split, recipe.seed))
    train = [example for number, example in enumerate(examples) if number not in kept]
    if not train:
        raise FinetuneError(f"{places.data}: --eval-split {recipe.eval_split} leaves nothing to train on")
    return Prepared(
        config,
        train,
        [example for number, example in enumerate(examples) if number in kept],
        _identity(places, recipe),
        sum(example.cut for example in examples),
        len(samples) - len(examples),
    )


def load_student(places: Places, prepared: Prepared, recipe: Recipe, compute: Compute) -> Student:
    """The base with a fresh adapter; raises CheckpointError."""
    tensors = CheckpointTensors.open(places.base, prepared.config, places.vision_tower)
    return Student(tensors, prepared.config, recipe, compute)


def check_out(out: Path, start: Start) -> None:
    """Raises FinetuneError if the output folder holds something that a fresh start would destroy."""
    if start is Start.FRESH and (snapshots(out) or (out / ADAPTER_CONFIG).exists()):
        raise FinetuneError(f"{out}: holds a training already; --resume goes on with it, --force replaces it")


def train(
    places: Places, prepared: Prepared, student: Student, recipe: Recipe, habits: Habits, start: Start, watcher: Watcher
) -> Outcome:
    """Trains, and writes the adapter at the end.

    Ctrl-C ends it with a snapshot and without an adapter. Started afresh, an old training in the folder is replaced. Raises
    FinetuneError, VlmError, OSError.
    """
    out = places.out
    out.mkdir(parents=True, exist_ok=True)
    compute = student.compute
    reader = PictureReader(places.images, prepared.config.vision.image_size, habits.workers)
    # Encoded one by one, a picture's features do not depend on its neighbours in a batch, so that a resumed training on a
    # processor is the same to the bit.
    at_once = 1 if compute.device.type == "cpu" else recipe.micro_batch
    store = FeatureStore(reader, student.encode, habits.cache, at_once)
    trainer = Trainer(student, store, prepared.train, prepared.held, recipe)
    try:
        if start is Start.RESUME:
            trainer.restore(load_snapshot(out, prepared.identity))
        else:
            for old in [*snapshots(out), *(out / name for name in (METRICS, *ADAPTER_FILES))]:
                old.unlink(missing_ok=True)
        _write(out / RECIPE, json.dumps({**recipe.to_json(), "identity": prepared.identity}, indent=1) + "\n")
        with _asked_to_stop() as stop:
            outcome = _steps(out, trainer, prepared.identity, habits, watcher, stop)
    finally:
        reader.close()
    if outcome.finished:
        write_adapter(student, places.base, places.base_name, out)
    return outcome


def _steps(out: Path, trainer: Trainer, identity: dict[str, str], habits: Habits, watcher: Watcher, stop: Ask) -> Outcome:
    loss = held = None
    with _MetricsLog(out / METRICS, trainer.step_number) as log:
        while trainer.step_number < trainer.total and not stop():
            report = trainer.step(stop)
            if report is None:
                break
            last = report.step == trainer.total
            now = trainer.held_out_loss(stop) if last or report.step % habits.eval_steps == 0 else None
            loss, held = report.loss, held if now is None else now
            log.add(report, now)
            if last or report.step % habits.save_steps == 0:
                save_snapshot(out, trainer.snapshot(identity), habits.keep)
            watcher.stepped(report, now)
        if trainer.step_number < trainer.total:
            save_snapshot(out, trainer.snapshot(identity), habits.keep)
    return Outcome(trainer.step_number, loss, held, trainer.step_number == trainer.total)


class _MetricsLog:
    """A JSON object a step. Lines after the step from which a training goes on are taken back."""

    def __init__(self, path: Path, steps_done: int) -> None:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
        _write(path, "".join(lines[:steps_done]))
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> _MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, report: StepReport, held_out: float | None) -> None:
        line = {**asdict(report), "tokens_per_second": round(report.tokens / max(report.seconds, 1e-9), 1)}
        if held_out is not None:
            line["held_out_loss"] = held_out
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def _examples(samples: Sequence[Sample], maker: ExampleMaker, data: Path, watcher: Watcher) -> Iterator[Example]:
    for sample in samples:
        try:
            example = maker.make(sample)
        except FinetuneError as error:
            raise FinetuneError(f"{data}: {error}") from None
        watcher.read()
        if example is not None:
            yield example


def _identity(places: Places, recipe: Recipe) -> dict[str, str]:
    """What must not change while a training is interrupted. Weights are known by their size, which is quick to tell."""
    files = (path for path in places.base.iterdir() if path.suffix in (".bin", ".safetensors"))
    weights = sorted((path.name, path.stat().st_size) for path in files)
    facts = {f"--{name.replace('_', '-')}": str(value) for name, value in recipe.to_json().items()}
    facts["data"] = hashlib.sha256(places.data.read_bytes()).hexdigest()
    facts["base"] = hashlib.sha256((places.base / CONFIG_FILE).read_bytes() + repr(weights).encode()).hexdigest()
    return facts


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


@contextmanager
def _asked_to_stop() -> Iterator[Ask]:
    """Turns the first Ctrl-C into an answer to a question that is asked where it is safe to stop; a second one interrupts."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def note(*_: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)

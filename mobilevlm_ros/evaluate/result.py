"""A run's outcome as values: what was asked of which model with which settings, the scores, and what went wrong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

from mobilevlm_ros.evaluate.dataset import Answered, Benchmark, Item, Prediction, Scores
from mobilevlm_ros.evaluate.metrics import mean
from mobilevlm_ros.runtime.errors import ErrorCode
from mobilevlm_ros.runtime.manifest import Manifest

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ItemError:
    """An item that has no answer, and why."""

    id: str
    code: str
    message: str


@dataclass(frozen=True)
class Result:
    """Everything that is reported of a run.

    Attributes:
        benchmark: the format's name.
        dataset: file name, digest of all items, how many there are, how many were to be asked.
        model: name, checkpoint, digest of the weights, precisions, box convention and calibration, from the package's manifest.
        settings: how it was asked.
        scores: by group of items.
        answered: items with an answer, which alone are scored.
        cut_off: answers as long as the longest allowed, so probably not whole.
        mean_milliseconds: from request to answer with others at the same time, waiting included.
        mean_answer_tokens: an answer's mean length.
        notes: what a reader should know about the files.
        errors: the items without an answer.
    """

    benchmark: str
    dataset: Mapping[str, Any]
    model: Mapping[str, str]
    settings: Mapping[str, Any]
    scores: Scores
    answered: int
    cut_off: int
    mean_milliseconds: float
    mean_answer_tokens: float
    notes: tuple[str, ...]
    errors: tuple[ItemError, ...]
    schema_version: int = SCHEMA_VERSION

    @property
    def complete(self) -> bool:
        """Whether the scores stand for the whole dataset."""
        return bool(self.answered == self.dataset["items"])

    def to_json(self) -> str:
        """JSON text with a fixed order."""
        return json.dumps({"complete": self.complete, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"


def dataset_facts(benchmark: Benchmark, annotations: str, to_ask: int) -> dict[str, Any]:
    """What was asked; the digest covers every item's words and truth, whatever part of them was asked."""
    return {
        "annotations": annotations,
        "items": len(benchmark.items),
        "to_ask": to_ask,
        "sha256": items_sha256(benchmark.items),
    }


def model_facts(manifest: Manifest) -> dict[str, str]:
    """What tells a model package from others."""
    return {
        "name": manifest.name,
        "checkpoint": manifest.source.checkpoint,
        "weights_sha256": manifest.source.weights_sha256,
        "vision_precision": manifest.vision_precision.value,
        "decoder_precision": manifest.decoder_precision.value,
        "box_frame": manifest.box_frame.value,
        "score_calibration": f"scale {manifest.score_calibration.scale:g}, offset {manifest.score_calibration.offset:g}",
    }


def items_sha256(items: Iterable[Item]) -> str:
    """A digest of what is asked and what is right, without the folders that the pictures lie in."""
    digest = hashlib.sha256()
    for item in items:
        frame = None if item.box_frame is None else item.box_frame.value
        box = None if item.box is None else (item.box.x1, item.box.y1, item.box.x2, item.box.y2)
        asked = (item.id, item.image.name, item.question, item.task.value, item.fit.value)
        several = None if item.several is None else [astuple(one) for one in item.several]
        digest.update(json.dumps([asked, item.references, box, frame, item.absent, several]).encode())
    return digest.hexdigest()


def answered_items(benchmark: Benchmark, items: Sequence[Item], predictions: Mapping[str, Prediction]) -> list[Answered]:
    """The items that have an answer, with their grades."""
    found = []
    for item in items:
        prediction = predictions.get(item.id)
        if prediction is not None and prediction.error is ErrorCode.NONE:
            found.append(Answered(item, prediction, benchmark.grade(item, prediction)))
    return found


def summarize(
    benchmark: Benchmark,
    items: Sequence[Item],
    predictions: Mapping[str, Prediction],
    dataset: Mapping[str, Any],
    model: Mapping[str, str],
    settings: Mapping[str, Any],
) -> tuple[Result, list[Answered]]:
    """A run's result, and its graded answers for the report."""
    answered = answered_items(benchmark, items, predictions)
    failed = [predictions[item.id] for item in items if item.id in predictions and predictions[item.id].error]
    lengths = [one.prediction.answer_tokens for one in answered]
    result = Result(
        benchmark=benchmark.name,
        dataset=dataset,
        model=model,
        settings=settings,
        scores=benchmark.score(answered) if answered else {},
        answered=len(answered),
        cut_off=sum(length >= settings["max_tokens"] for length in lengths),
        mean_milliseconds=round(mean(one.prediction.milliseconds for one in answered), 3),
        mean_answer_tokens=round(mean(lengths), 3),
        notes=tuple(benchmark.notes),
        errors=tuple(ItemError(one.id, one.error.name, one.error_msg) for one in failed),
    )
    return result, answered

"""What every benchmark is made of: items to ask, answers to them, grades, and scores over all. Values; nothing runs here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from mobilevlm_ros.runtime.errors import ErrorCode
from mobilevlm_ros.runtime.geometry import Box, Letterbox
from mobilevlm_ros.runtime.manifest import BoxFrame

SHORT_ANSWER = "Answer the question using a single word or phrase."
"""LLaVA's wish for a short answer, put on a line of its own after the question; MobileVLM is evaluated with it."""

MAX_TOKENS = 128
"""The longest answer in the official evaluation, where a benchmark says nothing else."""


class Task(Enum):
    """How an item is put to the model."""

    ASK = "ask"  # the question as it stands
    GROUND = "ground"  # a referring expression, in the sentences that the model package names


class Fit(Enum):
    """How the official evaluation brings a picture into the model's square."""

    PAD = "pad"
    CENTRE_CROP = "centre_crop"


@dataclass(frozen=True)
class Item:
    """One thing to ask about one picture.

    Attributes:
        id: tells items of a benchmark apart.
        image: the picture's file.
        question: the words; for Task.GROUND the referring expression.
        references: the right answers in words; what they mean is the benchmark's matter.
        box: the right box, where there is one.
        box_frame: what `box` is relative to; None is source pixels.
        absent: the picture does not show what is asked for, so no box is right.
        several: all right boxes in source pixels where the expression is in the plural, none among them; else None.
        question_id: the dataset's own id, which several items may share.
        metadata: what scores are grouped by.
    """

    id: str
    image: Path
    question: str
    references: tuple[str, ...] = ()
    task: Task = Task.ASK
    fit: Fit = Fit.PAD
    box: Box | None = None
    box_frame: BoxFrame | None = None
    absent: bool = False
    several: tuple[Box, ...] | None = None
    question_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def source_box(self, width: int, height: int) -> Box | None:
        """The right box in the pixels of a picture of this size, cut at its edge."""
        if self.box is None or self.box_frame is None:
            return self.box
        return Letterbox(width, height).to_source(self.box, self.box_frame).clipped(width, height)


@dataclass(frozen=True)
class ScoredBox:
    """A box in source pixels and its score, 0 to 1."""

    box: Box
    score: float


@dataclass(frozen=True)
class Prediction:
    """What the model said to an item.

    Attributes:
        text: the answer; for Task.GROUND the model's own words for the box.
        boxes: for Task.GROUND, what the task gives a robot: best first, none where the thing seems absent.
        forced_box: for Task.GROUND, the first box when it is asked for whether or not the thing seems to be there.
        presence: for Task.GROUND, the probability that the model gives to the thing's being there.
        width: of the picture in pixels; 0 if it could not be read.
        height: likewise.
        error: NONE, or why there is no answer; such items are left out of every score.
        milliseconds: from the request to the answer, waiting included.
    """

    id: str
    question_id: str = ""
    prompt: str = ""
    text: str = ""
    confidence: float = 0.0
    boxes: tuple[ScoredBox, ...] = ()
    forced_box: Box | None = None
    presence: float | None = None
    width: int = 0
    height: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    milliseconds: float = 0.0
    error: ErrorCode = ErrorCode.NONE
    error_msg: str = ""


@dataclass(frozen=True)
class Grade:
    """How good one answer is.

    Attributes:
        value: 0 to 1.
        expected: the right answer in words, for a reader.
        got: the answer as the rules understood it.
        right_boxes: in source pixels, to be drawn.
        boxes: the answer's boxes in source pixels, to be drawn.
    """

    value: float
    expected: str
    got: str
    right_boxes: tuple[Box, ...] = ()
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Answered:
    """An item, what the model said, and how good that is."""

    item: Item
    prediction: Prediction
    grade: Grade


Scores = dict[str, dict[str, float]]
"""Measures by group of items, for example {"adversarial": {"accuracy": 0.81, "f1": 0.8}}."""


class Benchmark(Protocol):
    """A dataset that has been read, and its rules."""

    @property
    def name(self) -> str:
        """What it is called on the command line."""

    @property
    def items(self) -> Sequence[Item]:
        """Everything there is to ask, in the dataset's order."""

    @property
    def max_tokens(self) -> int:
        """The longest answer in the published evaluation."""

    @property
    def notes(self) -> Sequence[str]:
        """What a reader of the scores should know about the files that were read."""

    def grade(self, item: Item, prediction: Prediction) -> Grade:
        """How good an answer is, by the benchmark's rules."""

    def score(self, answered: Sequence[Answered]) -> Scores:
        """All measures over the answers that there are; at least one. A group with "mean_score" and "right" is a bin of a
        reliability table, named "score 0.3 to 0.4"."""

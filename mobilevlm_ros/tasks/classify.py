"""A choice among given answers: nothing else can come back, and each gets its probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobilevlm_ros.runtime.engine import Engine
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.requests import Limits, Picture, Timing
from mobilevlm_ros.tasks.results import Classification
from mobilevlm_ros.tasks.settings import Settings


def classify(
    engine: Engine, frame: Frame, question: str, labels: Sequence[str], settings: Settings | None = None
) -> Classification:
    """Choose the label that answers a question about the picture best.

    Args:
        question: empty asks which label fits the picture best.
        labels: two or more, each different.

    Raises:
        VlmError: BAD_REQUEST for fewer than two labels, an empty or a repeated one; else as for `ask`.
    """
    _check_labels(labels)
    settings = settings or Settings()
    question = question.strip() or engine.manifest.phrasings.classify.format(labels=", ".join(labels))
    options = score_options(engine, engine.picture(frame), question, labels, settings.limits())
    best = int(np.argmax(options.probabilities))
    return Classification(
        confidence=options.probabilities[best],
        prompt_tokens=options.prompt_tokens,
        answer_tokens=0,
        timing=options.timing,
        error=ErrorCode.NONE,
        error_msg="",
        label=labels[best],
        probabilities=options.probabilities,
    )


@dataclass(frozen=True)
class OptionScores:
    """Each option's probability among the options; they add up to 1."""

    probabilities: tuple[float, ...]
    prompt_tokens: int
    timing: Timing


def score_options(engine: Engine, picture: Picture, question: str, options: Sequence[str], limits: Limits) -> OptionScores:
    """Score each option as the whole answer. An option counts as written and with its first letter in the other case."""
    forms = [(index, form) for index, option in enumerate(options) for form in letter_cases(option)]
    scored = engine.score(picture, question, [form for _, form in forms], limits).result()
    logs = np.array(scored.log_probabilities)
    weights = np.exp(logs - logs.max())
    totals = np.zeros(len(options))
    np.add.at(totals, [index for index, _ in forms], weights)
    probabilities = totals / totals.sum()
    return OptionScores(tuple(float(p) for p in probabilities), scored.prompt_tokens, scored.timing)


def letter_cases(option: str) -> list[str]:
    """An option as written and with its first letter in the other case, each once."""
    first, rest = option[:1], option[1:]
    return list(dict.fromkeys([option, first.upper() + rest, first.lower() + rest]))


def _check_labels(labels: Sequence[str]) -> None:
    if len(labels) < 2:
        raise VlmError(ErrorCode.BAD_REQUEST, f"a choice needs at least 2 labels, not {len(labels)}")
    if not all(label.strip() for label in labels):
        raise VlmError(ErrorCode.BAD_REQUEST, "a label is empty")
    if len({label.strip().lower() for label in labels}) < len(labels):
        raise VlmError(ErrorCode.BAD_REQUEST, "the labels are not all different")

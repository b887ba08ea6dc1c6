"""What the tasks return."""

from __future__ import annotations

from dataclasses import dataclass

from mobilevlm_ros.runtime.errors import ErrorCode
from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.runtime.requests import FinishReason, Timing


@dataclass(frozen=True)
class Result:
    """What every result tells of itself.

    Attributes:
        confidence: 0 to 1: the mean probability of the answer's tokens; for a choice among options, yes and no among them, the
            chosen one's probability among the options.
        prompt_tokens: length of the prompt, the picture's tokens included.
        answer_tokens: length of the answer.
        timing: where the time went.
        error: NONE, or why the result is not whole.
        error_msg: one line; empty for NONE.
    """

    confidence: float
    prompt_tokens: int
    answer_tokens: int
    timing: Timing
    error: ErrorCode
    error_msg: str


@dataclass(frozen=True)
class Answer(Result):
    """An answer in words. It is data: nothing in it is to be executed.

    Attributes:
        turns: earlier turns of a conversation that it took into account.
        turns_left_out: earlier turns, the oldest, that did not fit the model's context beside the message and its answer.
    """

    question: str
    text: str
    token_ids: tuple[int, ...]
    turns: int = 0
    turns_left_out: int = 0


@dataclass(frozen=True)
class Region:
    """A part of the picture and the words for it.

    `box` is in source pixels, `box_normalized` in 0 to 1 of the picture's width and height. `score`, 0 to 1, is the probability
    that the thing is there and the box overlaps it by a half or more; it is calibrated where the model package says so.
    """

    phrase: str
    score: float
    box: Box
    box_normalized: Box


@dataclass(frozen=True)
class Grounding(Result):
    """What a referring expression points at, best first.

    Attributes:
        confidence: the best region's score; without a region, the probability that the thing is absent.
        prompt_tokens: of the last question.
        answer_tokens: of all boxes.
        text: the model's own words, a line for each box, kept also where they held no valid one.
        presence: the probability, 0 to 1, that there is such a thing at all.
    """

    expression: str
    regions: tuple[Region, ...]
    text: str
    presence: float


@dataclass(frozen=True)
class Classification(Result):
    """The best of several labels, and each label's probability in the request's order; they add up to 1."""

    label: str
    probabilities: tuple[float, ...]


def finish_error(finish: FinishReason) -> tuple[ErrorCode, str]:
    """The error code and line for the way an answer ended."""
    if finish is FinishReason.CANCELLED:
        return ErrorCode.CANCELLED, "taken back while the answer was made"
    if finish is FinishReason.DEADLINE:
        return ErrorCode.DEADLINE_EXCEEDED, "the deadline passed while the answer was made"
    return ErrorCode.NONE, ""

"""One look for one thing: is it there, and where? What `ground` does once, and again for each of several things.

The model is first asked whether the thing is there, because it draws a box for whatever it is asked for.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from mobilevlm_ros.runtime.engine import Engine
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import Box, Letterbox
from mobilevlm_ros.runtime.manifest import BoxFrame
from mobilevlm_ros.runtime.requests import FinishReason, Limits, Timing
from mobilevlm_ros.runtime.sampling import GREEDY
from mobilevlm_ros.tasks.box_score import calibrated, overlap_probability
from mobilevlm_ros.tasks.boxes import BOX_FORM, parse_boxes
from mobilevlm_ros.tasks.classify import score_options
from mobilevlm_ros.tasks.coordinates import KEEP, coordinate_distributions

MAX_BOX_TOKENS = 64


@dataclass(frozen=True)
class Presence:
    """The probability, 0 to 1, that a thing is there, and what asking for it cost."""

    probability: float
    prompt_tokens: int
    timing: Timing


@dataclass(frozen=True)
class Drawn:
    """A box that the model drew.

    Attributes:
        text: the model's own words.
        box: in source pixels, cut at the picture's edge; None if the words hold no valid box inside the picture.
        probability: that the box overlaps the truth by a half, given that the thing is there; before calibration.
        finish: why the answer ended.
    """

    text: str
    box: Box | None
    probability: float
    finish: FinishReason
    prompt_tokens: int
    answer_tokens: int
    timing: Timing


def ask_presence(engine: Engine, frame: Frame, phrase: str, limits: Limits) -> Presence:
    """Ask whether the picture shows what `phrase` means; raises VlmError as `ask` does."""
    question = engine.manifest.phrasings.presence.format(expression=indefinite(phrase))
    scores = score_options(engine, engine.picture(frame), question, ("yes", "no"), limits)
    return Presence(scores.probabilities[0], scores.prompt_tokens, scores.timing)


def draw_box(engine: Engine, frame: Frame, phrase: str, limits: Limits) -> Drawn:
    """Ask where `phrase` is, without asking whether it is there; raises VlmError as `ask` does."""
    question = engine.manifest.phrasings.ground.format(expression=phrase)
    sampling = replace(GREEDY, max_tokens=MAX_BOX_TOKENS, alternatives=KEEP)
    form = engine.constraints.regex(BOX_FORM)
    generated = engine.generate(engine.picture(frame), question, sampling, limits, constraint=form).result()
    text = engine.tokenizer.decode(generated.tokens).strip()
    written = parse_boxes(text)
    probability = 0.0
    if written:
        probability = overlap_probability(coordinate_distributions(engine.tokenizer, generated), written[0])
    return Drawn(
        text=text,
        box=next(iter(source_boxes(text, frame, engine.manifest.box_frame)), None),
        probability=probability,
        finish=generated.finish,
        prompt_tokens=generated.prompt_tokens,
        answer_tokens=len(generated.tokens),
        timing=generated.timing,
    )


def score_of(engine: Engine, presence: Presence, drawn: Drawn) -> float:
    """A region's score: the probability that the thing is there and its box right, as the package's calibration corrects it."""
    return calibrated(presence.probability * drawn.probability, engine.manifest.score_calibration)


def indefinite(phrase: str) -> str:
    """An expression as it is used to ask whether something is there: "the red mug" becomes "a red mug"."""
    words = re.sub(r"^the\s+", "", phrase, flags=re.IGNORECASE)
    if words == phrase:
        return phrase
    article = "an" if words[:1].lower() in "aeiou" else "a"
    return f"{article} {words}"


def source_boxes(text: str, frame: Frame, box_frame: BoxFrame) -> list[Box]:
    """The boxes of a model's answer in source pixels, cut at the picture's edge; those that lie outside are dropped."""
    geometry = Letterbox(frame.width, frame.height)
    boxes = []
    for box in parse_boxes(text):
        inside = geometry.to_source(box, box_frame).clipped(frame.width, frame.height)
        if inside.area > 0 and math.isfinite(inside.area):
            boxes.append(inside)
    return boxes

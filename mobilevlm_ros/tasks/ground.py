"""Referring expression comprehension: words in, boxes out."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np

from mobilevlm_ros.runtime.engine import Engine
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import Box, Letterbox
from mobilevlm_ros.runtime.manifest import BoxFrame
from mobilevlm_ros.runtime.requests import Generated, Limits, Picture
from mobilevlm_ros.runtime.sampling import GREEDY
from mobilevlm_ros.tasks.boxes import BOX_FORM, parse_boxes
from mobilevlm_ros.tasks.classify import score_options
from mobilevlm_ros.tasks.results import Grounding, Region, finish_error
from mobilevlm_ros.tasks.settings import Settings

MAX_BOX_TOKENS = 64


def ground(engine: Engine, frame: Frame, expression: str, settings: Settings | None = None) -> Grounding:
    """Find what a referring expression such as "the red mug" points at.

    The model is first asked whether the thing is there, because it draws a box for whatever it is asked for. A region's score is
    the product of that answer's probability and the mean probability of the box's tokens.

    Returns:
        The regions, best first; none, with error NO_GROUNDING, where the thing is absent or the answer holds no valid box.

    Raises:
        VlmError: as for `ask`.
    """
    settings = settings or Settings()
    phrase = expression.strip().rstrip(".")
    if not phrase:
        raise VlmError(ErrorCode.BAD_REQUEST, "the expression is empty")
    limits = settings.limits()
    picture = engine.picture(frame)
    phrasings = engine.manifest.phrasings
    presence_question = phrasings.presence.format(expression=indefinite(phrase))
    presence = score_options(engine, picture, presence_question, ("yes", "no"), limits)
    if presence.probabilities[0] < 0.5:
        return Grounding(
            confidence=presence.probabilities[1],
            prompt_tokens=presence.prompt_tokens,
            answer_tokens=0,
            timing=presence.timing,
            error=ErrorCode.NO_GROUNDING,
            error_msg=f"the picture does not seem to show {indefinite(phrase)}",
            expression=expression,
            regions=(),
            text="",
        )
    generated = _generate_box(engine, picture, phrasings.ground.format(expression=phrase), limits)
    generated = replace(generated, timing=presence.timing + generated.timing)
    return _to_grounding(engine, frame, expression, phrase, presence.probabilities[0], generated)


def indefinite(phrase: str) -> str:
    """An expression as it is used to ask whether something is there: "the red mug" becomes "a red mug"."""
    words = re.sub(r"^the\s+", "", phrase, flags=re.IGNORECASE)
    if words == phrase:
        return phrase
    article = "an" if words[:1].lower() in "aeiou" else "a"
    return f"{article} {words}"


def _generate_box(engine: Engine, picture: Picture, question: str, limits: Limits) -> Generated:
    sampling = replace(GREEDY, max_tokens=MAX_BOX_TOKENS)
    return engine.generate(picture, question, sampling, limits, constraint=engine.constraints.regex(BOX_FORM)).result()


def _to_grounding(engine: Engine, frame: Frame, expression: str, phrase: str, presence: float, generated: Generated) -> Grounding:
    text = engine.tokenizer.decode(generated.tokens).strip()
    confidence = presence * float(np.mean(generated.probabilities or (0.0,)))
    boxes = source_boxes(text, frame, engine.manifest.box_frame)
    regions = tuple(Region(phrase, confidence, box, box.scaled(1 / frame.width, 1 / frame.height)) for box in boxes)
    error, error_msg = finish_error(generated.finish)
    if error is ErrorCode.NONE and not regions:
        error, error_msg = ErrorCode.NO_GROUNDING, "the answer holds no valid box inside the picture"
    return Grounding(
        confidence=confidence,
        prompt_tokens=generated.prompt_tokens,
        answer_tokens=len(generated.tokens),
        timing=generated.timing,
        error=error,
        error_msg=error_msg,
        expression=expression,
        regions=regions,
        text=text,
    )


def source_boxes(text: str, frame: Frame, box_frame: BoxFrame) -> list[Box]:
    """The boxes of a model's answer in source pixels, cut at the picture's edge; those that lie outside are dropped."""
    geometry = Letterbox(frame.width, frame.height)
    boxes = []
    for box in parse_boxes(text):
        inside = geometry.to_source(box, box_frame).clipped(frame.width, frame.height)
        if inside.area > 0 and math.isfinite(inside.area):
            boxes.append(inside)
    return boxes

"""Questions in words, answered in words; with earlier turns, a conversation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mobilevlm_ros.runtime.constraint import Constraint
from mobilevlm_ros.runtime.engine import Engine
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.prompt import Turn
from mobilevlm_ros.runtime.requests import Generated, Generation, Picture
from mobilevlm_ros.runtime.tokenizer import TextStream, Tokenizer
from mobilevlm_ros.tasks.results import Answer, finish_error
from mobilevlm_ros.tasks.settings import Settings

OnText = Callable[[str], None]
OPPOSITES = {"yes": "No", "no": "Yes"}


def ask(
    engine: Engine,
    frame: Frame,
    question: str,
    settings: Settings | None = None,
    on_text: OnText | None = None,
    constraint: Constraint | None = None,
) -> Answer:
    """Ask a question about a picture.

    Args:
        on_text: called in the caller's thread with each piece of text as it comes; the pieces add up to the answer's text before
            its surrounding whitespace is removed.
        constraint: a form that the answer must have, from `engine.constraints`; used up by this answer.

    Raises:
        VlmError: BAD_REQUEST, PROMPT_TOO_LONG, BUSY, DEADLINE_EXCEEDED or CANCELLED before the request's turn came, MODEL_ERROR,
            OUT_OF_MEMORY, NOT_ACTIVE.
    """
    return chat(engine, frame, (), question, settings, on_text, constraint)


def chat(
    engine: Engine,
    frame: Frame,
    history: Sequence[Turn],
    message: str,
    settings: Settings | None = None,
    on_text: OnText | None = None,
    constraint: Constraint | None = None,
) -> Answer:
    """Go on with a conversation about a picture; as `ask`, after the turns of `history`.

    Where the history does not fit the model's context, its oldest turns are left out; PROMPT_TOO_LONG is raised where the message
    alone does not fit.
    """
    settings = settings or Settings()
    generation = _start(engine, engine.picture(frame), list(history), message, settings, constraint)
    if on_text is not None:
        stream = TextStream(engine.tokenizer)
        for token in generation:
            if piece := stream.add(token):
                on_text(piece)
        if piece := stream.finish():
            on_text(piece)
    return to_answer(engine.tokenizer, message, generation.result())


def _start(
    engine: Engine, picture: Picture, history: list[Turn], message: str, settings: Settings, constraint: Constraint | None
) -> Generation:
    limits = settings.limits()
    while True:
        try:
            return engine.generate(picture, message, settings.sampling, limits, history, constraint)
        except VlmError as error:
            if error.code is not ErrorCode.PROMPT_TOO_LONG or not history:
                raise
            del history[0]


def to_answer(tokenizer: Tokenizer, question: str, generated: Generated) -> Answer:
    """A finished generation as an answer in words."""
    text = tokenizer.decode(generated.tokens).strip()
    error, error_msg = finish_error(generated.finish)
    return Answer(
        confidence=_confidence(tokenizer, generated, text),
        prompt_tokens=generated.prompt_tokens,
        answer_tokens=len(generated.tokens),
        timing=generated.timing,
        error=error,
        error_msg=error_msg,
        question=question,
        text=text,
        token_ids=generated.tokens,
    )


def _confidence(tokenizer: Tokenizer, generated: Generated, text: str) -> float:
    if not generated.tokens:
        return 0.0
    opposite = OPPOSITES.get(text.rstrip(".").lower())
    if opposite is None:
        return float(np.mean(generated.probabilities))
    chosen = generated.probabilities[0]
    other = float(np.exp(generated.first_log_probabilities[tokenizer.encode(opposite)[0]]))
    return chosen / (chosen + other)

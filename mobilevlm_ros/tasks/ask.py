"""Questions in words, answered in words; with earlier turns, a conversation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

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
    settings = settings or Settings()
    generation = engine.generate(engine.picture(frame), question, settings.sampling, settings.limits(), (), constraint)
    return _finish(engine, question, generation, on_text)


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

    Where the history does not fit the model's context beside the message and its answer (`max_tokens`, counted as a quarter of
    the context at most), its oldest turns are left out, and the answer says how many. PROMPT_TOO_LONG is raised where the message
    alone does not fit.
    """
    settings = settings or Settings()
    generation, left_out = _start(engine, engine.picture(frame), history, message, settings, constraint)
    answer = _finish(engine, message, generation, on_text)
    return replace(answer, turns=len(history) - left_out, turns_left_out=left_out)


def _finish(engine: Engine, question: str, generation: Generation, on_text: OnText | None) -> Answer:
    """The answer, once it is whole; tells `on_text` of its pieces as they come."""
    if on_text is not None:
        stream = TextStream(engine.tokenizer)
        for token in generation:
            if piece := stream.add(token):
                on_text(piece)
        if piece := stream.finish():
            on_text(piece)
    return to_answer(engine.tokenizer, question, generation.result())


def _start(
    engine: Engine, picture: Picture, history: Sequence[Turn], message: str, settings: Settings, constraint: Constraint | None
) -> tuple[Generation, int]:
    """Starts the answer; returns it and how many turns were left out."""
    limits = settings.limits()
    for_answer = min(settings.sampling.max_tokens, engine.context_length // 4)
    left_out = 0
    while True:
        turns = history[left_out:]
        try:
            room = for_answer if turns else 1
            generation = engine.generate(picture, message, settings.sampling, limits, turns, constraint, room, keep_turn=True)
            return generation, left_out
        except VlmError as error:
            if error.code is not ErrorCode.PROMPT_TOO_LONG or not turns:
                raise
            left_out += 1


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

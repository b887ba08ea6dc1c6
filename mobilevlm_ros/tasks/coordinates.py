"""How sure a model is of each number of a box that it wrote: a distribution over 0.00 to 1.00 for each coordinate.

It is read from what else could have stood at each choice of the answer. Where a tokenizer has a token for a whole number, that is
the model's own distribution over the hundredths. Where a number is written digit by digit, a digit that was not chosen leaves the
digits after it unknown; its probability is given to the hundredths that begin so, in proportion to 1 / distance² from the number
that was written, because models err by little more often than by much. Each coordinate's distribution holds given the coordinates
that were written before it. Knows the notation of `boxes.py`; knows no picture and no engine.
"""

from __future__ import annotations

import numpy as np

from mobilevlm_ros.runtime.requests import Generated
from mobilevlm_ros.runtime.sampling import Alternatives
from mobilevlm_ros.runtime.tokenizer import Tokenizer

HUNDREDTHS = 101
"""A coordinate in the model's words is one of 0.00, 0.01, ... 1.00."""

KEEP = 128
"""How many alternatives to keep with each choice, so that every hundredth is among them."""

_WRITTEN = tuple(f"{index / 100:.2f}" for index in range(HUNDREDTHS))
_NEGLIGIBLE = 1e-5


def coordinate_distributions(tokenizer: Tokenizer, generated: Generated) -> np.ndarray:
    """The distributions of the four numbers of an answer that is one box: float64 [4, 101], each row's sum at most 1.

    Alternatives are weighed among themselves, because tokens outside the form could not be chosen.

    Args:
        generated: made under `BOX_FORM` with the alternatives of each choice kept. Numbers that were not reached stay 0.
    """
    found = np.zeros((4, HUNDREDTHS))
    left = np.ones(4)
    written = [_hundredth(number) for number in _numbers_of(tokenizer.decode(generated.tokens))[:4]]
    for step in generated.alternatives:
        if step.position < len(generated.tokens):
            _spread(tokenizer, generated.tokens, step, written, found, left)
    for index, value in enumerate(written):
        if value is not None:
            found[index, value] += left[index]
    return found


def _spread(
    tokenizer: Tokenizer,
    tokens: tuple[int, ...],
    step: Alternatives,
    written: list[int | None],
    found: np.ndarray,
    left: np.ndarray,
) -> None:
    """Give the probability of what was not chosen at one step to the hundredths that it would have begun."""
    before = tokenizer.decode(tokens[: step.position])
    index = len(_numbers_of(before)) - 1
    if not 0 <= index < len(written):
        return
    chosen, value = tokens[step.position], written[index]
    weights = np.exp(step.log_probabilities - step.log_probabilities.max())
    weights *= left[index] / weights.sum()
    for token, weight in zip(step.tokens.tolist(), weights.tolist()):
        if token != chosen and value is not None and weight > _NEGLIGIBLE:
            values = _beginning_with(_numbers_of(before + tokenizer.decode([token]))[index])
            near = 1 / np.maximum(np.abs(values - value), 1) ** 2
            found[index, values] += weight * near / near.sum()
    left[index] = float(weights[step.tokens == chosen].sum())


def _numbers_of(text: str) -> list[str]:
    """The numbers of a box that is being written, as far as they go; the last may be empty."""
    _, bracket, inside = text.rpartition("[")
    return [part.strip(" ]") for part in inside.split(",")] if bracket else []


def _hundredth(number: str) -> int | None:
    return _WRITTEN.index(number) if number in _WRITTEN else None


def _beginning_with(start: str) -> np.ndarray:
    """The hundredths that a number which begins so can become."""
    return np.array([index for index, number in enumerate(_WRITTEN) if number.startswith(start)], int)

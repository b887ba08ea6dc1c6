"""Turns about a picture as rows of token ids: side by side as first questions, or one after another as a chat."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from training.questions import Turn
from training.vocabulary import Words

IGNORE = -100
Sizes = tuple[tuple[int, int], ...]
"""Rows and their length, for short and for long turns."""


@dataclass(frozen=True)
class Packed:
    """ids and labels [T, L]; labels stand where the next token is to be predicted, elsewhere IGNORE."""

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]


class Packer:
    """Packs turns into rows of fixed size; what does not fit is left out."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self.first = lru_cache(maxsize=50_000)(words.first_turn)
        self.later = lru_cache(maxsize=50_000)(words.later_turn)
        self.answer = lru_cache(maxsize=50_000)(words.answer)

    def side_by_side(self, turns: list[Turn], sizes: Sizes) -> list[Packed]:
        """Every turn in a row of its own, in the first of the sizes that it fits."""
        packed = [_empty(count, length) for count, length in sizes]
        rows = [0] * len(sizes)
        for turn in turns:
            prompt, answer = self.first(turn.question), self.answer(turn.answer)
            for number, (count, length) in enumerate(sizes):
                if rows[number] < count and len(prompt) + len(answer) <= length:
                    _put(packed[number], rows[number], 0, prompt, answer)
                    rows[number] += 1
                    break
        return packed

    def chat(self, turns: list[Turn], length: int) -> list[Packed]:
        """All turns in one row, later ones after the answers of earlier ones."""
        packed = _empty(1, length)
        at = 0
        for number, turn in enumerate(turns):
            prompt = self.first(turn.question) if number == 0 else self.later(turn.question, number % 2 == 0)
            answer = self.answer(turn.answer)
            if at + len(prompt) + len(answer) > length:
                break
            _put(packed, 0, at, prompt, answer)
            at += len(prompt) + len(answer)
        return [packed]


def _empty(count: int, length: int) -> Packed:
    return Packed(np.zeros((count, length), np.int64), np.full((count, length), IGNORE, np.int64))


def _put(packed: Packed, row: int, at: int, prompt: list[int], answer: list[int]) -> None:
    start = at + len(prompt)
    packed.ids[row, at:start] = prompt
    packed.ids[row, start : start + len(answer)] = answer
    packed.labels[row, start - 1 : start - 1 + len(answer)] = answer

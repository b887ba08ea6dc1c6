"""Conversations as the token ids that the model learns from, with the answers marked.

The ids are those that the runtime's prompt code gives at inference, because it makes them here too. Knows the template through
that code; knows nothing of pictures' pixels and of torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.checkpoint.config import IMAGE_TOKEN, MobileVlmConfig
from mobilevlm_ros.finetune.dataset import Sample
from mobilevlm_ros.finetune.errors import FinetuneError
from mobilevlm_ros.runtime.manifest import SpecialTokens
from mobilevlm_ros.runtime.prompt import V1, PromptBuilder
from mobilevlm_ros.runtime.tokenizer import Tokenizer

IGNORE_INDEX = -100
"""The label of a token that is not learnt (PyTorch's convention)."""


@dataclass(frozen=True, eq=False)
class Example:
    """A conversation to learn from.

    Attributes:
        ids: int32 [L]; IMAGE_TOKEN stands for the picture.
        answers: where answers begin and end in `ids`, their end-of-sequence token included.
        image: the picture's name, if there is one.
        length: tokens that the model reads, visual tokens included.
        cut: whether the conversation was longer than allowed.
    """

    ids: NDArray[np.int32]
    answers: tuple[tuple[int, int], ...]
    image: str | None
    length: int
    cut: bool = False

    def labels(self) -> NDArray[np.int64]:
        """int64 [L]: the ids of the answers, IGNORE_INDEX everywhere else."""
        labels = np.full(len(self.ids), IGNORE_INDEX, np.int64)
        for start, end in self.answers:
            labels[start:end] = self.ids[start:end]
        return labels


class ExampleMaker:
    """Makes examples for one checkpoint."""

    def __init__(self, config: MobileVlmConfig, tokenizer: Tokenizer, max_length: int) -> None:
        """`max_length` counts the tokens that the model reads, so a picture counts as its visual tokens."""
        self._special = SpecialTokens(config.bos_token_id, config.eos_token_id, config.pad_token_id)
        self._tokenizer = tokenizer
        self._prompts = PromptBuilder(V1, self._special, tokenizer)
        self._image_tokens = config.image_tokens
        self._max_length = max_length

    def make(self, sample: Sample) -> Example | None:
        """The example of a conversation, cut at the end where it is too long; None where no answer would be left.

        Raises:
            FinetuneError: an answer's tokens depend on the question before it, so that no boundary can be drawn.
        """
        ids = [self._special.bos] if sample.image is None else [*self._prompts.head, IMAGE_TOKEN]
        answers: list[tuple[int, int]] = []
        for number, turn in enumerate(sample.turns):
            asked = self._encode(sample, number, turn.question, "")
            whole = self._encode(sample, number, turn.question, f" {turn.answer}")
            if whole[: len(asked)] != asked:
                raise FinetuneError(f"item {sample.id}: the tokenizer joins the answer {turn.answer[:40]!r} to its question")
            answers.append((len(ids) + len(asked), len(ids) + len(whole) + 1))
            ids += [*whole, self._special.eos]
        extra = self._image_tokens - 1 if sample.image is not None else 0
        room = max(0, self._max_length - extra)
        kept = tuple((start, min(end, room)) for start, end in answers if start < room)
        if not kept:
            return None
        return Example(np.array(ids[:room], np.int32), kept, sample.image, min(len(ids), room) + extra, len(ids) > room)

    def _encode(self, sample: Sample, number: int, question: str, answer: str) -> list[int]:
        if sample.image is None and number == 0:
            # Without a picture the official code tokenizes the first turn in one piece, the system text before it.
            opening = f"{V1.system}{V1.separator}{V1.user}: "
            return self._tokenizer.encode(f"{opening}{question}{V1.separator}{V1.assistant}:{answer}")
        return self._prompts.encode_turn(question, answer, first=number == 0)

"""A conversation about a picture, as the token ids that MobileVLM was trained on.

The official code tokenizes a prompt piecewise: what stands before `<image>`, what stands after it, and each later turn by itself.
Knows the template; knows nothing of pictures, embeddings or answers being made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.manifest import PromptSpec, SpecialTokens
from mobilevlm_ros.runtime.tokenizer import Tokenizer

V1 = PromptSpec(
    template="v1",
    system=(
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    ),
    user="USER",
    assistant="ASSISTANT",
    separator=" ",
    stop="</s>",
)


@dataclass(frozen=True)
class Turn:
    """A question that has been answered."""

    question: str
    answer: str


@dataclass(frozen=True)
class Prompt:
    """Token ids before and after the picture's visual tokens."""

    head: tuple[int, ...]
    tail: tuple[int, ...]


class PromptBuilder:
    """Builds prompts for one model."""

    def __init__(self, spec: PromptSpec, special: SpecialTokens, tokenizer: Tokenizer) -> None:
        self._spec = spec
        self._special = special
        self._tokenizer = tokenizer
        before = f"{spec.system}{spec.separator}{spec.user}: "
        self._head = (special.bos, *tokenizer.encode(before))

    @property
    def head(self) -> tuple[int, ...]:
        """The ids before the picture; the same for every prompt."""
        return self._head

    def build(self, question: str, history: Sequence[Turn] = ()) -> Prompt:
        """The prompt for `question` after the turns of `history`, all about one picture.

        Raises:
            VlmError: BAD_REQUEST if the question is empty.
        """
        if not question.strip():
            raise VlmError(ErrorCode.BAD_REQUEST, "the question is empty")
        tail: list[int] = []
        for turn in history:
            tail += self.encode_turn(turn.question, f" {turn.answer}", first=not tail)
            tail.append(self._special.eos)
        tail += self.encode_turn(question, "", first=not tail)
        return Prompt(self._head, tuple(tail))

    def encode_turn(self, question: str, answer: str, first: bool) -> list[int]:
        """The ids of one turn up to the end of `answer`, which begins with a space where it is not empty.

        The `first` turn begins after the picture, a later one after the last answer's end-of-sequence token.
        """
        spec = self._spec
        opening = "\n" if first else f"{spec.user}: "
        return self._tokenizer.encode(f"{opening}{question}{spec.separator}{spec.assistant}:{answer}")

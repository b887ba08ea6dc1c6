"""Keeping an answer to a form: a regular expression or a JSON schema that its text must match.

A constraint says which tokens may come next and which must come, so that a malformed answer is impossible and tokens that leave
no choice need not be decoded one by one. The automata are those of the library llguidance. Knows texts and tokens, no model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.manifest import SpecialTokens
from mobilevlm_ros.runtime.tokenizer import Tokenizer

# llguidance's mark for tokens that are no text, such as </s>.
_SPECIAL = b"\xff"


class Constraint:
    """The state of one answer's form. Used by one thread at a time."""

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size

    def allowed(self) -> np.ndarray:
        """Which tokens may come next: bool [vocab]. The end token is among them where the text so far is whole."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        return np.unpackbits(bits, bitorder="little")[: self._vocab_size].astype(bool)

    def accept(self, token: int) -> None:
        """Tell that `token`, one of the allowed, was chosen.

        Raises:
            VlmError: MODEL_ERROR for a token that is not allowed.
        """
        if not self._matcher.consume_token(token):
            raise VlmError(ErrorCode.MODEL_ERROR, f"token {token} does not fit the answer's form")

    def forced(self) -> list[int]:
        """The tokens that must come next because the form leaves no choice; they still have to be accepted."""
        return list(self._matcher.compute_ff_tokens())

    @property
    def finished(self) -> bool:
        """Whether the form allows nothing more."""
        return bool(self._matcher.is_accepting() and self._matcher.is_stopped()) or self._only_end_is_left()

    def _only_end_is_left(self) -> bool:
        return bool(self._matcher.is_accepting()) and int(self.allowed().sum()) == 1


class ConstraintCompiler:
    """Makes constraints for one model's tokenizer."""

    def __init__(self, tokenizer: Tokenizer, special: SpecialTokens, vocab_size: int | None = None) -> None:
        """`vocab_size` is the model's, which may know more ids than its tokenizer; None says that it knows as many."""
        self._vocab_size = tokenizer.vocab_size if vocab_size is None else vocab_size
        self._tokenizer = LLTokenizer(TokenizerWrapper(_Vocabulary(tokenizer, special, self._vocab_size)))

    def regex(self, pattern: str) -> Constraint:
        """Answers that match a regular expression as a whole, from their first character; mind that answers begin with a space.

        Raises:
            VlmError: BAD_REQUEST if the expression is none.
        """
        return self._compile(LLMatcher.grammar_from_regex(pattern), f"regular expression {pattern!r}")

    def json_schema(self, schema: Mapping[str, object]) -> Constraint:
        """Answers that are JSON texts of a schema, with one space after each comma and colon and no other whitespace between.

        Raises:
            VlmError: BAD_REQUEST if the schema cannot be used.
        """
        grammar = LLMatcher.grammar_from_json_schema(
            json.dumps(schema),
            # Were whitespace free, a model that is at a loss would fill its answer with it.
            overrides={"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "},
        )
        return self._compile(grammar, "JSON schema")

    def _compile(self, grammar: str, what: str) -> Constraint:
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if error := matcher.get_error():
            raise VlmError(ErrorCode.BAD_REQUEST, f"{what} cannot be used: {error.splitlines()[0]}")
        return Constraint(matcher, self._vocab_size)


class _Vocabulary:
    """The tokens' bytes, in the form that llguidance asks for."""

    def __init__(self, tokenizer: Tokenizer, special: SpecialTokens, vocab_size: int) -> None:
        self.bos_token_id = special.bos
        self.eos_token_id = special.eos
        pieces = [*tokenizer.piece_bytes(), *[None] * (vocab_size - tokenizer.vocab_size)]
        self.tokens = [_SPECIAL + str(i).encode() if piece is None else piece for i, piece in enumerate(pieces)]
        self.special_token_ids = [i for i, token in enumerate(self.tokens) if token.startswith(_SPECIAL)]
        self._ids = {token: i for i, token in reversed(list(enumerate(self.tokens))) if not token.startswith(_SPECIAL)}
        self._longest = max(map(len, self._ids))

    def __call__(self, text: str | bytes) -> Sequence[int]:
        """Tokens of forced text: always the longest that fits, which is how numbers and punctuation are tokenized anyway."""
        data = text.encode() if isinstance(text, str) else text
        ids: list[int] = []
        start = 0
        while start < len(data):
            ends = range(min(len(data), start + self._longest), start, -1)
            end = next((end for end in ends if data[start:end] in self._ids), None)
            if end is None:
                return ids
            ids.append(self._ids[data[start:end]])
            start = end
        return ids

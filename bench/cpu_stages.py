"""What `bench.cpu` asks of every engine, and with which sizes. Values only; knows no engine.

All engines answer the same questions: a picture never seen before, a prompt of `PROMPT_TOKENS` tokens in which it stands, an
answer of `ANSWER_TOKENS`. Each is used as its own server would use it: what its cache can keep is not computed again.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

import numpy as np

HEAD_TOKENS, VISUAL_TOKENS, TAIL_TOKENS = 31, 144, 19
"""Of the prompt: what stands before the picture, the picture, and the question."""
PROMPT_TOKENS = HEAD_TOKENS + VISUAL_TOKENS + TAIL_TOKENS
FOLLOW_UP_TOKENS = 14
"""Of a second question about the same picture."""
ANSWER_TOKENS = 20
DECODE_TOKENS = 32
"""Decoded one by one to tell the speed."""
AT_ONCE = 4
PICTURE_SIZE = (640, 480)


class BenchError(Exception):
    """Why something cannot be measured, in one line."""


class Stage(str, Enum):
    """What is timed."""

    ENCODE = "encode"
    """A picture to visual tokens."""
    PREFILL = "prefill"
    """The whole prompt at once into an empty cache, up to the logits of the first token."""
    DECODE = "decode"
    """`DECODE_TOKENS` tokens, one after the other, behind such a prompt."""
    FIRST_QUESTION = "first_question"
    """From a picture never seen before to the last of `ANSWER_TOKENS`; what stands before the picture may be kept."""
    FOLLOW_UP = "follow_up"
    """A second question about the same picture."""
    FOUR_AT_ONCE = "four_at_once"
    """Four questions asked at once about one picture never seen before, until the last is answered."""


class Subject(Protocol):
    """An engine that is loaded."""

    bytes_per_token: int
    """Read from memory to decode one token: weights, and keys and values of `PROMPT_TOKENS` positions."""

    def run(self, stage: Stage, picture: np.ndarray) -> float:
        """Do a stage; returns the milliseconds that it took.

        Args:
            picture: uint8 [height, width, 3] RGB, never seen before; for FOLLOW_UP that of the question before.
        """


def token_ids(count: int) -> list[int]:
    """Tokens without a meaning, of any vocabulary of 2000."""
    return [100 + 7 * number for number in range(count)]


def noise(seed: int) -> np.ndarray:
    """A picture uint8 [height, width, 3], another for each seed. How fast a model answers does not depend on what it sees."""
    width, height = PICTURE_SIZE
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)

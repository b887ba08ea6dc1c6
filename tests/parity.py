"""The recorded outputs of the official code, and the official way from a picture to the tower's input."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece
from PIL import Image

from mobilevlm_ros.runtime.manifest import Precision

PARITY = Path(__file__).parent / "data" / "parity"
IMAGE_TOKEN = -200
QUESTION = "What color is the ball?"
_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite"
    " answers to the user's questions. USER: <image>\n{question} ASSISTANT:"
)


@dataclass(frozen=True)
class Allowed:
    """How far a package may be from the recordings: largest differences as shares of the largest recorded value.

    `same_tokens` says that the greedy answer must be the recorded one, token by token.
    """

    features: float
    logits: float
    same_tokens: bool


PRECISIONS = {
    Precision.FP32: Allowed(1e-5, 1e-5, same_tokens=True),
    # The recorded checkpoints are stored in float16, so that fp16 packages lose nothing.
    Precision.FP16: Allowed(1e-5, 1e-5, same_tokens=True),
    # Random weights are the worst case: of 64 inputs none stands out, and no choice is a clear one.
    Precision.INT8: Allowed(0.03, 0.08, same_tokens=False),
    Precision.INT4: Allowed(0.03, 0.40, same_tokens=False),
}
"""What each precision is held to; a new precision is a line here."""


@dataclass(frozen=True)
class Case:
    """A recorded model: its checkpoint, the adapter merged into it, and what came out."""

    name: str
    checkpoint: Path
    adapter: Path | None

    @property
    def prompt(self) -> dict[str, str]:
        """`question`, `prompt` and, for the model without adapter, the answer as `text`."""
        values = json.loads((self.checkpoint / "golden.json").read_text(encoding="utf-8"))
        return {key: values[key] for key in ("question", "prompt", "text") if key != "text" or self.adapter is None}

    @property
    def golden(self) -> dict[str, np.ndarray]:
        with np.load((self.adapter or self.checkpoint) / "golden.npz") as data:
            return dict(data)


CASES = [
    Case("ldpnet", PARITY / "ldpnet", None),
    Case("ldpnetv2", PARITY / "ldpnetv2", None),
    Case("ldpnet_lora", PARITY / "ldpnet", PARITY / "ldpnet_lora"),
]


def letterboxed(size: int) -> np.ndarray:
    """The recorded picture as the official code sees it: uint8 [1, size, size, 3], padded to a centred square."""
    picture = Image.open(PARITY / "image.png").convert("RGB")
    side = max(picture.size)
    square = Image.new("RGB", (side, side), (122, 116, 104))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))[None]


def prompt_ids(question: str) -> list[int]:
    """Token ids of a first question, IMAGE_TOKEN standing for the picture; each piece is tokenized by itself."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(PARITY / "tokenizer.model"))
    before, after = _PROMPT.format(question=question).split("<image>")
    return [pieces.bos_id(), *pieces.encode(before), IMAGE_TOKEN, *pieces.encode(after)]


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference as a share of the largest expected value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())

"""What a Jetson Orin should reach: a traffic model of bytes and operations in each stage, with efficiencies that others measured.

Decoding reads every weight and the KV cache once a token, so it is bound by memory; encoding and prefill multiply many positions
with each weight, so they are bound by arithmetic. The time of a stage is the larger of its bytes at a share of the module's
bandwidth and its operations at a share of its peak; both shares are those that TensorRT-Edge-LLM's published figures imply for
models of like size (`ANCHORS`). A prediction, not a measurement: no Orin's figure comes from here. Knows no backend.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mobilevlm_ros.runtime.manifest import Manifest

BLOCK = 128
"""Weights of 4 bits that share a scale of 16 bits."""


@dataclass(frozen=True)
class Board:
    """A module at its highest power mode.

    Attributes:
        bandwidth: of its memory, in bytes a second.
        peak: of its GPU's tensor cores with dense float16, in operations a second: a quarter of the sparse INT8 figure that
            NVIDIA's data sheets give for the GPU alone.
    """

    name: str
    bandwidth: float
    peak: float


class Orin(Enum):
    """NVIDIA's Jetson Orin data sheets: memory bandwidth, and the GPU's own sparse INT8 TOPS / 4."""

    AGX_64 = Board("AGX Orin 64 GB", 204.8e9, 170e12 / 4)
    AGX_32 = Board("AGX Orin 32 GB", 204.8e9, 108e12 / 4)
    NX_16 = Board("Orin NX 16 GB", 102.4e9, 60e12 / 4)
    NX_8 = Board("Orin NX 8 GB", 102.4e9, 50e12 / 4)
    NANO_8 = Board("Orin Nano 8 GB", 68e9, 40e12 / 4)


@dataclass(frozen=True)
class Language:
    """A Llama-like decoder's sizes."""

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int

    @property
    def layer_weights(self) -> int:
        """Weights of all layers' linear maps."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.inner)

    @property
    def head_weights(self) -> int:
        """Weights of the vocabulary's matrix."""
        return self.hidden * self.vocab

    def cache_bytes(self, positions: int) -> float:
        """Keys and values of so many positions, in float16."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim * positions


@dataclass(frozen=True)
class Tower:
    """A vision transformer: `tokens` patches of `width` channels through `layers`, then `projector` operations a picture."""

    layers: int
    width: int
    inner: int
    tokens: int
    projector: float = 0.0

    @property
    def weights(self) -> int:
        """Weights of the layers' linear maps."""
        return self.layers * (4 * self.width**2 + 2 * self.width * self.inner)

    @property
    def operations(self) -> float:
        """Multiplications and additions for one picture."""
        attention = 4 * self.layers * self.tokens**2 * self.width
        return 2 * self.weights * self.tokens + attention + self.projector


@dataclass(frozen=True)
class Shape:
    """A vision language model as the traffic model sees it; weights of the layers in `bits` bits, the vocabulary's in 16."""

    language: Language
    tower: Tower
    bits: int

    @property
    def weight_bytes(self) -> float:
        """What is read of the weights for one token."""
        scales = 16 / BLOCK if self.bits < 16 else 0.0
        return self.language.layer_weights * (self.bits + scales) / 8 + self.language.head_weights * 2

    def decode_bytes(self, positions: int) -> float:
        """Bytes read for one token with a cache of so many positions, all of which a static graph reads."""
        return self.weight_bytes + self.language.cache_bytes(positions)

    def prefill_operations(self, tokens: int) -> float:
        """Multiplications and additions for a prompt of so many tokens; logits at the last one only."""
        attention = 2 * self.language.layers * tokens**2 * self.language.heads * self.language.head_dim
        return 2.0 * self.language.layer_weights * tokens + 2 * self.language.head_weights + attention


@dataclass(frozen=True)
class Range:
    """A figure's lower and upper end."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """Half way."""
        return (self.low + self.high) / 2


@dataclass(frozen=True)
class Anchor:
    """What was published of another model in INT4 on a board: decode tokens a second, and milliseconds where they were given.

    `decode` counts with a cache of `positions`.
    """

    board: Board
    shape: Shape
    decode: float
    encode_ms: float | None = None
    prefill_ms: float | None = None
    prompt: int = 292
    positions: int = 512


QWEN3_VL_2B = Shape(Language(28, 2048, 6144, 16, 8, 128, 151936), Tower(24, 1024, 4096, 1024), 4)
"""Its published config. 1024 patches of 16 x 16 pixels make the 256 visual tokens that a prompt of 292 tokens leaves room for."""
QWEN25_VL_3B = Shape(Language(36, 2048, 11008, 16, 2, 128, 151936), Tower(32, 1280, 3420, 1024), 4)
ANCHORS = (
    Anchor(Orin.AGX_64.value, QWEN3_VL_2B, 98.4, 39, 50),
    Anchor(Orin.AGX_64.value, QWEN25_VL_3B, 72),
    Anchor(Orin.NX_16.value, QWEN3_VL_2B, 60.1, 82, 103),
    Anchor(Orin.NANO_8.value, QWEN3_VL_2B, 36.9, 151, 191),
)
"""TensorRT-Edge-LLM's published figures; the second is from its issue 60."""

CLIP_L_336 = Tower(23, 1024, 4096, 577)
"""CLIP ViT-L/14 at 336 pixels, of which the released checkpoints use 23 layers."""


@dataclass(frozen=True)
class Efficiency:
    """Shares of the peak that the anchors reach: of the bandwidth in decoding, of the tensor cores' peak in the other stages."""

    decode: Range
    encode: Range
    prefill: Range


def efficiency(anchors: tuple[Anchor, ...] = ANCHORS) -> Efficiency:
    """The shares that the anchors imply."""
    decode = [anchor.decode * anchor.shape.decode_bytes(anchor.positions) / anchor.board.bandwidth for anchor in anchors]
    encode = [
        anchor.shape.tower.operations / (anchor.encode_ms / 1e3) / anchor.board.peak for anchor in anchors if anchor.encode_ms
    ]
    prefill = [
        anchor.shape.prefill_operations(anchor.prompt) / (anchor.prefill_ms / 1e3) / anchor.board.peak
        for anchor in anchors
        if anchor.prefill_ms
    ]
    return Efficiency(*(Range(min(shares), max(shares)) for shares in (decode, encode, prefill)))


@dataclass(frozen=True)
class Prediction:
    """What to expect: milliseconds of a picture's encoding and a prompt's prefill, decoded tokens a second, and the milliseconds
    of a first answer, each from the worst to the best of the anchors' efficiencies."""

    encode_ms: Range
    prefill_ms: Range
    decode_tokens_per_s: Range
    answer_ms: Range


def predict(
    shape: Shape, board: Board, prompt: int = 194, answer: int = 20, positions: int = 512, shares: Efficiency | None = None
) -> Prediction:
    """Predict a model on a board.

    Args:
        prompt: tokens of the prompt, the picture's among them.
        answer: tokens of the answer; the first comes from the prefill.
        positions: of the cache that a static graph reads at every token.
    """
    known = shares or efficiency()

    def spent(operations: float, read: float, share: Range) -> Range:
        slow, fast = (
            1e3 * max(operations / (board.peak * compute), read / (board.bandwidth * memory))
            for compute, memory in ((share.low, known.decode.low), (share.high, known.decode.high))
        )
        return Range(fast, slow)

    encode = spent(shape.tower.operations, 2.0 * shape.tower.weights, known.encode)
    prefill = spent(shape.prefill_operations(prompt), shape.weight_bytes, known.prefill)
    rates = Range(*(share * board.bandwidth / shape.decode_bytes(positions) for share in (known.decode.low, known.decode.high)))
    steps = (answer - 1) * 1e3
    return Prediction(
        encode,
        prefill,
        rates,
        Range(encode.low + prefill.low + steps / rates.high, encode.high + prefill.high + steps / rates.low),
    )


def shape_of(manifest: Manifest, bits: int) -> Shape:
    """A package's shape with its layers' weights in so many bits; the tower is taken to be CLIP-L, as in every release."""
    decoder, vision = manifest.decoder, manifest.vision
    language = Language(
        decoder.layers,
        decoder.hidden_size,
        decoder.intermediate_size,
        decoder.heads,
        decoder.kv_heads,
        decoder.head_dim,
        decoder.vocab_size,
    )
    patches = (vision.image_size // vision.patch_size) ** 2
    projector = 2.0 * patches * (CLIP_L_336.width * decoder.hidden_size + decoder.hidden_size**2)
    tower = Tower(CLIP_L_336.layers, CLIP_L_336.width, CLIP_L_336.inner, patches + 1, projector)
    return Shape(language, tower, bits)

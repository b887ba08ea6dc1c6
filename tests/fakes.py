"""A stand-in for the model, so that the engine's tests need no weights.

Its cache holds what was put in: for each position the token's id, or a number made from the picture. The next token is a
digest of the whole row, so an answer comes out right only if every position of its context was right.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.kv_cache import KVCache
from mobilevlm_ros.runtime.manifest import DecoderSpec, Manifest, Precision, Source, SpecialTokens, VisionSpec
from mobilevlm_ros.runtime.prompt import V1
from mobilevlm_ros.runtime.tokenizer import Tokenizer

BOS, EOS, PAD = 1, 2, 0
VOCAB = 300
VISUAL_TOKENS = 4

NextToken = Callable[[tuple[float, ...]], int]


class ByteTokenizer(Tokenizer):
    """One token per byte, after the three special ones."""

    def __init__(self) -> None:
        pass

    @property
    def vocab_size(self) -> int:
        return VOCAB

    def piece_bytes(self) -> list[bytes | None]:
        return [bytes([token - 3]) if 3 <= token < 259 else None for token in range(VOCAB)]

    def encode(self, text: str) -> list[int]:
        return [byte + 3 for byte in text.encode()]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i - 3 for i in ids if i >= 3).decode(errors="replace")


def digest_token(context: tuple[float, ...]) -> int:
    """A printable letter that depends on every position of the context."""
    return 3 + ord("a") + zlib.crc32(np.array(context, np.float32).tobytes()) % 26


def reply(text: str) -> NextToken:
    """A model that answers every question with `text`."""
    wanted = [*ByteTokenizer().encode(text), EOS]
    colon = ByteTokenizer().encode("ASSISTANT:")

    def next_token(context: tuple[float, ...]) -> int:
        ids = [int(value) for value in context]
        ends = (i for i in range(len(colon), len(ids) + 1) if ids[i - len(colon) : i] == colon)
        end = max(ends, default=len(ids))
        given = len(ids) - end
        return wanted[min(given, len(wanted) - 1)]

    return next_token


class FakeBackend:
    """Implements `Backend`; `calls` counts what was run, `gate` can hold it up and `pause` slows each step, in seconds."""

    name = "fake"
    notice = ""

    def __init__(self, next_token: NextToken = digest_token, pause: float = 0.0) -> None:
        self.next_token = next_token
        self.pause = pause
        self.calls: list[str] = []
        self.batches: list[int] = []
        self.prefilled: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.closed = False

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        self._step("encode")
        base = 1000.0 + zlib.crc32(pixels.tobytes()) % 1000
        return base + np.arange(VISUAL_TOKENS, dtype=np.float32)[None, :, None]

    def embed(self, tokens: Sequence[int]) -> np.ndarray:
        return np.array(tokens, np.float32)[:, None]

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        return KVCache(manifest().decoder, rows, capacity)

    def prefill(self, cache: KVCache, row: int, embeddings: np.ndarray, logits_at: Sequence[int]) -> np.ndarray:
        self._step("prefill")
        self.prefilled.append(len(embeddings))
        start = cache.lengths[row]
        self._append(cache, row, embeddings[:, 0])
        return np.stack([self._logits(cache, row, start + at + 1) for at in logits_at])

    def decode(self, cache: KVCache, tokens: Sequence[int]) -> np.ndarray:
        self._step("decode")
        self.batches.append(len(tokens))
        for row, token in enumerate(tokens):
            self._append(cache, row, np.array([token], np.float32))
        return np.stack([self._logits(cache, row, cache.lengths[row]) for row in range(len(tokens))])

    def close(self) -> None:
        self.closed = True

    def _append(self, cache: KVCache, row: int, values: np.ndarray) -> None:
        start = cache.lengths[row]
        if start + len(values) > cache.capacity:
            raise ValueError("the cache's row is full")
        cache.keys[0][row, 0, start : start + len(values), 0] = values
        cache.values[0][row, 0, start : start + len(values), 0] = values
        cache.lengths[row] = start + len(values)

    def _logits(self, cache: KVCache, row: int, length: int) -> np.ndarray:
        context = tuple(cache.keys[0][row, 0, :length, 0].tolist())
        logits = np.zeros(VOCAB, np.float32)
        logits[self.next_token(context)] = 10.0
        return logits

    def _step(self, name: str) -> None:
        self.calls.append(name)
        assert self.gate.wait(20)
        time.sleep(self.pause)
        if self.error is not None:
            error, self.error = self.error, None
            raise error


def manifest() -> Manifest:
    """What a package of the fake model would say of itself."""
    return Manifest(
        name="fake",
        source=Source("fake", "", ""),
        licence="Apache-2.0",
        vision=VisionSpec(image_size=28, patch_size=14, tokens=VISUAL_TOKENS, projector="ldpnetv2", pad_color=(122, 116, 104)),
        decoder=DecoderSpec(
            hidden_size=1,
            intermediate_size=1,
            layers=1,
            heads=1,
            kv_heads=1,
            head_dim=1,
            vocab_size=VOCAB,
            max_positions=4096,
            rms_norm_eps=1e-6,
            rope_theta=10000.0,
        ),
        prompt=V1,
        tokens=SpecialTokens(BOS, EOS, PAD),
        vision_precision=Precision.FP32,
        decoder_precision=Precision.FP32,
    )


def fake_engine(backend: FakeBackend | None = None, config: EngineConfig | None = None, system: str = "Chat.") -> Engine:
    """An engine over the fake model, with a short system prompt."""
    described = replace(manifest(), prompt=replace(V1, system=system))
    return Engine(described, ByteTokenizer(), backend or FakeBackend(), config or EngineConfig(context_length=512))

"""How fast engines are, beside what the traffic model predicts for the board."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mobilevlm_ros.bench.roofline import Board, Prediction, Range, Shape, predict, shape_of
from mobilevlm_ros.doctor.check import Figure, Status
from mobilevlm_ros.doctor.jetson_compare import CONTEXT
from mobilevlm_ros.runtime.manifest import Manifest, Precision
from mobilevlm_ros.runtime.tensorrt.backend import TensorRtBackend

PROMPT, ANSWER = 194, 20
"""Tokens of the prompt that is timed, the picture's among them, and of the answer that is told."""
RELEASED_IMAGE_SIZE = 336
"""Pixels of a side in every release; the traffic model knows that tower only."""

_MIB = 1 << 20
_SLOW = "slower than predicted: see the power mode and clocks; paste the output of --json into an issue"


@dataclass(frozen=True)
class Effort:
    """How long to measure: runs of encoder and prefill, and tokens that are decoded."""

    runs: int
    tokens: int


THOROUGH, BRIEF = Effort(10, 128), Effort(2, 8)


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a picture and of a prompt, decoded tokens a second, and the conditions while they were decoded."""

    encode_ms: float
    prefill_ms: float
    tokens_per_s: float
    conditions: str


def time_stages(backend: TensorRtBackend, manifest: Manifest, effort: Effort, conditions: Callable[[], str]) -> Timing:
    """Time encoder, prefill and decode of one request.

    Raises:
        BackendError: the backend fails.
    """
    generator = np.random.default_rng(0)
    size, prompt = manifest.vision.image_size, prompt_tokens(manifest)
    pixels = generator.integers(0, 256, (1, size, size, 3), np.uint8)
    tokens = generator.integers(3, manifest.decoder.vocab_size, prompt + effort.tokens).tolist()
    embeddings = backend.embed(tokens[:prompt])
    cache = backend.new_cache(1, CONTEXT)

    def prefill() -> None:
        cache.lengths[0] = 0
        backend.prefill(cache, 0, embeddings, [prompt - 1])

    encode_ms = _median_ms(lambda: backend.encode(pixels), effort.runs)
    prefill_ms = _median_ms(prefill, effort.runs)
    for token in tokens[:3]:  # the first decodes and captures
        backend.decode(cache, [token])
    start = time.perf_counter()
    for token in tokens[prompt:]:
        backend.decode(cache, [token])
    return Timing(encode_ms, prefill_ms, effort.tokens / (time.perf_counter() - start), conditions())


def prompt_tokens(manifest: Manifest) -> int:
    """Tokens of the prompt that is timed: as many as a short question about a picture has."""
    return manifest.vision.tokens + PROMPT - 144


def predicted(manifest: Manifest, board: Board | None) -> Prediction | None:
    """What the traffic model says; None for a board or a size that it does not know."""
    if board is None or manifest.vision.image_size != RELEASED_IMAGE_SIZE:
        return None
    return predict(_shape(manifest), board, prompt_tokens(manifest), ANSWER, CONTEXT)


def figures(manifest: Manifest, board: Board | None, captured: Timing, plain: Timing, memory: int) -> list[Figure]:
    """Figures, each beside its prediction.

    Args:
        captured: decoded as a CUDA graph; `plain`: kernel by kernel.
        memory: bytes that were taken of the device's memory while it ran.
    """
    known = predicted(manifest, board)
    first = captured.encode_ms + captured.prefill_ms + (ANSWER - 1) * 1e3 / captured.tokens_per_s
    share = ""
    if board is not None:
        read = _shape(manifest).decode_bytes(CONTEXT) * captured.tokens_per_s / board.bandwidth
        share = f", {read:.0%} of the bandwidth of {board.name}"

    def figure(name: str, timing: Timing, value: float, unit: str, range_: Range | None, more: str = "") -> Figure:
        return _figure(name, value, unit, range_, timing.conditions, more)

    return [
        figure("encode", captured, captured.encode_ms, "ms", known.encode_ms if known else None),
        figure(
            "prefill",
            captured,
            captured.prefill_ms,
            "ms",
            known.prefill_ms if known else None,
            f", {prompt_tokens(manifest)} tokens",
        ),
        figure("decode", captured, captured.tokens_per_s, "tokens/s", known.decode_tokens_per_s if known else None, share),
        figure("decode, no graph", plain, plain.tokens_per_s, "tokens/s", None),
        figure("first answer", captured, first, "ms", known.answer_ms if known else None, f", {ANSWER} tokens"),
        figure("memory", captured, memory / _MIB, "MiB", None, " taken at most"),
    ]


def _figure(name: str, value: float, unit: str, range_: Range | None, conditions: str, more: str) -> Figure:
    told = f"{value:.1f} {unit}{more}"
    if range_ is not None:
        told += f"; predicted {range_.low:.0f} to {range_.high:.0f}"
    slow = range_ is not None and (value < range_.low if unit == "tokens/s" else value > range_.high)
    return Figure(
        name,
        Status.WARN if slow else Status.PASS,
        f"{told} ({conditions})",
        _SLOW if slow else "",
        value=round(value, 2),
        unit=unit,
        predicted=None if range_ is None else (round(range_.low, 1), round(range_.high, 1)),
        conditions=conditions,
    )


def _shape(manifest: Manifest) -> Shape:
    return shape_of(manifest, 4 if manifest.decoder_precision is Precision.INT4 else 16)


def _median_ms(run: Callable[[], object], runs: int) -> float:
    """The median of so many runs, after one that is not counted."""
    spent = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        run()
        spent.append((time.perf_counter() - start) * 1e3)
    return statistics.median(spent[1:])

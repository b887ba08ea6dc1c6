"""What engines give, beside what ONNX Runtime computes on the processor from the same package.

The engine gets the tokens that the processor chose, one after the other, so that one early difference does not make all later
ones; where both choose alike at every step, both would have said the same alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobilevlm_ros.doctor.check import Check, Status
from mobilevlm_ros.runtime.backend import Backend, CacheT
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import letterbox
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.prompt import PromptBuilder
from mobilevlm_ros.runtime.tensorrt.backend import TensorRtBackend
from mobilevlm_ros.runtime.tensorrt.cudart import Cudart, Planes
from mobilevlm_ros.runtime.tensorrt.execution import LoadedEngine
from mobilevlm_ros.runtime.tensorrt.library import Libraries
from mobilevlm_ros.runtime.tensorrt.memory import Memory
from mobilevlm_ros.runtime.tokenizer import Tokenizer

TOKENS = 32
CONTEXT = 512
"""Tokens that engines are built for."""

TOLERANCE = 2e-2
"""Largest difference, as a share of the largest magnitude: float16 has 11 bits, of which sums lose some."""
ROUNDED_TOLERANCE = 1e-1
"""The same where the processor's graph rounds activations to 8 bits, as it does for maps in INT4."""

_REMEDY = "paste the output of --json into an issue; until then run with backend: cpu"
_WRITTEN = 5


@dataclass(frozen=True)
class Trial:
    """A picture, uint8 [1, size, size, 3], and the prompt's tokens before and behind it."""

    pixels: np.ndarray
    head: tuple[int, ...]
    tail: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Outcome:
    """Visual tokens float32 [tokens, hidden], the greedily chosen tokens, and the logits float32 [TOKENS, vocab] before each."""

    features: np.ndarray
    tokens: tuple[int, ...]
    logits: np.ndarray


def make_trial(package: ModelPackage, frame: Frame, question: str) -> Trial:
    """The trial for a picture and a question; raises PackageError where the tokenizer cannot be read."""
    manifest = package.manifest
    prompt = PromptBuilder(manifest.prompt, manifest.tokens, Tokenizer(package.tokenizer)).build(question)
    pixels = letterbox(frame, manifest.vision.image_size, manifest.vision.pad_color)
    return Trial(pixels[None], tuple(prompt.head), tuple(prompt.tail))


def answer(backend: Backend[CacheT], trial: Trial, forced: Sequence[int] = ()) -> Outcome:
    """Look and go on for `TOKENS` tokens, with the given ones where there are any, else with the likeliest.

    Raises:
        BackendError: the backend fails.
    """
    features = backend.encode(trial.pixels)[0]
    embeddings = np.concatenate([backend.embed(trial.head), features, backend.embed(trial.tail)])
    cache = backend.new_cache(1, CONTEXT)
    logits = [backend.prefill(cache, 0, embeddings, [len(embeddings) - 1])[0].copy()]
    chosen = [int(logits[0].argmax())]
    for step in range(TOKENS - 1):
        token = forced[step] if forced else chosen[-1]
        logits.append(backend.decode(cache, [token])[0].copy())
        chosen.append(int(logits[-1].argmax()))
    return Outcome(features, tuple(chosen), np.stack(logits))


def agreement(found: Outcome, expected: Outcome, tolerance: float) -> tuple[Check, Check, Check]:
    """Whether an engine's outcome, with the expected tokens given to it, is the expected one within `tolerance`."""
    return (
        _close("visual tokens", found.features, expected.features, tolerance),
        _close("logits", found.logits, expected.logits, tolerance),
        _same_tokens(found, expected, tolerance),
    )


def _close(name: str, found: np.ndarray, expected: np.ndarray, tolerance: float) -> Check:
    if not np.isfinite(found).all():
        return Check(name, Status.FAIL, "some are no numbers", _REMEDY)
    if not expected.any():
        return Check(name, Status.FAIL, "the processor gives nothing but zeros", _REMEDY)
    share = float(abs(found - expected).max() / abs(expected).max())
    told = f"largest difference from the processor's: {share:.2%} of the largest magnitude, {tolerance:.1%} is allowed"
    return Check(name, Status.PASS, told) if share <= tolerance else Check(name, Status.FAIL, told, _REMEDY)


def _same_tokens(found: Outcome, expected: Outcome, tolerance: float) -> Check:
    """Other tokens are right only where the processor itself all but chose them."""
    name, other, worst = "greedy tokens", 0, 0.0
    for mine, theirs, logits in zip(found.tokens, expected.tokens, expected.logits):
        if mine != theirs:
            other += 1
            worst = max(worst, float((logits[theirs] - logits[mine]) / abs(logits).max()))
    if not other:
        return Check(name, Status.PASS, f"{len(found.tokens)} of {len(found.tokens)} are the processor's")
    told = f"{len(found.tokens) - other} of {len(found.tokens)} are the processor's, the others {worst:.2%} less likely to it"
    return Check(name, Status.PASS, told) if worst <= 2 * tolerance else Check(name, Status.FAIL, told, _REMEDY)


def same_with_graphs(captured: Outcome, plain: Outcome, notice: str) -> Check:
    """Whether decoding as a CUDA graph gives what it gives kernel by kernel; `notice` is the captured backend's."""
    name = "CUDA graphs"
    if "without a CUDA graph" in notice:
        return Check(name, Status.WARN, notice, "decoding works, but takes more of the processor; paste --json into an issue")
    if captured.tokens != plain.tokens or not np.array_equal(captured.logits, plain.logits):
        share = float(abs(captured.logits - plain.logits).max() / abs(plain.logits).max())
        told = f"{share:.2%} of the largest logit apart from decoding kernel by kernel"
        if captured.tokens != plain.tokens:
            return Check(name, Status.FAIL, f"other tokens, {told}", _REMEDY)
        return Check(name, Status.PASS, f"the same {len(plain.tokens)} tokens, logits {told}")
    return Check(name, Status.PASS, f"the same {len(plain.tokens)} tokens and logits as kernel by kernel")


def cache_is_in_place(libraries: Libraries, backend: TensorRtBackend) -> Check:
    """Whether new keys and values come to stand in the cache's own memory, and nothing else there changes."""
    name = "cache in place"
    untold = _not_aliased(libraries, backend)
    if untold:
        return Check(name, Status.FAIL, f"TensorRT does not say that {untold} shares the cache's memory", _REMEDY)
    content = _cache_after_prefill(libraries.cudart, backend)
    if not content[:, :, :_WRITTEN].any(axis=-1).all():
        return Check(name, Status.FAIL, "what a prefill computed is not in the cache's memory", _REMEDY)
    if content[:, :, _WRITTEN:].any():
        return Check(name, Status.FAIL, "a prefill wrote behind its own positions", _REMEDY)
    aliased = "outputs share its memory" if backend.engines.decoder.role.value == "trt" else "new entries are copied into it"
    return Check(name, Status.PASS, f"{aliased}; read back from all {len(content)} tensors")


def _not_aliased(libraries: Libraries, backend: TensorRtBackend) -> str:
    """The first output of the cache that TensorRT can tell of, but does not tell to be its input's memory."""
    engine = LoadedEngine(libraries, backend.engines.decoder.path)
    try:
        if not engine.tells_aliases:
            return ""
        outputs = sorted(name for name in engine.tensors if name.startswith("present_"))
        return next((name for name in outputs if engine.aliased_input(name) != name.replace("present", "past")), "")
    finally:
        engine.close()


def _cache_after_prefill(cudart: Cudart, backend: TensorRtBackend) -> np.ndarray:
    """uint8 [tensors, heads, positions, head_bytes]: a row of the cache after a prefill of `_WRITTEN` tokens."""
    cache = backend.new_cache(1, CONTEXT)
    backend.prefill(cache, 0, backend.embed(range(3, 3 + _WRITTEN)), [_WRITTEN - 1])
    shape, memory, event = cache.shape, Memory(cudart), cudart.create_event()
    extent = (shape.tensors * shape.heads, shape.positions, shape.head_bytes)
    try:
        mapped = memory.map(extent, np.dtype(np.uint8), "reading the cache back")
        pitch = shape.positions * shape.head_bytes
        cudart.copy_planes(
            Planes(mapped.address, pitch, shape.heads),
            Planes(cache.address(0, 0), pitch, shape.rows * shape.heads),
            (shape.tensors, shape.heads, pitch),
            backend.stream,
        )
        cudart.finish(backend.stream, event)
        return mapped.array.reshape(shape.tensors, shape.heads, shape.positions, shape.head_bytes).copy()
    finally:
        memory.close()
        cudart.destroy_event(event)

"""This project's engine as `bench.cpu` drives it: the runtime that the node uses, on a package with made-up weights."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from bench.cpu_stages import (
    ANSWER_TOKENS,
    AT_ONCE,
    DECODE_TOKENS,
    FOLLOW_UP_TOKENS,
    HEAD_TOKENS,
    PROMPT_TOKENS,
    TAIL_TOKENS,
    VISUAL_TOKENS,
    BenchError,
    Stage,
    token_ids,
)
from mobilevlm_ros.bench.unending import Unending
from mobilevlm_ros.runtime.backends import BackendChoice, open_backend
from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.kv_cache import KVCache
from mobilevlm_ros.runtime.ort_backend import DIALECT
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.prompt import PromptBuilder
from mobilevlm_ros.runtime.requests import Generation, Limits
from mobilevlm_ros.runtime.sampling import SamplingParams
from mobilevlm_ros.runtime.tokenizer import Tokenizer

QUESTIONS = (
    "What is next to the robot?",
    "Where can the robot go now?",
    "How many red cubes are there to the left of the bowl?",
    "Is there a bowl to the left of the red cube on the table?",
)
FOLLOW_UP = "Is the way free?"
_ROOM = 256
"""Positions of the cache for the stages that need no engine: enough for a prompt and what is decoded."""


class Ours:
    """Implements `Subject`; verifies and loads the package, as the node does.

    Raises:
        PackageError: the package cannot be loaded.
        BenchError: its tokenizer cuts the questions otherwise than `cpu_stages` says.
    """

    def __init__(self, package: ModelPackage, threads: int) -> None:
        package.verify()
        tokenizer = Tokenizer(package.tokenizer)
        config = EngineConfig(threads=threads, rows=AT_ONCE, backend=BackendChoice.CPU)
        options = config.backend_options(package.manifest.decoder.max_positions)
        self._backend = open_backend(package, options, lambda line: None)
        self._engine = Engine(package.manifest, tokenizer, self._backend, config)
        self._questions = _checked_questions(package, tokenizer)
        self._frame = Frame(np.zeros((8, 8, 3), np.uint8))
        self._own: KVCache | None = None
        data = package.decoder(DIALECT).graph.with_suffix(".onnx.data")
        cache = self._backend.new_cache(1, 8)
        kept = sum(array.nbytes for array in (*cache.keys, *cache.values)) // cache.capacity
        self.bytes_per_token = data.stat().st_size + PROMPT_TOKENS * kept
        self._stages: dict[Stage, Callable[[Frame], float]] = {
            Stage.ENCODE: self._encode,
            Stage.PREFILL: self._prefill,
            Stage.DECODE: self._decode,
            Stage.FIRST_QUESTION: self._first_question,
            Stage.FOLLOW_UP: self._follow_up,
            Stage.FOUR_AT_ONCE: self._four_at_once,
        }

    def run(self, stage: Stage, picture: np.ndarray) -> float:
        return self._stages[stage](Frame(picture))

    def _encode(self, frame: Frame) -> float:
        start = time.perf_counter()
        self._backend.encode(self._engine.picture(frame).pixels[None])
        return _since(start)

    def _prefill(self, frame: Frame) -> float:
        cache = self._empty_cache()
        embeddings = self._backend.embed(token_ids(PROMPT_TOKENS))
        start = time.perf_counter()
        self._backend.prefill(cache, 0, embeddings, [PROMPT_TOKENS - 1])[0].argmax()
        return _since(start)

    def _decode(self, frame: Frame) -> float:
        cache = self._empty_cache()
        logits = self._backend.prefill(cache, 0, self._backend.embed(token_ids(PROMPT_TOKENS)), [PROMPT_TOKENS - 1])
        start = time.perf_counter()
        for _ in range(DECODE_TOKENS):
            logits = self._backend.decode(cache, [int(logits[0].argmax())])
        return _since(start)

    def _first_question(self, frame: Frame) -> float:
        self._frame = frame
        start = time.perf_counter()
        self._ask(frame, self._questions[0]).result()
        return _since(start)

    def _follow_up(self, frame: Frame) -> float:
        start = time.perf_counter()
        self._ask(self._frame, FOLLOW_UP).result()
        return _since(start)

    def _four_at_once(self, frame: Frame) -> float:
        start = time.perf_counter()
        for generation in [self._ask(frame, question) for question in self._questions]:
            generation.result()
        return _since(start)

    def _ask(self, frame: Frame, question: str) -> Generation:
        sampling = SamplingParams(ANSWER_TOKENS, temperature=0.0)
        unending = Unending(self._engine.manifest)
        return self._engine.generate(self._engine.picture(frame), question, sampling, Limits(), constraint=unending)

    def _empty_cache(self) -> KVCache:
        """A cache apart from the engine's, which rests meanwhile."""
        if self._own is None:
            self._own = self._backend.new_cache(1, _ROOM)
        self._own.lengths[0] = 0
        return self._own


def _checked_questions(package: ModelPackage, tokenizer: Tokenizer) -> tuple[str, ...]:
    """The questions; raises BenchError where one makes a prompt of another length than all engines are to have."""
    prompts = PromptBuilder(package.manifest.prompt, package.manifest.tokens, tokenizer)
    built = [prompts.build(question, ()) for question in (*QUESTIONS, FOLLOW_UP)]
    found = [(len(prompt.head), len(prompt.tail)) for prompt in built]
    wanted = [(HEAD_TOKENS, TAIL_TOKENS)] * len(QUESTIONS) + [(HEAD_TOKENS, FOLLOW_UP_TOKENS)]
    if found != wanted or package.manifest.vision.tokens != VISUAL_TOKENS:
        raise BenchError(f"prompts of {found} tokens around {package.manifest.vision.tokens}, wanted {wanted}")
    return QUESTIONS


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3

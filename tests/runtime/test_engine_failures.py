"""The engine over a model that fails, hangs or spoils what it keeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.errors import BackendError, BackendLostError, ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.kv_cache import KVCache
from mobilevlm_ros.runtime.requests import Generation, Limits
from mobilevlm_ros.runtime.sampling import SamplingParams
from tests.fakes import FakeBackend, fake_engine

TEN = SamplingParams(max_tokens=10, temperature=0.0)
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def ask(engine: Engine) -> Generation:
    return engine.generate(engine.picture(Frame(PIXELS)), "What?", TEN, Limits())


def right() -> tuple[int, ...]:
    with fake_engine() as engine:
        return ask(engine).result().tokens


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_what_was_kept_of_a_model_that_failed_is_not_used_again() -> None:
    class OnceNanBackend(FakeBackend):
        def _logits(self, cache: KVCache, row: int, length: int) -> np.ndarray:
            logits = super()._logits(cache, row, length)
            return logits if np.isfinite(cache.keys[0][row, 0, :length]).all() else np.full_like(logits, np.nan)

    backend = OnceNanBackend()
    with fake_engine(backend) as engine:
        backend.embed = lambda tokens: np.full((len(tokens), 1), np.nan, np.float32)  # type: ignore[method-assign]
        with pytest.raises(VlmError) as failed:
            ask(engine).result()
        assert failed.value.code is ErrorCode.MODEL_ERROR
        del backend.embed
        assert ask(engine).result().tokens == right()


def test_progress_is_counted_while_there_is_work_and_rests_without() -> None:
    backend = FakeBackend()
    with fake_engine(backend) as engine:
        assert (engine.stats().busy, engine.stats().steps) == (False, 0)
        backend.gate.clear()
        generation = ask(engine)
        until(lambda: "encode" in backend.calls)
        still = engine.stats()
        assert still.busy
        backend.gate.set()
        generation.result()
        until(lambda: not engine.stats().busy)
        assert engine.stats().steps >= still.steps + 4  # encode, head, picture, question, and each token


def test_an_engine_whose_model_does_not_come_back_is_given_up_with_all_its_requests() -> None:
    backend = FakeBackend()
    engine = fake_engine(backend, EngineConfig(rows=1, context_length=512))
    backend.gate.clear()
    asked = [ask(engine), ask(engine)]
    until(lambda: backend.calls)
    engine.give_up(BackendError("it hangs"))
    for generation in asked:
        with pytest.raises(VlmError) as failed:
            generation.result()
        assert (failed.value.code, failed.value.message) == (ErrorCode.MODEL_ERROR, "it hangs")
    with pytest.raises(VlmError):
        ask(engine)
    engine.close()  # waits for nothing
    backend.gate.set()


def test_a_backend_that_cannot_go_on_is_told() -> None:
    backend = FakeBackend()
    with fake_engine(backend) as engine:
        backend.error = BackendLostError("the device is gone")
        with pytest.raises(VlmError) as failed:
            ask(engine).result()
        assert failed.value.code is ErrorCode.MODEL_ERROR
        assert engine.stats().lost == "the device is gone"

"""The engine: what it promises to many requests at once, over a model that notices any wrong position."""

from __future__ import annotations

import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest

from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.prompt import Turn
from mobilevlm_ros.runtime.requests import CancelToken, FinishReason, Generation, Limits, Picture, Priority
from mobilevlm_ros.runtime.sampling import GREEDY, SamplingParams
from tests.fakes import VISUAL_TOKENS, ByteTokenizer, FakeBackend, digest_token, fake_engine, reply

TEN = SamplingParams(max_tokens=10, temperature=0.0)


def picture(engine: Engine, seed: int = 0) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)
    return engine.picture(Frame(pixels))


def ask(
    engine: Engine, question: str = "What?", seed: int = 0, sampling: SamplingParams = TEN, limits: Limits | None = None
) -> Generation:
    return engine.generate(picture(engine, seed), question, sampling, limits or Limits())


def alone(question: str, seed: int = 0) -> tuple[int, ...]:
    with fake_engine() as engine:
        return ask(engine, question, seed).result().tokens


def test_an_answer_ends_where_the_model_ends_it() -> None:
    with fake_engine(FakeBackend(reply("a mug"))) as engine:
        done = ask(engine).result()
        assert engine.tokenizer.decode(done.tokens) == "a mug"
        assert done.finish is FinishReason.STOP


def test_an_answer_ends_at_max_tokens() -> None:
    with fake_engine() as engine:
        done = ask(engine).result()
        assert (len(done.tokens), done.finish) == (10, FinishReason.LENGTH)


def test_an_answer_ends_where_the_context_is_full() -> None:
    with fake_engine(config=EngineConfig(context_length=64)) as engine:
        done = ask(engine, sampling=SamplingParams(max_tokens=1000, temperature=0.0)).result()
        assert done.finish is FinishReason.LENGTH
        assert done.prompt_tokens + len(done.tokens) == 64


def test_tokens_stream_in_order_and_the_stream_ends() -> None:
    with fake_engine() as engine:
        generation = ask(engine)
        assert tuple(generation) == generation.result().tokens


def test_requests_that_decode_together_answer_as_if_alone() -> None:
    questions = [("What?", 0), ("How many mugs are there?", 0), ("Where?", 1), ("Which one is it, and why?", 2), ("Who?", 1)]
    backend = FakeBackend()
    backend.gate.clear()
    with fake_engine(backend) as engine:
        running = [ask(engine, question, seed) for question, seed in questions]
        backend.gate.set()
        together = [generation.result().tokens for generation in running]
    assert together == [alone(question, seed) for question, seed in questions]
    assert max(backend.batches) == 4


def test_a_request_joins_while_others_decode_and_rows_are_used_again() -> None:
    with fake_engine(config=EngineConfig(rows=2, queue_size=64, context_length=512)) as engine:
        questions = [f"What is number {i}{'?' * i}" for i in range(20)]
        lengths = [SamplingParams(max_tokens=1 + i % 7, temperature=0.0) for i in range(20)]
        running = [ask(engine, question, i % 3, lengths[i]) for i, question in enumerate(questions)]
        for i, (question, generation) in enumerate(zip(questions, running)):
            assert generation.result().tokens == alone(question, i % 3)[: 1 + i % 7]


def test_a_picture_is_encoded_once_and_a_follow_up_prefills_its_own_words_only() -> None:
    backend = FakeBackend()
    with fake_engine(backend) as engine:
        shown = picture(engine)
        first = engine.generate(shown, "What?", TEN, Limits()).result()
        second = engine.generate(shown, "Why so?", TEN, Limits()).result()
        assert backend.calls.count("encode") == 1
        tail = len(engine.tokenizer.encode("\nWhy so? ASSISTANT:"))
        assert backend.prefilled[-1] == tail
        assert second.timing.encode_ms == 0 < first.timing.encode_ms
    assert second.tokens == alone("Why so?")


def test_letterboxing_counts_as_encoding_for_the_first_request_about_a_frame() -> None:
    with fake_engine() as engine:
        ask(engine).result()
        frame = Frame(np.random.default_rng(0).integers(0, 256, (4000, 4000, 3), np.uint8))
        start = time.perf_counter()
        engine.picture(frame)
        letterboxing_ms = (time.perf_counter() - start) * 1e3
        first, second = (engine.generate(engine.picture(frame), "What?", TEN, Limits()).result() for _ in range(2))
        assert first.timing.encode_ms > 0.5 * letterboxing_ms
        assert second.timing.encode_ms == 0


def test_a_frame_is_letterboxed_once_and_forgotten_with_it() -> None:
    with fake_engine() as engine:
        frame = Frame(np.zeros((40, 60, 3), np.uint8))
        made = weakref.ref(engine.picture(frame))
        assert engine.picture(frame) is made()
        del frame
        assert made() is None


def test_the_words_before_the_picture_are_prefilled_once_per_model_and_a_picture_together_with_its_first_question() -> None:
    backend = FakeBackend()
    with fake_engine(backend) as engine:
        ask(engine, seed=0).result()
        before = len(backend.prefilled)
        ask(engine, seed=1).result()
        (at_once,) = backend.prefilled[before:]
        ask(engine, seed=1).result()
        assert at_once == VISUAL_TOKENS + backend.prefilled[-1]


def test_without_memory_for_prefixes_answers_stay_right() -> None:
    backend = FakeBackend()
    with fake_engine(backend, EngineConfig(prefix_cache_mb=0, context_length=512)) as engine:
        assert ask(engine).result().tokens == ask(engine).result().tokens == alone("What?")
        assert backend.calls.count("encode") == 2


def test_earlier_turns_are_part_of_the_prompt() -> None:
    with fake_engine() as engine:
        history = [Turn("What?", "A mug")]
        with_history = engine.generate(picture(engine), "Where?", TEN, Limits(), history).result()
        assert with_history.tokens != alone("Where?")
        assert with_history.prompt_tokens > ask(engine, "Where?").result().prompt_tokens


def spaced(context: tuple[float, ...]) -> int:
    """Answers that begin with a space, as a real model's do behind the template's colon."""
    colon, space = ByteTokenizer().encode(": ")
    return space if context[-1] == colon else digest_token(context)


def test_a_turn_is_used_although_its_picture_is_kept_no_longer() -> None:
    backend = FakeBackend(spaced)
    with fake_engine(backend, EngineConfig(context_length=512)) as engine:
        shown = picture(engine)
        first = engine.generate(shown, "What?", TEN, Limits(), (), keep_turn=True).result()
        engine._prefiller._prefixes.drop(shown.digest)
        before = len(backend.prefilled)
        history = [Turn("What?", engine.tokenizer.decode(first.tokens).strip())]
        engine.generate(shown, "Why so?", TEN, Limits(), history).result()
        whole, own = backend.prefilled[before:]
        assert whole == VISUAL_TOKENS
        assert own <= len(f"{history[0].answer[-1]}.\nUSER: Why so? ASSISTANT:")


def test_a_turn_of_a_conversation_prefills_its_own_words_only() -> None:
    backend = FakeBackend(spaced)
    with fake_engine(backend, EngineConfig(context_length=512)) as engine:
        shown = picture(engine)
        history: list[Turn] = []
        for message in ("What?", "Why so?", "Where?"):
            answer = engine.generate(shown, message, TEN, Limits(), history, keep_turn=True).result()
            text = engine.tokenizer.decode(answer.tokens).strip()
            history.append(Turn(message, text))
            # The answer's last token is read with the next turn, and what the template puts between the two.
            assert backend.prefilled[-1] <= len(f"{text[-1]}.\nUSER: {message} ASSISTANT:")
    with fake_engine(FakeBackend(spaced)) as engine:
        afresh = engine.generate(picture(engine), "Where?", TEN, Limits(), history[:2]).result()
    assert answer.tokens == afresh.tokens


def test_kept_turns_stay_within_the_bound_and_another_conversation_takes_what_fits() -> None:
    backend = FakeBackend()
    with fake_engine(backend, EngineConfig(context_length=512)) as engine:
        shown = picture(engine)
        first = engine.generate(shown, "What?", TEN, Limits(), keep_turn=True).result()
        for text in ("A mug", "A box"):
            told = [Turn("What?", text)]
            found = engine.generate(shown, "Where?", TEN, Limits(), told, keep_turn=True).result()
            with fake_engine() as other:
                assert found.tokens == other.generate(picture(other), "Where?", TEN, Limits(), told).result().tokens
        again = engine.generate(shown, "What?", TEN, Limits(), keep_turn=True).result()
        assert again.tokens == first.tokens
        assert 0 < engine.stats().prefix_cache_bytes <= 256 << 20


def test_a_full_line_refuses_at_once_with_busy() -> None:
    backend = FakeBackend()
    backend.gate.clear()
    with fake_engine(backend, EngineConfig(rows=1, queue_size=2, context_length=512)) as engine:
        running = [ask(engine)]
        wait_until(lambda: engine.stats().waiting == 0)
        running += [ask(engine), ask(engine)]
        with pytest.raises(VlmError) as refused:
            ask(engine)
        assert refused.value.code is ErrorCode.BUSY
        backend.gate.set()
        assert len({generation.result().tokens for generation in running}) == 1


def test_a_higher_priority_goes_first_then_the_earlier() -> None:
    backend = FakeBackend()
    backend.gate.clear()
    with fake_engine(backend, EngineConfig(rows=1, context_length=512)) as engine:
        waiting = [ask(engine)]
        wait_until(lambda: engine.stats().waiting == 0)
        for words, priority in [("low", 0), ("normal", 1), ("normal too", 1), ("highest", 2)]:
            waiting.append(ask(engine, words, limits=Limits(priority=Priority(priority))))
        backend.gate.set()
        for generation in waiting:
            generation.result()
    lengths = [len(ByteTokenizer().encode(f"\n{words} ASSISTANT:")) for words in ("highest", "normal", "normal too", "low")]
    assert backend.prefilled[-4:] == lengths


def test_cancel_ends_a_running_answer_at_the_next_token() -> None:
    cancel = CancelToken()
    with fake_engine(FakeBackend(pause=0.01)) as engine:
        generation = ask(engine, sampling=SamplingParams(max_tokens=400, temperature=0.0), limits=Limits(cancel=cancel))
        for seen, _ in enumerate(generation, start=1):
            if seen == 3:
                cancel.cancel()
        done = generation.result()
        assert done.finish is FinishReason.CANCELLED
        assert 3 <= len(done.tokens) < 400
        assert ask(engine).result().tokens == alone("What?")


def test_cancel_while_waiting_never_starts_the_request() -> None:
    backend, cancel = FakeBackend(), CancelToken()
    backend.gate.clear()
    with fake_engine(backend, EngineConfig(rows=1, context_length=512)) as engine:
        first = ask(engine)
        waiting = ask(engine, "Why?", seed=5, limits=Limits(cancel=cancel))
        cancel.cancel()
        backend.gate.set()
        first.result()
        with pytest.raises(VlmError) as ended:
            waiting.result()
        assert ended.value.code is ErrorCode.CANCELLED
        assert backend.calls.count("encode") == 1


def test_five_hundred_cancels_at_any_point_leave_the_engine_right() -> None:
    random = np.random.default_rng(0)
    with fake_engine(config=EngineConfig(queue_size=600, context_length=512)) as engine:
        for _ in range(500):
            cancel = CancelToken()
            generation = ask(engine, sampling=SamplingParams(max_tokens=300, temperature=0.0), limits=Limits(cancel=cancel))
            for _ in zip(range(random.integers(0, 4)), generation):
                pass
            cancel.cancel()
            try:
                assert generation.result().finish in (FinishReason.CANCELLED, FinishReason.LENGTH)
            except VlmError as error:
                assert error.code is ErrorCode.CANCELLED
        assert ask(engine, "Why?", 1).result().tokens == alone("Why?", 1)
        assert engine.stats().running == 0


def test_a_deadline_ends_a_running_answer_with_what_it_has() -> None:
    backend = FakeBackend(pause=0.01)
    with fake_engine(backend) as engine:
        slow = SamplingParams(max_tokens=400, temperature=0.0)
        generation = ask(engine, sampling=slow, limits=Limits(deadline=time.monotonic() + 0.2))
        next(iter(generation))
        backend.gate.clear()
        time.sleep(0.25)
        backend.gate.set()
        assert generation.result().finish is FinishReason.DEADLINE


def test_a_deadline_passed_in_line_is_an_error() -> None:
    with fake_engine() as engine, pytest.raises(VlmError) as ended:
        ask(engine, limits=Limits(deadline=time.monotonic() - 1)).result()
    assert ended.value.code is ErrorCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("error", "code"), [(RuntimeError("boom"), ErrorCode.MODEL_ERROR), (MemoryError(), ErrorCode.OUT_OF_MEMORY)]
)
def test_a_backend_that_raises_fails_its_request_and_nothing_else(error: Exception, code: ErrorCode) -> None:
    backend = FakeBackend()
    with fake_engine(backend) as engine:
        backend.error = error
        with pytest.raises(VlmError) as failed:
            ask(engine).result()
        assert failed.value.code is code
        assert ask(engine).result().tokens == alone("What?")


def test_a_failed_decode_step_fails_those_who_ran_and_the_next_request_is_right() -> None:
    backend = FakeBackend(pause=0.01)
    with fake_engine(backend) as engine:
        generation = ask(engine, sampling=SamplingParams(max_tokens=400, temperature=0.0))
        next(iter(generation))
        backend.error = RuntimeError("boom")
        with pytest.raises(VlmError):
            generation.result()
        assert ask(engine).result().tokens == alone("What?")


def test_a_logit_that_is_nan_is_a_model_error() -> None:
    class NanBackend(FakeBackend):
        def _logits(self, cache: object, row: int, length: int) -> np.ndarray:
            return np.full(300, np.nan, np.float32)

    with fake_engine(NanBackend()) as engine, pytest.raises(VlmError) as failed:
        ask(engine).result()
    assert failed.value.code is ErrorCode.MODEL_ERROR


def test_a_prompt_over_the_context_is_refused_before_anything_runs() -> None:
    backend = FakeBackend()
    with fake_engine(backend) as engine:
        with pytest.raises(VlmError) as refused:
            ask(engine, "x" * 600)
        assert refused.value.code is ErrorCode.PROMPT_TOO_LONG
        assert backend.calls == []


def test_the_longest_prompt_that_fits_is_answered() -> None:
    with fake_engine(config=EngineConfig(context_length=64)) as engine:
        bare = ask(engine, "x").result().prompt_tokens - 1
        assert len(ask(engine, "x" * (63 - bare)).result().tokens) == 1
        with pytest.raises(VlmError):
            ask(engine, "x" * (64 - bare))


def test_scores_are_the_log_probabilities_of_whole_answers() -> None:
    with fake_engine(FakeBackend(reply("yes"))) as engine:
        scored = engine.score(picture(engine), "Is it?", ["yes", "no", "y"], Limits()).result()
    right = 10.0 - np.log(np.exp(10.0) + 299)
    wrong = -np.log(np.exp(10.0) + 299)
    assert scored.log_probabilities[0] == pytest.approx(4 * right)
    assert scored.log_probabilities[2] == pytest.approx(right + wrong)
    assert scored.log_probabilities[1] < scored.log_probabilities[2]


def test_close_ends_running_and_waiting_requests_and_frees_the_model() -> None:
    backend = FakeBackend(pause=0.01)
    engine = fake_engine(backend, EngineConfig(rows=1, context_length=512))
    running = ask(engine, sampling=SamplingParams(max_tokens=400, temperature=0.0))
    next(iter(running))
    backend.gate.clear()
    waiting = ask(engine)
    threading.Timer(0.1, backend.gate.set).start()
    engine.close()
    assert running.result().finish is FinishReason.CANCELLED
    with pytest.raises(VlmError) as ended:
        waiting.result()
    assert ended.value.code is ErrorCode.CANCELLED
    assert backend.closed
    with pytest.raises(VlmError) as refused:
        ask(engine)
    assert refused.value.code is ErrorCode.NOT_ACTIVE
    engine.close()


@pytest.mark.parametrize(
    ("name", "value"), [("rows", 0), ("queue_size", 0), ("threads", -1), ("prefix_cache_mb", -1), ("cpu_affinity", "first")]
)
def test_a_config_out_of_range_is_refused(name: str, value: Any) -> None:
    with pytest.raises(VlmError, match=f"{name}|'{value}'"):
        EngineConfig(**{name: value})


def test_greedy_is_temperature_zero() -> None:
    assert GREEDY.temperature == 0


def wait_until(condition: object, timeout: float = 5.0) -> None:
    end = time.monotonic() + timeout
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)

"""Several who ask at once: what they share, and that none of them slows another more than it must."""

from __future__ import annotations

import threading
import time

import numpy as np

from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.requests import CancelToken, FinishReason, Generation, Limits, Priority
from mobilevlm_ros.runtime.sampling import GREEDY, SamplingParams
from mobilevlm_ros.tasks import Settings, ask
from tests.fakes import FakeBackend, fake_engine, reply

SHORT = SamplingParams(max_tokens=5, temperature=0.0)
LONG = SamplingParams(max_tokens=400, temperature=0.0)
FRAME = Frame(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))


def start(engine: Engine, question: str, sampling: SamplingParams = SHORT, limits: Limits | None = None) -> Generation:
    return engine.generate(engine.picture(FRAME), question, sampling, limits or Limits())


def test_questions_that_come_together_about_one_frame_encode_it_once_and_decode_as_one_batch() -> None:
    backend = FakeBackend()
    backend.gate.clear()
    with fake_engine(backend) as engine:
        together = [start(engine, f"What is number {number}?") for number in range(4)]
        backend.gate.set()
        answers = {generation.result().tokens for generation in together}
    assert len(answers) == 4
    assert backend.calls.count("encode") == 1
    assert max(backend.batches) == 4


def test_a_client_that_never_reads_its_stream_holds_up_nobody() -> None:
    backend = FakeBackend(pause=0.001)
    with fake_engine(backend) as engine:
        unread = start(engine, "Tell me all.", LONG)
        for number in range(5):
            assert start(engine, f"What is number {number}?").result().finish is FinishReason.LENGTH
        assert len(list(unread)) == len(unread.result().tokens)


def test_a_client_that_reads_slowly_gets_everything_and_slows_nobody() -> None:
    pieces: list[str] = []
    reading, read = threading.Event(), threading.Event()

    def slowly(piece: str) -> None:
        pieces.append(piece)
        reading.set()
        read.wait(10.0)

    with fake_engine(FakeBackend(reply("a long story"))) as engine:
        answers: list[str] = []
        thread = threading.Thread(target=lambda: answers.append(ask(engine, FRAME, "Tell me.", Settings(GREEDY), slowly).text))
        thread.start()
        assert reading.wait(5.0)
        started = time.monotonic()
        assert ask(engine, FRAME, "And me?", Settings(GREEDY)).text == "a long story"
        assert time.monotonic() - started < 1.0
        assert len(pieces) == 1
        read.set()
        thread.join()
    assert "".join(pieces) == answers[0] == "a long story"


def test_who_is_taken_back_for_somebody_else_makes_room_at_the_next_token() -> None:
    backend, standing = FakeBackend(pause=0.005), CancelToken()
    with fake_engine(backend, EngineConfig(rows=1, context_length=512)) as engine:
        low = start(engine, "How many now?", LONG, Limits(Priority.LOW, cancel=standing))
        next(iter(low))
        person = start(engine, "What is it?")
        steps = len(backend.calls)
        standing.cancel()
        assert person.result().finish is FinishReason.LENGTH
        assert low.result().finish is FinishReason.CANCELLED
    assert "prefill" in backend.calls[steps : steps + 4]


def test_a_question_that_waits_goes_before_an_earlier_one_of_low_priority() -> None:
    backend = FakeBackend()
    backend.gate.clear()
    with fake_engine(backend, EngineConfig(rows=1, context_length=512)) as engine:
        first = start(engine, "Who is first?")
        low = start(engine, "What is low?", limits=Limits(Priority.LOW))
        person = start(engine, "What is it?")
        backend.gate.set()
        waits = [generation.result().timing.queue_ms for generation in (first, person, low)]
    assert waits == sorted(waits)

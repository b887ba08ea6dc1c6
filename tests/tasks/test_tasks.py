"""The tasks: questions become prompts and tokens become typed results."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import astuple

import numpy as np
import pytest

from mobilevlm_ros.runtime.engine import EngineConfig
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.runtime.prompt import Turn
from mobilevlm_ros.runtime.requests import CancelToken
from mobilevlm_ros.runtime.sampling import SamplingParams
from mobilevlm_ros.tasks import Settings, ask, chat, classify, describe_region, ground
from tests.fakes import EOS, ByteTokenizer, FakeBackend, NextToken, fake_engine, reply

FRAME = Frame(np.zeros((48, 64, 3), np.uint8))
GREEDY = Settings(SamplingParams(max_tokens=64, temperature=0.0))


def answering(*rules: tuple[str, str]) -> NextToken:
    """A model that looks for words in the question and answers as the first rule that fits says."""

    def next_token(context: tuple[float, ...]) -> int:
        prompt = ByteTokenizer().decode([int(value) for value in context if value < 300])
        for words, answer in rules:
            if words in prompt:
                return reply(answer)(context)
        return EOS

    return next_token


def model(*rules: tuple[str, str]) -> FakeBackend:
    return FakeBackend(answering(*rules))


def test_ask_gives_the_answer_its_confidence_and_its_counts() -> None:
    with fake_engine(model(("How many", "three"))) as engine:
        answer = ask(engine, FRAME, "How many?", GREEDY)
    assert (answer.text, answer.error, answer.answer_tokens) == ("three", ErrorCode.NONE, 5)
    assert answer.token_ids == tuple(ByteTokenizer().encode("three"))
    assert answer.confidence == pytest.approx(np.exp(10) / (np.exp(10) + 299))
    assert answer.timing.prefill_ms > 0


def test_streamed_pieces_add_up_to_the_answer() -> None:
    pieces: list[str] = []
    with fake_engine(model(("What", "a blué mug"))) as engine:
        answer = ask(engine, FRAME, "What?", GREEDY, pieces.append)
    assert "".join(pieces) == answer.text == "a blué mug"
    assert len(pieces) == len("a blué mug")


def test_a_yes_or_no_has_the_normalised_probability_as_confidence() -> None:
    with fake_engine(model(("Is it", "Yes"))) as engine:
        assert ask(engine, FRAME, "Is it?", GREEDY).confidence == pytest.approx(np.exp(10) / (np.exp(10) + 1))


def test_an_empty_question_is_a_bad_request() -> None:
    with fake_engine() as engine, pytest.raises(VlmError) as refused:
        ask(engine, FRAME, "  ", GREEDY)
    assert refused.value.code is ErrorCode.BAD_REQUEST


def test_a_cancelled_answer_keeps_its_text_so_far() -> None:
    cancel, pieces = CancelToken(), []

    def on_text(piece: str) -> None:
        pieces.append(piece)
        cancel.cancel()

    with fake_engine(FakeBackend(pause=0.01)) as engine:
        settings = Settings(SamplingParams(max_tokens=400, temperature=0.0), cancel=cancel)
        answer = ask(engine, FRAME, "What?", settings, on_text)
    assert answer.error is ErrorCode.CANCELLED
    assert answer.text == "".join(pieces) != ""


def test_chat_puts_earlier_turns_before_the_message() -> None:
    seen: list[str] = []

    def next_token(context: tuple[float, ...]) -> int:
        seen.append(ByteTokenizer().decode([int(value) for value in context if value < 300]))
        return EOS

    with fake_engine(FakeBackend(next_token)) as engine:
        chat(engine, FRAME, [Turn("What?", "A mug.")], "Which colour?", GREEDY)
    assert seen[-1] == "Chat. USER: \nWhat? ASSISTANT: A mug.USER: Which colour? ASSISTANT:"


def test_a_conversation_that_outgrows_the_context_loses_its_oldest_turns() -> None:
    seen: list[str] = []

    def next_token(context: tuple[float, ...]) -> int:
        seen.append(ByteTokenizer().decode([int(value) for value in context if value < 300]))
        return EOS

    turns = [Turn(f"Question {i}?", "A long answer. " * 5) for i in range(10)]
    with fake_engine(FakeBackend(next_token), EngineConfig(context_length=300)) as engine:
        assert chat(engine, FRAME, turns, "And now?", GREEDY).error is ErrorCode.NONE
        with pytest.raises(VlmError) as refused:
            chat(engine, FRAME, turns, "And now? " * 50, GREEDY)
    assert refused.value.code is ErrorCode.PROMPT_TOO_LONG
    assert "Question 9?" in seen[-1]
    assert "Question 0?" not in seen[-1]


def test_ground_asks_for_presence_then_for_the_box() -> None:
    backend = model(("Is there a red mug in", "yes"), ("describes: the red mug.", "[0.25, 0.25, 0.50, 0.75]"))
    with fake_engine(backend) as engine:
        found = ground(engine, FRAME, "the red mug", GREEDY)
    assert found.error is ErrorCode.NONE
    (region,) = found.regions
    assert region.box == Box(16, 8, 32, 40)  # the padded square is 64 pixels with 8 rows above
    assert astuple(region.box_normalized) == pytest.approx((0.25, 8 / 48, 0.5, 40 / 48))
    assert (region.phrase, found.text) == ("the red mug", "[0.25, 0.25, 0.50, 0.75]")
    assert 0.9 < region.score <= 1


def test_an_absent_thing_is_no_grounding_and_not_a_guess() -> None:
    backend = model(("Is there a red mug in", "no"), ("describes:", "[0.25, 0.25, 0.50, 0.75]"))
    with fake_engine(backend) as engine:
        found = ground(engine, FRAME, "the red mug", GREEDY)
    assert (found.error, found.regions) == (ErrorCode.NO_GROUNDING, ())
    assert "a red mug" in found.error_msg


def test_a_score_is_the_chance_that_the_thing_is_there_and_its_box_right() -> None:
    backend = model(("Is there", "yes"), ("describes:", "[0.25, 0.25, 0.50, 0.75]"))
    with fake_engine(backend) as engine:
        found = ground(engine, FRAME, "the red mug", GREEDY)
    assert found.presence == pytest.approx(1, abs=1e-3)
    # Each digit is e^10 to 1 against any other that the form allows, which are 1, then 9 and 9 for each number. Where one errs,
    # the box may still be right.
    digits = (np.exp(10) / (np.exp(10) + 1)) ** 4 * (np.exp(10) / (np.exp(10) + 9)) ** 8
    assert digits < found.regions[0].score / found.presence < 1
    assert found.confidence == found.regions[0].score


@pytest.mark.parametrize("words", ["[0.50, 0.50, 0.20, 0.90]", "[0.10, 0.01, 0.90, 0.11]"])
def test_an_answer_without_a_box_in_the_picture_is_no_grounding_and_keeps_its_words(words: str) -> None:
    with fake_engine(model(("Is there", "yes"), ("describes:", words))) as engine:
        found = ground(engine, FRAME, "mug", GREEDY)
    assert (found.error, found.regions, found.text) == (ErrorCode.NO_GROUNDING, (), words)


def test_a_model_that_would_say_something_else_is_kept_to_the_form_of_a_box() -> None:
    with fake_engine(model(("Is there", "yes"), ("describes:", "it is somewhere"))) as engine:
        found = ground(engine, FRAME, "mug", GREEDY)
    assert re.fullmatch(r"\[[01]\.\d\d, [01]\.\d\d, [01]\.\d\d, [01]\.\d\d\]", found.text)


def test_a_box_that_reaches_into_the_padding_is_cut_at_the_picture() -> None:
    with fake_engine(model(("Is there", "yes"), ("describes:", "[0.00, 0.00, 1.00, 1.00]"))) as engine:
        (region,) = ground(engine, FRAME, "the table", GREEDY).regions
    assert region.box == Box(0, 0, 64, 48)
    assert region.box_normalized == Box(0, 0, 1, 1)


def test_describe_region_gives_the_model_the_box_in_its_own_notation() -> None:
    with fake_engine(model(("this region: [0.25, 0.25, 0.50, 0.75].", "a red mug"))) as engine:
        answer = describe_region(engine, FRAME, Box(16, 8, 32, 40), GREEDY)
    assert answer.text == "a red mug"


@pytest.mark.parametrize("box", [Box(10, 10, 10, 20), Box(20, 20, 10, 10), Box(70, 0, 90, 10), Box(float("nan"), 0, 1, 1)])
def test_a_region_that_covers_nothing_is_a_bad_request(box: Box) -> None:
    with fake_engine() as engine, pytest.raises(VlmError) as refused:
        describe_region(engine, FRAME, box, GREEDY)
    assert refused.value.code is ErrorCode.BAD_REQUEST


def test_classify_chooses_among_the_labels_only() -> None:
    with fake_engine(model(("What is it", "a mug"))) as engine:
        chosen = classify(engine, FRAME, "What is it?", ["a ball", "a mug", "a cone"], GREEDY)
    assert chosen.label == "a mug"
    assert sum(chosen.probabilities) == pytest.approx(1)
    assert chosen.confidence == chosen.probabilities[1] > 0.99


def test_a_label_counts_in_either_case_of_its_first_letter() -> None:
    with fake_engine(model(("Which color", "Red"))) as engine:
        chosen = classify(engine, FRAME, "Which color?", ["blue", "red"], GREEDY)
    assert chosen.label == "red"
    assert chosen.confidence > 0.99


def test_an_empty_question_asks_which_label_fits() -> None:
    with fake_engine(model(("fits the image best: indoors, outdoors?", "outdoors"))) as engine:
        assert classify(engine, FRAME, "", ["indoors", "outdoors"], GREEDY).label == "outdoors"


@pytest.mark.parametrize("labels", [[], ["one"], ["a", "A"], ["a", " "]])
def test_labels_that_give_no_choice_are_a_bad_request(labels: list[str]) -> None:
    with fake_engine() as engine, pytest.raises(VlmError) as refused:
        classify(engine, FRAME, "What?", labels, GREEDY)
    assert refused.value.code is ErrorCode.BAD_REQUEST


def test_a_timeout_in_line_is_deadline_exceeded() -> None:
    make: Callable[[], Settings] = lambda: Settings(timeout=0.0)  # noqa: E731
    with fake_engine() as engine:
        for task in (lambda: ask(engine, FRAME, "What?", make()), lambda: ground(engine, FRAME, "mug", make())):
            with pytest.raises(VlmError) as ended:
                task()
            assert ended.value.code is ErrorCode.DEADLINE_EXCEEDED

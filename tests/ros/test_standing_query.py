"""Standing queries: what their text may hold, and what is refused with which reason."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.ros.standing_query import MOST_QUERIES, Kind, Publish, StandingQuery, parse, parse_all

DOOR = StandingQuery("door", Kind.ASK, "is the door open?")


def test_a_name_and_a_question_are_enough() -> None:
    query = parse("door; ask: is the door open?")
    assert query == DOOR
    assert (query.period, query.frames, query.refresh, query.min_change, query.publish) == (1.0, 0, 60.0, None, Publish.ON_CHANGE)


def test_every_field_can_be_said() -> None:
    text = (
        "door; ask: is it open: now?; labels: yes, no; camera: front; every: 0.5 s; min_change: 20; refresh: 5 s; "
        "publish: always; max_tokens: 8"
    )
    assert parse(text) == StandingQuery(
        "door", Kind.ASK, "is it open: now?", ("yes", "no"), "front", 0.5, 0, 20.0, 5.0, Publish.ALWAYS, 8
    )


@pytest.mark.parametrize("frames", [1, 30])
def test_a_number_of_frames_takes_the_place_of_a_period(frames: int) -> None:
    query = parse(f"mug; ground: the red mug; every: {frames} frame{'s' * (frames > 1)}")
    assert (query.kind, query.text, query.frames, query.period) == (Kind.GROUND, "the red mug", frames, 0.0)


def test_labels_alone_are_a_question() -> None:
    assert parse("kind; ask:; labels: a mug, a bowl").labels == ("a mug", "a bowl")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("door", "one of ask and ground"),
        ("door; ask: open?; ground: the door", "one of ask and ground"),
        ("the door; ask: open?", "the name 'the door'"),
        ("; ask: open?", "the name ''"),
        ("door; ask:", "no question"),
        ("door; ground:  ", "no expression"),
        ("door; open?", "'open?' is no field"),
        ("door; ask: open?; colour: red", "ask, ground, labels"),
        ("door; ask: open?; ask: closed?", "ask stands there twice"),
        ("door; ask: open?; every: 2", "'2 s' or '10 frames'"),
        ("door; ask: open?; every: soon s", "no number"),
        ("door; ask: open?; every: 0 s", "0.05 to 86400"),
        ("door; ask: open?; every: 0 frames", "1 or more"),
        ("door; ask: open?; every: -1 s", "no number"),
        ("door; ask: open?; refresh: never", "'60 s'"),
        ("door; ask: open?; min_change: 300", "0 to 255"),
        ("door; ask: open?; publish: sometimes", "changes, always"),
        ("door; ask: open?; max_tokens: many", "no whole number"),
        ("door; ask: open?; max_tokens: 9999", "0 to 4096"),
        ("door; ask: open?; labels: yes", "2 to 64"),
        ("door; ask: open?; labels: yes, Yes", "not all different"),
        ("door; ground: the door; labels: yes, no", "not to an expression"),
        (f"door; ask: {'x' * 1001}", "1000 are allowed"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_text_and_the_reason(text: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert text[:40] in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_empty_texts_are_no_queries() -> None:
    assert parse_all(["", "door; ask: is the door open?", " "]) == (DOOR,)


def test_two_queries_with_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two standing queries are called 'door'"):
        parse_all(["door; ask: open?", "door; ask: closed?"])


def test_their_number_is_bounded() -> None:
    texts = [f"q{number}; ask: what?" for number in range(MOST_QUERIES + 1)]
    assert len(parse_all(texts[:-1])) == MOST_QUERIES
    with pytest.raises(ValueError, match=f"{MOST_QUERIES} are allowed"):
        parse_all(texts)


@pytest.mark.parametrize(
    "field",
    [{"period": float("nan")}, {"period": 1.0, "frames": 2}, {"min_change": float("nan")}, {"refresh": 0.0}, {"refresh": -1.0}],
)
def test_values_that_no_text_can_hold_are_refused_too(field: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        dataclasses.replace(DOOR, **field)


@given(st.text(max_size=200))
def test_any_text_is_a_query_or_a_reason_in_one_line(text: str) -> None:
    try:
        parse(text)
    except ValueError as error:
        assert 0 < len(str(error)) < 400
        assert len(str(error).splitlines()) == 1


@given(
    st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,20}", fullmatch=True),
    st.text(st.characters(codec="latin-1", exclude_characters=";"), min_size=1, max_size=60).filter(str.strip),
    st.integers(1, 100_000),
)
def test_what_is_said_comes_back(name: str, question: str, frames: int) -> None:
    query = parse(f"{name}; ask: {question}; every: {frames} frames")
    assert (query.name, query.text, query.frames) == (name, question.strip(), frames)

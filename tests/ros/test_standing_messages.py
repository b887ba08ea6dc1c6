"""Standing queries to messages and back, whatever a client sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="needs ROS 2")

from builtin_interfaces.msg import Duration
from mobilevlm_msgs.msg import StandingQuery

from mobilevlm_ros.ros.standing_messages import query_message, query_of
from mobilevlm_ros.ros.standing_query import parse

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
DURATIONS = st.builds(Duration, sec=st.integers(-2, 100_000), nanosec=st.integers(0, 2**32 - 1))


@pytest.mark.parametrize(
    "text",
    [
        "door; ask: is the door open?",
        "door; ask: is it?; labels: yes, no; camera: front; every: 2 s; min_change: 20; refresh: 5 s; publish: always",
        "mug; ground: the red mug; every: 10 frames; min_change: 0",
    ],
)
def test_a_query_comes_back_from_its_message_with_the_nodes_least_change_filled_in(text: str) -> None:
    query = parse(text)
    back = query_of(query_message(query, 12.0))
    assert back == (query if query.min_change is not None else parse(f"{text}; min_change: 12"))


def test_what_a_message_leaves_open_is_as_in_a_text_that_does() -> None:
    assert query_of(StandingQuery(name="door", text="is the door open?")) == parse("door; ask: is the door open?")


@given(
    st.builds(
        StandingQuery,
        name=st.just("door") | TEXTS,
        kind=st.integers(0, 2),
        text=TEXTS,
        labels=st.lists(TEXTS, max_size=4),
        period=DURATIONS,
        frames=st.integers(0, 2**32 - 1),
        min_change=st.floats(width=32),
        refresh=DURATIONS,
        publish=st.integers(0, 2),
        max_tokens=st.integers(0, 2**16 - 1),
    )
)
def test_any_message_is_a_query_or_a_reason_in_one_line(message: StandingQuery) -> None:
    try:
        query_of(message)
    except ValueError as error:
        assert str(error)
        assert "\n" not in str(error)

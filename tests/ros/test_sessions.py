"""Conversations: kept by name, bounded in number, length and age."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from mobilevlm_ros.ros.sessions import Bounds, Sessions
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.prompt import Turn


def sessions(count: int = 3, turns: int = 4, timeout: float = 100.0) -> Sessions:
    return Sessions(lambda: Bounds(count, turns, timeout))


def say(kept: Sessions, name: str, text: str) -> str:
    with kept.use(name) as session:
        session.turns.append(Turn(text, f"{text}!"))
        return session.name


def told(kept: Sessions, name: str) -> list[str]:
    with kept.use(name) as session:
        return [turn.question for turn in session.turns]


def test_an_empty_name_begins_a_conversation_with_a_name_of_its_own() -> None:
    kept = sessions()
    first, second = say(kept, "", "a"), say(kept, "", "b")
    assert first != second
    assert told(kept, first) == ["a"]


def test_a_conversation_goes_on_under_its_name() -> None:
    kept = sessions()
    say(kept, "mine", "a")
    say(kept, "mine", "b")
    assert told(kept, "mine") == ["a", "b"]


def test_a_conversation_in_use_is_busy() -> None:
    kept = sessions()
    with kept.use("mine"), pytest.raises(VlmError) as caught, kept.use("mine"):
        pass
    assert caught.value.code is ErrorCode.BUSY


def test_a_conversation_in_which_nothing_was_said_is_not_kept() -> None:
    kept = sessions()
    with kept.use("mine"):
        pass
    assert len(kept) == 0


def test_too_many_conversations_lose_the_one_that_rested_longest() -> None:
    kept = sessions(count=2)
    for name in ("a", "b", "a", "c"):
        say(kept, name, "hello")
    assert (told(kept, "a"), told(kept, "b"), told(kept, "c")) == (["hello", "hello"], [], ["hello"])


def test_a_long_conversation_loses_its_oldest_turns() -> None:
    kept = sessions(turns=2)
    for text in "abc":
        say(kept, "mine", text)
    assert told(kept, "mine") == ["b", "c"]


def test_a_conversation_that_rests_too_long_is_forgotten() -> None:
    kept = sessions(timeout=0.05)
    say(kept, "mine", "a")
    time.sleep(0.1)
    assert told(kept, "mine") == []


def test_clearing_forgets_all_but_those_in_use() -> None:
    kept = sessions()
    say(kept, "a", "hello")
    with kept.use("b") as session:
        session.turns.append(Turn("hello", "you"))
        kept.clear()
    assert (told(kept, "a"), told(kept, "b")) == ([], ["hello"])

"""The line in which requests wait for the model: who goes first, who is turned away, and who leaves unserved."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.requests import CancelToken, Limits, Priority
from mobilevlm_ros.runtime.waiting_line import WaitingLine


@dataclass(eq=False)
class Someone:
    """Somebody in line."""

    name: str = ""
    limits: Limits = field(default_factory=Limits)


def line(*names: str, capacity: int = 8) -> WaitingLine[Someone]:
    made: WaitingLine[Someone] = WaitingLine(capacity)
    for name in names:
        made.put(Someone(name))
    return made


@given(st.lists(st.sampled_from(Priority), max_size=20))
def test_the_higher_priority_goes_first_and_among_equals_who_came_first(priorities: list[Priority]) -> None:
    waiting = line(capacity=20)
    people = [Someone(str(number), Limits(priority)) for number, priority in enumerate(priorities)]
    for someone in people:
        waiting.put(someone)
    taken = [waiting.take() for _ in people]
    assert taken == sorted(people, key=lambda someone: -someone.limits.priority)
    assert waiting.take() is None


def test_one_too_many_is_told_so_at_once_and_nobody_loses_a_place() -> None:
    waiting = line("first", "second", capacity=2)
    with pytest.raises(VlmError, match="2 requests") as caught:
        waiting.put(Someone("third", Limits(Priority.HIGH)))
    assert caught.value.code is ErrorCode.BUSY
    assert len(waiting) == 2
    assert waiting.take()
    waiting.put(Someone("third"))


def test_those_whose_time_is_over_or_who_were_taken_back_leave() -> None:
    waiting = line()
    taken_back = CancelToken()
    waiting.put(Someone("late", Limits(deadline=time.monotonic() - 1.0)))
    waiting.put(Someone("stays", Limits(deadline=time.monotonic() + 60.0)))
    waiting.put(Someone("taken back", Limits(cancel=taken_back)))
    taken_back.cancel()
    assert [someone.name for someone in waiting.take_ended()] == ["late", "taken back"]
    assert not waiting.take_ended()
    assert len(waiting) == 1


def test_who_waits_for_somebody_is_woken() -> None:
    waiting = line()
    threading.Timer(0.05, lambda: waiting.put(Someone("first"))).start()
    started = time.monotonic()
    assert waiting.wait()
    assert time.monotonic() - started < 2.0


def test_a_closed_line_hands_back_who_waited_and_takes_nobody() -> None:
    waiting = line("first", "second")
    assert [someone.name for someone in waiting.close()] == ["first", "second"]
    assert not waiting.wait()
    with pytest.raises(VlmError) as caught:
        waiting.put(Someone("third"))
    assert caught.value.code is ErrorCode.NOT_ACTIVE
    assert not waiting.close()

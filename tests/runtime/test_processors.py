"""Lists of processors, and threads kept on them."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.processors import parse_processors, pinned

HERE = sorted(os.sched_getaffinity(0))


def test_nothing_said_means_any() -> None:
    assert parse_processors(" ") == frozenset()


def test_numbers_and_ranges_are_read() -> None:
    assert parse_processors(f"{HERE[0]}, {HERE[0]}-{HERE[0]}") == {HERE[0]}


@pytest.mark.parametrize("text", ["a", "1-", "-1", "0,,1", "1;2", "0x1", "99999"])
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(VlmError, match="no list of processors") as caught:
        parse_processors(text)
    assert caught.value.code is ErrorCode.BAD_REQUEST


def test_a_processor_that_is_not_there_is_named() -> None:
    with pytest.raises(VlmError, match=f"processor {HERE[-1] + 1} cannot be used"):
        parse_processors(f"{HERE[0]},{HERE[-1] + 1}")


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert parse_processors(text) <= set(HERE)
    except VlmError as error:
        assert error.code is ErrorCode.BAD_REQUEST


def test_threads_that_are_started_inside_stay_and_the_thread_itself_returns() -> None:
    wanted = frozenset(HERE[:1])
    seen: list[set[int]] = []
    with pinned(wanted):
        thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join()
    assert seen == [wanted]
    assert sorted(os.sched_getaffinity(0)) == HERE

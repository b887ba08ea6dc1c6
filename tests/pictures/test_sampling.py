"""Which pictures of a recording are looked at."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.pictures.sampling import EveryFrame, EverySeconds, Sampling
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

FIVE_A_SECOND = [(number / 5, number) for number in range(60)]


def picked(sampling: Sampling) -> list[int]:
    return [number for _, number in sampling.pick(FIVE_A_SECOND)]


def test_one_a_second_is_the_default() -> None:
    assert picked(Sampling()) == list(range(0, 60, 5))


def test_half_seconds_take_the_first_picture_at_or_after_each() -> None:
    assert picked(Sampling(EverySeconds(0.5), end=2.0)) == [0, 3, 5, 8]


def test_frames_can_be_counted_instead() -> None:
    assert picked(Sampling(EveryFrame(7), limit=3)) == [0, 7, 14]


def test_counting_begins_where_the_part_begins() -> None:
    assert picked(Sampling(EveryFrame(7), start=2.0, end=5.0)) == [10, 17, 24]
    assert picked(Sampling(EverySeconds(1.0), start=2.0, end=5.0)) == [10, 15, 20]


def test_seconds_that_bring_more_than_there_is_take_everything() -> None:
    assert picked(Sampling(EverySeconds(0.01))) == list(range(60))


def test_a_gap_in_the_recording_is_not_made_up_for() -> None:
    times = [(0.0, 0), (0.2, 1), (7.9, 2), (8.0, 3), (8.1, 4), (9.0, 5)]
    assert [number for _, number in Sampling().pick(times)] == [0, 2, 3, 5]


def test_no_more_is_read_than_is_wanted() -> None:
    source = iter(FIVE_A_SECOND)
    assert len(list(Sampling(limit=2).pick(source))) == 2
    assert next(source)[1] <= 6


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"start": -1.0}, "--start is -1"),
        ({"start": 3.0, "end": 3.0}, "--end is 3, it must be after --start"),
        ({"limit": 0}, "--limit is 0"),
    ],
)
def test_a_value_out_of_its_range_is_named(values: dict[str, float], named: str) -> None:
    with pytest.raises(VlmError, match=named) as caught:
        Sampling(**values)  # type: ignore[arg-type]
    assert caught.value.code is ErrorCode.BAD_REQUEST


def test_every_must_be_over_nothing() -> None:
    for seconds in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(VlmError, match="--every"):
            EverySeconds(seconds)
    with pytest.raises(VlmError, match="--every-frame is 0"):
        EveryFrame(0)


SAMPLINGS = st.builds(
    Sampling,
    st.one_of(st.builds(EverySeconds, st.floats(0.05, 20)), st.builds(EveryFrame, st.integers(1, 20))),
    st.floats(0, 5),
    st.floats(6, 30),
    st.one_of(st.none(), st.integers(1, 10)),
)


@given(SAMPLINGS)
def test_what_is_picked_is_in_order_and_within_bounds_and_not_denser_than_asked(sampling: Sampling) -> None:
    times = [seconds for seconds, _ in sampling.pick(FIVE_A_SECOND)]
    assert times == sorted(set(times))
    assert all(sampling.start - 1e-6 <= seconds < sampling.end for seconds in times)
    if isinstance(sampling.every, EverySeconds):
        slots = [math.floor((seconds - sampling.start + 1e-6) / sampling.every.seconds) for seconds in times]
        assert len(slots) == len(set(slots))


@given(SAMPLINGS)
def test_the_progress_bar_is_told_the_right_number_give_or_take_one(sampling: Sampling) -> None:
    assert abs(sampling.count(60, 12.0) - len(list(sampling.pick(FIVE_A_SECOND)))) <= 1

"""Which log lines are let through."""

from __future__ import annotations

from mobilevlm_ros.ros.throttle import Throttle


class Clock:
    """The time, as the test says."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_first_line_of_a_cause_is_logged_and_those_soon_after_are_counted() -> None:
    clock = Clock()
    throttle = Throttle(5.0, clock)
    assert throttle.line("a", "one") == "one"
    assert [throttle.line("a", "again") for _ in range(3)] == [None] * 3
    clock.now += 5.0
    assert throttle.line("a", "later") == "later (and 3 more like it since the last line)"
    clock.now += 5.0
    assert throttle.line("a", "alone") == "alone"


def test_causes_do_not_hide_one_another() -> None:
    throttle = Throttle(5.0, Clock())
    assert throttle.line("a", "one") == "one"
    assert throttle.line("b", "two") == "two"


def test_the_causes_that_are_remembered_are_bounded() -> None:
    throttle = Throttle(5.0, Clock())
    for number in range(1000):
        throttle.line(number, "line")
    assert throttle.line(999, "line") is None
    assert throttle.line(0, "line") == "line"

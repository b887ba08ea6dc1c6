"""When a model is taken to hang."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from mobilevlm_ros.ros.model import ModelStats
from mobilevlm_ros.ros.watchdog import Watchdog
from tests.ros.fakes import FakeModel


class Worker(FakeModel):
    """A model whose work the test does."""

    busy, steps, lost = True, 0, ""

    def stats(self) -> ModelStats:
        return ModelStats("fake", 0, 1, 0, self.busy, self.steps, self.lost)


def looks(model: Worker, seconds: float, count: int, limit: float = 10.0) -> list[str]:
    """What a new watchdog says at each look."""
    watchdog = Watchdog(lambda: (model,), lambda: limit, lambda _: None)
    return [watchdog.look(seconds) for _ in range(count)]


def test_a_model_that_has_work_and_stands_still_hangs_after_the_limit() -> None:
    said = looks(Worker("nano"), 1.0, 13)
    assert said[:11] == [""] * 11  # at the first look nothing is known of the time before
    assert said[11] == "the model 'nano' hangs: it made no progress for 10 s"


def test_a_model_without_work_may_stand_still() -> None:
    model = Worker()
    model.busy = False
    assert set(looks(model, 1.0, 100)) == {""}


def test_a_model_that_makes_progress_now_and_then_does_not_hang() -> None:
    model = Worker()
    watchdog = Watchdog(lambda: (model,), lambda: 10.0, lambda _: None)
    for look in range(100):
        model.steps += look % 9 == 0
        assert not watchdog.look(1.0)


def test_a_model_that_cannot_go_on_is_given_up_at_once() -> None:
    model = Worker("nano")
    model.lost = "the device fell off the bus"
    assert looks(model, 1.0, 1)[0] == "the model 'nano' cannot go on: the device fell off the bus"


def test_each_of_several_models_is_looked_at() -> None:
    still, working = Worker("still"), Worker("working")
    watchdog = Watchdog(lambda: (working, still), lambda: 5.0, lambda _: None)
    for _ in range(6):
        working.steps += 1
        assert not watchdog.look(1.0)
    working.steps += 1
    assert "'still'" in watchdog.look(1.0)


def test_its_owner_is_told_once() -> None:
    model = Worker()
    reasons: list[str] = []
    hung = threading.Event()

    def on_hang(reason: str) -> None:
        reasons.append(reason)
        hung.set()

    with Watchdog(lambda: (model,), lambda: 0.4, on_hang):
        assert hung.wait(5.0)
    assert len(reasons) == 1


def test_a_watchdog_is_closed_at_once() -> None:
    with Watchdog(lambda: (), lambda: 3600.0, lambda _: None):
        pass

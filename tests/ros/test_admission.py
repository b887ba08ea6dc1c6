"""The gate: how many come in, who is told what, and how all are sent away."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

import pytest

from mobilevlm_ros.ros.admission import Gate
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.requests import CancelToken


def refused(gate: Gate) -> VlmError:
    with pytest.raises(VlmError) as caught, gate.enter(CancelToken()):
        pass
    return caught.value


def test_a_gate_is_shut_until_it_is_opened() -> None:
    assert refused(Gate()).code is ErrorCode.NOT_ACTIVE


def test_one_too_many_is_told_at_once_that_it_is_busy_and_may_come_when_another_leaves() -> None:
    gate = Gate()
    gate.open(2)
    with ExitStack() as first:
        first.enter_context(gate.enter(CancelToken()))
        with gate.enter(CancelToken()):
            assert gate.inside == 2
            assert refused(gate).code is ErrorCode.BUSY
        with gate.enter(CancelToken()):
            pass
    assert gate.inside == 0


def test_a_request_that_fails_leaves_its_place() -> None:
    gate = Gate()
    gate.open(1)
    with pytest.raises(RuntimeError), gate.enter(CancelToken()):
        raise RuntimeError
    assert gate.inside == 0


def test_closing_takes_back_who_is_inside_and_tells_later_ones_why() -> None:
    gate = Gate()
    gate.open(2)
    token = CancelToken()
    with gate.enter(token):
        gate.close("it was deactivated")
        assert token.cancelled
        assert "it was deactivated" in refused(gate).message
        assert not gate.wait_until_empty(0.05)
    assert gate.wait_until_empty(0.05)


def test_waiting_for_an_empty_gate_ends_as_soon_as_it_is() -> None:
    gate = Gate()
    gate.open(1)
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with gate.enter(CancelToken()):
            inside.set()
            leave.wait(5.0)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(5.0)
    threading.Timer(0.05, leave.set).start()
    started = time.monotonic()
    assert gate.wait_until_empty(5.0)
    assert time.monotonic() - started < 1.0
    thread.join()

"""Waiting for what another thread brings about, in asyncio and without a loop."""

from __future__ import annotations

import asyncio
import threading
import time
from math import inf

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from mobilevlm_ros.client.changes import Changes


def test_a_change_in_another_thread_wakes_the_loop() -> None:
    changes, came = Changes(), threading.Event()

    def bring_about() -> None:
        came.set()
        changes.tell()

    async def wait() -> bool:
        threading.Timer(0.05, bring_about).start()
        return await changes.until(came.is_set, inf)

    started = time.monotonic()
    assert asyncio.run(wait())
    assert time.monotonic() - started < 2.0


def test_what_does_not_come_about_is_waited_for_until_the_deadline() -> None:
    assert not asyncio.run(Changes().until(lambda: False, time.monotonic() + 0.05))


def test_a_cancellation_is_not_swallowed_however_fast_changes_come() -> None:
    changes, stop = Changes(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            changes.tell()

    async def leave() -> int:
        cancelled = 0
        for _ in range(50):
            waiting = asyncio.ensure_future(changes.until(lambda: False, time.monotonic() + 5.0))
            await asyncio.sleep(0.002)
            waiting.cancel()
            try:
                await waiting
            except asyncio.CancelledError:
                cancelled += 1
        return cancelled

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert asyncio.run(leave()) == 50
    finally:
        stop.set()
        thread.join()


def test_without_a_loop_the_executor_gets_the_turn_until_it_comes_about() -> None:
    waiting = Changes().until(iter([False, False, True, True]).__next__, inf)
    turns = 0
    with pytest.raises(StopIteration) as ended:
        while True:
            waiting.send(None)
            turns += 1
    assert (turns, ended.value.value) == (2, True)

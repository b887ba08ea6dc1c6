"""A request on its way: it ends once, in time, and tells all who wait."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from mobilevlm_ros.client import ClientUsageError, ErrorCode, Pending, VlmError


def pending(seconds: float = 10.0) -> Pending[int]:
    return Pending(time.monotonic() + seconds, lambda: "no answer came")


def test_it_ends_with_a_value_once() -> None:
    request = pending()
    assert not request.done()
    request.succeed(1)
    request.succeed(2)
    request.fail(VlmError(ErrorCode.BUSY, "too late"))
    assert (request.done(), request.result(), request.error) == (True, 1, None)


def test_a_result_that_is_not_there_yet_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ClientUsageError, match="on its way"):
        pending().result()


def test_an_error_is_raised_where_the_result_is_wanted() -> None:
    request = pending()
    request.fail(VlmError(ErrorCode.BUSY, "the queue is full"))
    with pytest.raises(VlmError, match="the queue is full"):
        request.result()


def test_it_has_failed_when_its_deadline_has_passed() -> None:
    request = pending(0.0)
    assert request.done()
    assert request.error and request.error.code is ErrorCode.DEADLINE_EXCEEDED
    assert str(request.error) == "no answer came"


def test_a_callback_is_called_at_the_deadline_though_nobody_looks() -> None:
    ended = threading.Event()
    pending(0.05).add_done_callback(lambda _: ended.set())
    assert ended.wait(2.0)


def test_a_callback_is_called_once_also_where_it_comes_after_the_end() -> None:
    request, came = pending(), []
    request.add_done_callback(lambda done: came.append(done.result()))
    request.succeed(7)
    request.add_done_callback(lambda done: came.append(done.result()))
    assert came == [7, 7]


@pytest.mark.parametrize("first", ["cancel", "forget"])
def test_what_waits_for_the_answer_is_let_go_when_it_is_taken_back(first: str) -> None:
    request, forgotten = pending(), []
    if first == "cancel":
        request.cancel()
    request.forget_with(lambda: forgotten.append(True))
    request.cancel()
    assert forgotten == [True]
    assert request.error and request.error.code is ErrorCode.CANCELLED


def test_several_coroutines_wait_for_one_that_another_thread_ends() -> None:
    async def wait() -> list[int]:
        request = pending()
        threading.Timer(0.05, lambda: request.succeed(3)).start()

        async def one() -> int:
            return await request

        return list(await asyncio.gather(one(), one()))

    assert asyncio.run(wait()) == [3, 3]


def test_a_coroutine_that_is_cancelled_takes_the_request_back() -> None:
    request = pending()

    async def wait() -> None:
        await request

    async def leave() -> None:
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0.02)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(leave())
    assert request.error and request.error.code is ErrorCode.CANCELLED

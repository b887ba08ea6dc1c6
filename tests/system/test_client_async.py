"""The client that never blocks: in asyncio, in coroutines and callbacks of the node's executor, looked at from time to time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mobilevlm_msgs import msg as vlm_msgs
from mobilevlm_msgs.srv import ListModels
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from mobilevlm_ros.client import VLM, Answer, AsyncVLM, ClientUsageError, ErrorCode, Pending, VlmError, spinning
from tests.system.graph import PATIENCE, SOON, Caller, Listener, Served, is_taken_back, serving, until

NAME = "async_vlm"
LONG = 1500


@pytest.fixture(scope="module")
def served(tester: Node, random_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tester, NAME, tmp_path_factory.mktemp("async"), model=random_package, max_tokens=30) as served:
        yield served


@pytest.fixture
def own(tester: Node, vlm: VLM) -> Iterator[Node]:
    """A node that nobody spins yet."""
    node = Node("own", context=tester.context, use_global_arguments=False)
    yield node
    node.destroy_node()


@pytest.fixture
def client(own: Node) -> Iterator[AsyncVLM]:
    """A client whose node one thread spins."""
    with spinning(own):
        yield AsyncVLM(own, NAME)


def test_questions_are_asked_side_by_side_in_asyncio(client: AsyncVLM) -> None:
    async def ask() -> list[int]:
        await client.ready(PATIENCE)
        answers = await asyncio.gather(*(client.ask("What is it?", max_tokens=count) for count in (3, 5, 7)))
        return [answer.info.answer_tokens for answer in answers]

    assert asyncio.run(ask()) == [3, 5, 7]


def test_the_loop_goes_on_while_an_answer_comes(client: AsyncVLM) -> None:
    async def chat() -> tuple[str, str, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.create_task(tick())
        stream = client.chat("Tell me more.", max_tokens=600)
        text = "".join([piece async for piece in stream])
        ticking.cancel()
        assert stream.answer
        return text.strip(), stream.answer.text, ticks

    text, whole, ticks = asyncio.run(chat())
    assert text == whole
    assert ticks > 3


@pytest.mark.parametrize("how", ["break", "cancel"])
def test_leaving_the_loop_takes_the_message_back(client: AsyncVLM, tester: Node, how: str) -> None:
    heard = Listener(tester, vlm_msgs.Answer, f"/{NAME}/answer")
    question = f"Tell me about {how}."

    async def read() -> None:
        async for _ in client.chat(question, max_tokens=LONG):
            if how == "break":
                break

    async def leave() -> None:
        reading = asyncio.create_task(read())
        if how == "cancel":
            await asyncio.sleep(0.3)
            reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    def code() -> int:
        heard.messages.clear()
        asyncio.run(leave())
        return int(heard.first(lambda message: message.question == question).error_code)

    assert is_taken_back(code)


def test_a_request_that_fails_raises_where_it_is_awaited(client: AsyncVLM) -> None:
    async def ask() -> None:
        await client.ask("What is it?", camera="nowhere")

    with pytest.raises(VlmError, match="nowhere") as caught:
        asyncio.run(ask())
    assert caught.value.code is ErrorCode.BAD_REQUEST


def test_a_node_that_is_not_there_fails_what_is_awaited_in_time(own: Node) -> None:
    nobody = AsyncVLM(own, "nobody", connect_timeout=0.2)

    async def ask() -> list[BaseException]:
        calls = (nobody.ask("Are you there?"), nobody.chat("Are you there?").text(), nobody.ready())
        return [error for error in await asyncio.gather(*calls, return_exceptions=True) if isinstance(error, BaseException)]

    started = time.monotonic()
    with spinning(own):
        errors = asyncio.run(ask())
    assert time.monotonic() - started < SOON
    assert [error.code for error in errors if isinstance(error, VlmError)] == [ErrorCode.NOT_ACTIVE] * 3


def test_a_request_of_a_node_that_is_destroyed_meanwhile_fails(tester: Node) -> None:
    own = Node("short_lived", context=tester.context, use_global_arguments=False)
    pending = AsyncVLM(own, "nobody", connect_timeout=0.5).ask("Are you there?")
    own.destroy_node()
    until(pending.done, SOON)
    assert pending.error and pending.error.code is ErrorCode.NOT_ACTIVE


def test_a_coroutine_callback_of_a_single_threaded_executor_may_await_and_stream(own: Node, tester: Node) -> None:
    client = AsyncVLM(own, NAME)

    async def answer(request: ListModels.Request, response: ListModels.Response) -> ListModels.Response:
        answer = await client.ask("What is it?", max_tokens=3)
        pieces = [piece async for piece in client.chat("And then?", max_tokens=20)]
        response.available = [answer.text, *pieces]
        return response

    own.create_service(ListModels, "/own/ask_for_me", answer)
    with spinning(own):
        ask = Caller(tester, ListModels, "/own/ask_for_me")
        assert len(ask(ListModels.Request()).available) > 2


def test_a_request_calls_back_when_it_has_ended(client: AsyncVLM) -> None:
    came: list[int] = []

    def take(pending: Pending[Answer]) -> None:
        came.append(pending.result().info.answer_tokens)

    client.ask("What is it?", max_tokens=4).add_done_callback(take)
    assert until(lambda: came) == [4]


def test_a_request_can_be_looked_at_from_time_to_time(client: AsyncVLM) -> None:
    pending = client.ask("What is it?", max_tokens=200)
    with pytest.raises(ClientUsageError, match="on its way"):
        pending.result()
    until(pending.done)
    assert pending.result().info.answer_tokens == 200
    stream = client.chat("Tell me more.", max_tokens=LONG)
    pieces = []
    while not stream.done():
        pieces.append(stream.take())
        time.sleep(0.01)
    pieces.append(stream.take())
    assert stream.answer
    assert len([piece for piece in pieces if piece]) > 1
    assert "".join(pieces).strip() == stream.answer.text


def test_a_stream_that_is_taken_back_says_so_where_it_is_looked_at(client: AsyncVLM) -> None:
    stream = client.chat("Tell me a long story.", max_tokens=LONG)
    until(stream.take)
    stream.cancel()
    until(stream.done)
    with pytest.raises(VlmError) as caught:
        while True:
            stream.take()
    assert caught.value.code is ErrorCode.CANCELLED
    assert stream.answer and stream.answer.text


def test_a_node_that_no_executor_has_is_named_in_the_error(own: Node) -> None:
    pending = AsyncVLM(own, NAME, connect_timeout=0.2).ask("What is it?", timeout=0.1)
    until(pending.done)
    assert pending.error
    assert str(pending.error).endswith("did not answer within 0.1 s; no executor has the node 'own'")


def test_a_request_that_nobody_answers_ends_without_being_looked_at(own: Node) -> None:
    executor = SingleThreadedExecutor(context=own.context)
    executor.add_node(own)  # and nobody spins it
    ended: list[VlmError | None] = []
    client = AsyncVLM(own, NAME, connect_timeout=0.2)
    pending = client.ask("What is it?", timeout=0.1)
    pending.add_done_callback(lambda done: ended.append(done.error))
    (error,) = until(lambda: ended)
    assert error and error.code is ErrorCode.DEADLINE_EXCEEDED
    assert "the executor of the node 'own' is not spinning" in error.message
    executor.shutdown()

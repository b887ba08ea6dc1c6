"""The chat action: streaming, conversations and cancelling, over real DDS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from action_msgs.msg import GoalStatus
from mobilevlm_msgs.action import Chat
from mobilevlm_msgs.msg import RequestOptions
from rclpy.action import ActionClient
from rclpy.node import Node

from mobilevlm_ros.client import VLM
from mobilevlm_ros.ros.camera import FramePolicy
from mobilevlm_ros.runtime.errors import ErrorCode
from tests.system.graph import Camera, Process, fails, running_node, until, until_seen

NAME = "chat_vlm"
LONG = 1500


@pytest.fixture(scope="module")
def node(random_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    log = tmp_path_factory.mktemp("chat") / "node.log"
    with running_node(NAME, log, model=random_package, max_image_age=1000.0, max_tokens=20) as process:
        yield process


@pytest.fixture(scope="module")
def camera(tester: Node, node: Process) -> Camera:
    camera = Camera(tester, "image")
    camera.wait_for_listener()
    return camera


@pytest.fixture(scope="module")
def vlm(tester: Node, camera: Camera) -> VLM:
    client = VLM(tester, NAME)
    client.wait_until_there(30.0)
    until_seen(client, camera)
    return client


def test_the_pieces_add_up_to_the_answer(vlm: VLM) -> None:
    stream = vlm.chat("What do you see?", max_tokens=100)
    pieces = list(stream)
    assert stream.answer is not None
    assert len(pieces) > 1
    assert "".join(pieces).strip() == stream.answer.text
    assert stream.answer.info.answer_tokens == 100


def test_a_conversation_goes_on_with_what_was_said(vlm: VLM) -> None:
    first = vlm.chat("What do you see?")
    first.text()
    second = vlm.chat("And then?", first.session)
    second.text()
    alone = vlm.chat("And then?")
    alone.text()
    assert first.answer and second.answer and alone.answer
    assert second.session == first.session != alone.session
    assert second.answer.info.prompt_tokens > alone.answer.info.prompt_tokens + 20


def test_a_conversation_can_stay_with_its_picture_or_follow_the_camera(vlm: VLM, camera: Camera) -> None:
    first = vlm.chat("What do you see?")
    first.text()
    assert first.answer
    header = camera.show()
    until(lambda: vlm.ask("What is it?").info.header == header)
    same = vlm.chat("And left of it?", first.session, frame_policy=int(FramePolicy.SAME))
    same.text()
    assert same.answer and same.answer.info.header == first.answer.info.header != header
    newest = vlm.chat("And now?", first.session, frame_policy=int(FramePolicy.NEWEST))
    newest.text()
    assert newest.answer and newest.answer.info.header == header


def test_a_history_over_the_context_loses_its_oldest_turns(vlm: VLM) -> None:
    session = ""
    for _ in range(6):
        stream = vlm.chat("word " * 300, session, max_tokens=2)
        stream.text()
        session = stream.session
    assert stream.answer and stream.answer.info.prompt_tokens <= 2048


def test_a_conversation_answers_one_message_at_a_time(vlm: VLM) -> None:
    with vlm.chat("Hello.", "mine", max_tokens=LONG) as stream:
        next(iter(stream))
    with vlm.chat("Hello.", "mine", max_tokens=LONG) as stream:
        pieces = iter(stream)
        next(pieces)
        fails(vlm.chat("Hello again.", "mine").text, ErrorCode.BUSY, "'mine'")


def test_cancelling_ends_the_goal_as_cancelled_with_the_text_so_far(vlm: VLM, tester: Node) -> None:
    client = ActionClient(tester, Chat, f"{NAME}/chat")
    assert client.wait_for_server(10.0)
    feedback: list[str] = []
    goal = Chat.Goal(message="Tell me a long story.", options=RequestOptions(max_tokens=LONG))
    sent = client.send_goal_async(goal, feedback_callback=lambda message: feedback.append(message.feedback.text))
    handle = until(lambda: sent.result())
    until(lambda: len(feedback) > 3)
    cancelled = handle.cancel_goal_async()
    outcome = handle.get_result_async()
    until(outcome.done)
    until(cancelled.done)
    result = outcome.result()
    assert result.status == GoalStatus.STATUS_CANCELED
    assert result.result.error_code == result.result.answer.error_code == ErrorCode.CANCELLED
    assert 0 < result.result.answer.info.answer_tokens < LONG
    assert result.result.answer.text
    client.destroy()


def test_a_failed_goal_is_aborted_with_its_code(vlm: VLM, tester: Node) -> None:
    client = ActionClient(tester, Chat, f"{NAME}/chat")
    assert client.wait_for_server(10.0)
    sent = client.send_goal_async(Chat.Goal(message="word " * 3000))
    outcome = until(lambda: sent.result()).get_result_async()
    until(outcome.done)
    assert outcome.result().status == GoalStatus.STATUS_ABORTED
    assert outcome.result().result.error_code == ErrorCode.PROMPT_TOO_LONG
    client.destroy()


def test_a_hundred_cancels_in_a_row_leave_the_node_ready(vlm: VLM, node: Process) -> None:
    for number in range(100):
        stream = vlm.chat("Tell me a long story.", max_tokens=LONG)
        if number % 2:
            next(iter(stream))  # the others are cancelled before a word has come
        stream.close()
        assert stream.answer and stream.answer.error_code == ErrorCode.CANCELLED
    assert vlm.ask("Still there?").info.answer_tokens == 20
    assert node.ended is None


def test_a_cancelled_turn_is_not_part_of_its_conversation(vlm: VLM) -> None:
    stream = vlm.chat("Tell me a long story.", "kept", max_tokens=LONG)
    next(iter(stream))
    stream.close()
    after = vlm.chat("And then?", "kept")
    after.text()
    alone = vlm.chat("And then?")
    alone.text()
    assert after.answer and alone.answer
    assert after.answer.info.prompt_tokens == alone.answer.info.prompt_tokens

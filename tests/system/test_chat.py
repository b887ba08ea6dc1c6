"""The chat action: streaming, conversations and cancelling, over real DDS."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from action_msgs.msg import GoalStatus
from mobilevlm_msgs.action import Chat
from mobilevlm_msgs.msg import RequestOptions
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.parameter import Parameter

from mobilevlm_ros.client import VLM, Conversation, FramePolicy
from mobilevlm_ros.runtime.errors import ErrorCode
from tests.system.graph import Caller, Camera, Process, Served, be_known, fails, serving, until

NAME = "chat_vlm"
LONG = 1500


@pytest.fixture(scope="module")
def served(tester: Node, random_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tester, NAME, tmp_path_factory.mktemp("chat"), model=random_package, max_tokens=20) as served:
        yield served


@contextmanager
def parameter(tester: Node, name: str, value: float, afterwards: float) -> Iterator[None]:
    """Sets a parameter of the node for as long as the block runs."""
    change = Caller(tester, SetParameters, f"/{NAME}/set_parameters")

    def put(number: float) -> None:
        request = SetParameters.Request(parameters=[Parameter(name, value=number).to_parameter_msg()])
        assert change(request).results[0].successful

    put(value)
    try:
        yield
    finally:
        put(afterwards)
        change.close()


def _turns(talk: Conversation) -> int:
    """How many earlier turns the next one takes into account."""
    stream = talk.say("And then?")
    stream.text()
    return stream.turns


def _prompt_tokens(talk: Conversation, message: str) -> int:
    stream = talk.say(message)
    stream.text()
    assert stream.answer
    return int(stream.answer.info.prompt_tokens)


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
    same = vlm.chat("And left of it?", first.session, frame_policy=FramePolicy.SAME)
    same.text()
    assert same.answer and same.answer.info.header == first.answer.info.header != header
    newest = vlm.chat("And now?", first.session, frame_policy=FramePolicy.NEWEST)
    newest.text()
    assert newest.answer and newest.answer.info.header == header


def test_a_history_over_the_context_loses_its_oldest_turns_and_says_so(vlm: VLM) -> None:
    talk = Conversation(vlm, max_tokens=2)
    told = []
    for _ in range(7):
        stream = talk.say("word " * 80)
        stream.text()
        told.append((stream.turns, stream.turns_left_out))
    assert told[:3] == [(0, 0), (1, 0), (2, 0)]
    assert told[-1][1] > told[2][1]
    assert [turns + left_out for turns, left_out in told] == list(range(7))


def test_a_history_that_fills_the_context_leaves_the_next_answer_its_room(vlm: VLM) -> None:
    talk = Conversation(vlm, max_tokens=2)
    for _ in range(5):
        talk.say("word " * 80).text()
    stream = talk.say("And then?", max_tokens=400)
    stream.text()
    assert stream.turns_left_out > 0
    assert stream.answer and stream.answer.info.answer_tokens == 400


def test_conversations_side_by_side_do_not_mix(vlm: VLM) -> None:
    messages = ("What do you see?", "And left of it, behind the other one?", "Why?")
    alone = Conversation(vlm, frame_policy=FramePolicy.SAME)
    expected = [_prompt_tokens(alone, message) for message in messages]
    first, second = (Conversation(vlm, frame_policy=FramePolicy.SAME) for _ in range(2))
    found = [(_prompt_tokens(first, message), _prompt_tokens(second, message)) for message in messages]
    assert found == [(tokens, tokens) for tokens in expected]
    with first.say("Tell me a long story.", max_tokens=200) as one, second.say("Tell me another.", max_tokens=200) as other:
        assert (one.text() != "", other.text() != "") == (True, True)
    assert (one.turns, other.turns) == (3, 3)


def test_one_conversation_too_many_takes_the_place_of_the_one_that_rested_longest(vlm: VLM, tester: Node) -> None:
    with parameter(tester, "chat_sessions", 2, 16):
        first, second, third = (Conversation(vlm, max_tokens=2) for _ in range(3))
        for talk in (first, second, first, third):
            talk.say("What do you see?").text()
        assert [_turns(talk) for talk in (first, third)] == [2, 1]
        assert _turns(second) == 0  # it was forgotten and begins anew, as its result says


def test_a_conversation_that_rests_too_long_is_forgotten(vlm: VLM, tester: Node) -> None:
    with parameter(tester, "chat_timeout", 1.0, 600.0):

        def kept() -> Conversation | None:
            talk = Conversation(vlm, max_tokens=2)
            return talk if [_turns(talk), _turns(talk)] == [0, 1] else None  # a machine that is slow just now forgets it between

        talk = until(kept)
        time.sleep(1.2)
        assert _turns(talk) == 0


def test_a_conversation_answers_one_message_at_a_time(vlm: VLM) -> None:
    with vlm.chat("Hello.", "mine", max_tokens=LONG) as stream:
        next(iter(stream))
    with vlm.chat("Hello.", "mine", max_tokens=LONG) as stream:
        pieces = iter(stream)
        next(pieces)
        fails(vlm.chat("Hello again.", "mine").text, ErrorCode.BUSY, "'mine'")


def test_cancelling_ends_the_goal_as_cancelled_with_the_text_so_far(vlm: VLM, tester: Node) -> None:
    client = ActionClient(tester, Chat, f"{NAME}/chat")
    until(client.server_is_ready)
    be_known(tester, f"/{NAME}")
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
    until(client.server_is_ready)
    be_known(tester, f"/{NAME}")
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


def test_a_turn_cancelled_in_the_middle_is_not_part_of_its_conversation_which_goes_on(vlm: VLM) -> None:
    talk, undisturbed = Conversation(vlm), Conversation(vlm)
    for one in (talk, undisturbed):
        one.say("What do you see?").text()
    stream = talk.say("Tell me a long story.", max_tokens=LONG)
    next(iter(stream))
    stream.close()
    assert _prompt_tokens(talk, "And then?") == _prompt_tokens(undisturbed, "And then?")
    assert _turns(talk) == 2

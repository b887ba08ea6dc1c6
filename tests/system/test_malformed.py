"""Messages that are not what their type promises, as a defective or hostile program may send them, and services after them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from mobilevlm_msgs.msg import Answer
from mobilevlm_msgs.srv import Ask, Ground, SelectModel
from rclpy.node import Node
from std_msgs.msg import String

from mobilevlm_ros.client import VLM
from mobilevlm_ros.runtime.errors import ErrorCode
from tests.system.graph import PATIENCE, Caller, Camera, Listener, Process, fails, running_node, until, until_seen
from tests.system.usage import send_with_bytes

NAME = "malformed_vlm"
NOT_TEXT = (b"\xff\xfe\xc3\x28\xed\xa0", b"\x80\x81\x82", b"ok\xf5\x90\x80\x80", b"\xc0\xaf")
NOT_MESSAGES = (b"\x00\x01\x00\x00\xff\xff\xff\x7fabc", b"\x00\x01\x00\x00\x05\x00\x00\x00ab", b"\x00\x01\x00\x00")


@pytest.fixture(scope="module")
def node(nano_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    log = tmp_path_factory.mktemp("malformed") / "node.log"
    with running_node(NAME, log, model=nano_package, max_image_age=1000.0, max_tokens=4) as process:
        yield process


@pytest.fixture(scope="module")
def vlm(tester: Node, node: Process) -> VLM:
    camera = Camera(tester, "image")
    camera.wait_for_listener()
    client = VLM(tester, NAME)
    client.wait_until_there(PATIENCE)
    until_seen(client, camera)
    return client


@pytest.mark.parametrize("text", NOT_TEXT)
def test_a_service_serves_on_after_a_request_that_is_not_utf8(vlm: VLM, tester: Node, text: bytes) -> None:
    filler = "x" * len(text)
    for kind, name, request in (
        (Ask, "ask", Ask.Request(question=filler)),
        (Ground, "ground", Ground.Request(expression=filler)),
        (SelectModel, "select_model", SelectModel.Request(name=filler)),
    ):
        client = tester.create_client(kind, f"{NAME}/{name}")
        until(client.service_is_ready)
        send_with_bytes(client, request, text)
        tester.destroy_client(client)
    assert vlm.ask("What is it?").error_code == ErrorCode.NONE
    fails(lambda: vlm.ground(""), ErrorCode.BAD_REQUEST)
    fails(lambda: vlm.select_model("nobody"), ErrorCode.BAD_REQUEST)


def test_the_prompt_topic_serves_on_after_bytes_that_are_no_message(vlm: VLM, tester: Node, node: Process) -> None:
    answers = Listener(tester, Answer, f"{NAME}/answer")
    prompts = tester.create_publisher(String, "prompt", 10)
    until(prompts.get_subscription_count)
    for data in NOT_MESSAGES:
        prompts.publish(data)
    prompts.publish(String(data="Is it still there?"))
    assert answers.first(lambda answer: answer.question == "Is it still there?").error_code == ErrorCode.NONE
    tester.destroy_publisher(prompts)


def test_the_lifecycle_serves_on_after_a_transition_that_does_not_exist(vlm: VLM, tester: Node) -> None:
    change = Caller(tester, ChangeState, f"/{NAME}/change_state")
    state = Caller(tester, GetState, f"/{NAME}/get_state")
    assert not change(ChangeState.Request(transition=Transition(id=255, label="\ufffd" * 100))).success
    assert state(GetState.Request()).current_state.id == State.PRIMARY_STATE_ACTIVE

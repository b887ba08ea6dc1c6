"""The blocking client in a plain script, beside an executor, in a callback, and without a node to talk to."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from mobilevlm_msgs.msg import Answer
from rclpy.executors import Executor, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node

from mobilevlm_ros.client import VLM, ClientUsageError, Conversation, VlmError
from mobilevlm_ros.runtime.errors import ErrorCode
from tests.system.graph import (
    PATIENCE,
    SOON,
    Caller,
    Camera,
    Listener,
    Process,
    Served,
    fails,
    is_taken_back,
    serving,
    until,
    until_seen,
)

NAME = "client_vlm"
LONG = 1500


@pytest.fixture(scope="module")
def served(tester: Node, random_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tester, NAME, tmp_path_factory.mktemp("client"), model=random_package, max_tokens=30) as served:
        yield served


def run_script(folder: Path, body: str) -> subprocess.Popen[str]:
    """Starts a script with a client of its own."""
    script = folder / "script.py"
    head = f"""
        import rclpy
        from mobilevlm_ros.client import VLM
        rclpy.init()
        node = rclpy.create_node("script")
        vlm = VLM(node, "{NAME}", connect_timeout={PATIENCE})
    """
    script.write_text(textwrap.dedent(head) + textwrap.dedent(body))
    return subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_plain_script_needs_no_executor(vlm: VLM, tmp_path: Path) -> None:
    body = """
        vlm.wait_until_ready(60.0)
        print(vlm.ask("What is it?").info.answer_tokens)
        stream = vlm.chat("Tell me more.")
        pieces = list(stream)
        print("".join(pieces).strip() == stream.answer.text, len(pieces) > 1)
        for piece in vlm.chat("Tell me a long story.", max_tokens=1500):
            break
        rclpy.spin_once(node, timeout_sec=0.0)  # takes the node and gives it back to nobody
        print(vlm.classify("Which?", ["a", "b"]).label in "ab")
        node.destroy_node()
        rclpy.shutdown()
    """
    script = run_script(tmp_path, body)
    output, errors = script.communicate(timeout=PATIENCE)
    assert (script.returncode, output) == (0, "30\nTrue True\nTrue\n"), errors


def test_an_answer_prints_as_its_text_and_tells_of_its_picture(vlm: VLM, camera: Camera) -> None:
    def newest_is_seen() -> bool:
        header = camera.show()
        time.sleep(0.05)
        return bool(vlm.ask("What is it?", max_tokens=1).header == header)

    until(newest_is_seen)
    answer = vlm.ask("What is it?", max_tokens=5)
    assert str(answer) == answer.text
    assert f"{answer}" in repr(answer)
    assert answer.question == "What is it?"
    assert answer.camera == "camera"
    assert 0 < answer.confidence <= 1


def test_a_classification_prints_as_its_label_with_a_probability_for_each(vlm: VLM) -> None:
    result = vlm.classify("Which?", ["red", "green"])
    assert str(result) in result.labels == ("red", "green")
    assert sum(result.probabilities) == pytest.approx(1.0, abs=1e-4)


def test_leaving_the_loop_takes_the_message_back(vlm: VLM) -> None:
    def leave() -> int:
        started = time.monotonic()
        stream = vlm.chat("Tell me a long story.", max_tokens=LONG)
        for _ in stream:
            break
        assert time.monotonic() - started < SOON
        assert stream.answer
        return stream.answer.error_code

    assert is_taken_back(leave)


def test_an_exception_in_the_loop_takes_the_message_back(vlm: VLM) -> None:
    def interrupt() -> int:
        stream = vlm.chat("Tell me a long story.", max_tokens=LONG)
        with pytest.raises(KeyboardInterrupt):
            for _ in stream:
                raise KeyboardInterrupt
        assert stream.answer
        return stream.answer.error_code

    assert is_taken_back(interrupt)


def test_ctrl_c_in_a_script_takes_the_message_back_although_it_shuts_ros_down(vlm: VLM, tester: Node, tmp_path: Path) -> None:
    heard = Listener(tester, Answer, f"/{NAME}/answer")
    body = """
        try:
            for piece in vlm.chat("Tell me about Ctrl-C.", max_tokens=1900):
                print("piece", flush=True)
        except KeyboardInterrupt:
            while rclpy.ok():  # Ctrl-C shuts it down in a thread of its own
                pass
            print("interrupted")
    """

    def interrupt() -> int:
        heard.messages.clear()
        script = run_script(tmp_path, body)
        assert script.stdout and script.stdout.readline() == "piece\n"
        script.send_signal(signal.SIGINT)
        output, errors = script.communicate(timeout=PATIENCE)
        code = int(heard.first(lambda message: message.question == "Tell me about Ctrl-C.").error_code)
        assert code == ErrorCode.NONE or output.endswith("interrupted\n"), errors
        return code

    assert is_taken_back(interrupt)


def test_a_loop_that_is_left_after_ros_was_shut_down_takes_the_message_back(vlm: VLM, tester: Node, tmp_path: Path) -> None:
    heard = Listener(tester, Answer, f"/{NAME}/answer")
    body = """
        for piece in vlm.chat("Tell me about the end.", max_tokens=1900):
            rclpy.shutdown()
            break
    """

    def leave() -> int:
        heard.messages.clear()
        script = run_script(tmp_path, body)
        _, errors = script.communicate(timeout=PATIENCE)
        assert script.returncode == 0, errors
        return int(heard.first(lambda message: message.question == "Tell me about the end.").error_code)

    assert is_taken_back(leave)


@pytest.mark.parametrize("kind", [SingleThreadedExecutor, MultiThreadedExecutor])
def test_a_blocking_call_in_a_callback_of_the_nodes_executor_is_refused_at_once(
    vlm: VLM, tester: Node, kind: type[Executor]
) -> None:
    node = Node("in_callback", context=tester.context, use_global_arguments=False)
    executor = kind(context=tester.context)
    executor.add_node(node)
    client = VLM(node, NAME)
    calls: list[Callable[[], Any]] = [
        lambda: client.ask("What is it?"),
        lambda: client.chat("What is it?"),
        client.list_models,
        client.wait_until_ready,
        client.wait_until_there,
    ]
    try:
        for call in calls:
            called = executor.create_task(call)
            started = time.monotonic()
            while not called.done():
                with suppress(ClientUsageError):  # it comes out of the executor, too
                    executor.spin_once(timeout_sec=0.1)
            assert time.monotonic() - started < SOON
            with pytest.raises(ClientUsageError, match="'in_callback' would wait for itself: use AsyncVLM"):
                called.result()
    finally:
        executor.shutdown()
        node.destroy_node()


def test_a_callback_that_a_plain_scripts_own_waiting_runs_is_refused_too(vlm: VLM, tester: Node) -> None:
    node = Node("plain", context=tester.context, use_global_arguments=False)
    client = VLM(node, NAME)
    refused: list[str] = []

    def call() -> None:
        try:
            client.ask("What is it?")
        except ClientUsageError as error:
            refused.append(str(error))

    node.create_timer(0.01, call)
    assert client.ask("What is it?").info.answer_tokens == 30
    assert refused
    node.destroy_node()


def test_an_executor_that_nobody_spins_is_named_in_the_error(vlm: VLM, tester: Node) -> None:
    node = Node("still", context=tester.context, use_global_arguments=False)
    executor = SingleThreadedExecutor(context=tester.context)
    executor.add_node(node)
    client = VLM(node, NAME, connect_timeout=0.2)
    fails(lambda: client.ask("What is it?", timeout=0.1), ErrorCode.DEADLINE_EXCEEDED, "the executor of the node 'still' is not")
    executor.shutdown()
    node.destroy_node()


def test_waiting_until_ready_says_which_state_the_node_is_in(vlm: VLM, camera: Camera, tester: Node) -> None:
    change = Caller(tester, ChangeState, f"/{NAME}/change_state")

    def to(transition: int) -> None:
        assert change(ChangeState.Request(transition=Transition(id=transition))).success

    to(Transition.TRANSITION_DEACTIVATE)
    fails(
        lambda: vlm.wait_until_ready(0.3), ErrorCode.NOT_ACTIVE, f"is inactive, not active: `ros2 lifecycle set {NAME} activate`"
    )
    to(Transition.TRANSITION_ACTIVATE)
    vlm.wait_until_ready(PATIENCE)
    until_seen(vlm, camera)


def test_a_node_that_is_not_there_is_told_in_time_and_which_one_is(tester: Node, node: Process) -> None:
    started = time.monotonic()
    vlm = VLM(tester, "nobody", connect_timeout=0.3)
    fails(lambda: vlm.ask("Are you there?"), ErrorCode.NOT_ACTIVE, "ROS_DOMAIN_ID")
    fails(lambda: vlm.chat("Are you there?"), ErrorCode.NOT_ACTIVE, f"'nobody' within 0.3 s, but there is '/{NAME}'")
    fails(vlm.wait_until_there, ErrorCode.NOT_ACTIVE, "'nobody'")
    fails(vlm.wait_until_ready, ErrorCode.NOT_ACTIVE, "'nobody'")
    assert time.monotonic() - started < SOON


def test_a_conversation_keeps_its_session_to_itself(vlm: VLM) -> None:
    talk = Conversation(vlm, max_tokens=5)
    told = []
    for message in ("What is it?", "And then?"):
        stream = talk.say(message)
        stream.text()
        told.append((stream.session, stream.turns))
    assert told == [(talk.session, 0), (talk.session, 1)]
    assert Conversation(vlm).session != talk.session


def test_an_option_that_does_not_exist_is_a_type_error(vlm: VLM) -> None:
    options: Any = {"colour": "red"}
    with pytest.raises(TypeError, match="colour"):
        vlm.ask("What is it?", **options)


def test_a_script_that_imports_the_client_loads_no_model_runtime() -> None:
    code = "import mobilevlm_ros.client, sys; print([m for m in ('onnxruntime', 'torch', 'sentencepiece') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_an_error_tells_its_code_and_one_line(vlm: VLM) -> None:
    with pytest.raises(VlmError) as caught:
        vlm.ask("   ")
    assert caught.value.code is ErrorCode.BAD_REQUEST
    assert str(caught.value) == caught.value.message == "the question is empty"

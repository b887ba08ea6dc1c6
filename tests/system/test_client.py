"""The Python client in a plain script, beside an executor, and without a node to talk to."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rclpy.node import Node

from mobilevlm_ros.client import VLM
from mobilevlm_ros.runtime.errors import ErrorCode
from tests.system.graph import Camera, Process, fails, running_node, until_seen

NAME = "client_vlm"


@pytest.fixture(scope="module")
def node(random_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    log = tmp_path_factory.mktemp("client") / "node.log"
    with running_node(NAME, log, model=random_package, max_image_age=1000.0, max_tokens=30) as process:
        yield process


@pytest.fixture(scope="module")
def vlm(tester: Node, node: Process) -> VLM:
    vlm = VLM(tester, NAME, connect_timeout=30.0)
    until_seen(vlm, Camera(tester, "image"))
    return vlm


def test_a_plain_script_needs_no_executor(vlm: VLM, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import rclpy
        from mobilevlm_ros.client import VLM
        rclpy.init()
        node = rclpy.create_node("script")
        vlm = VLM(node, "{NAME}")
        print(vlm.ask("What is it?").info.answer_tokens)
        stream = vlm.chat("Tell me more.")
        pieces = list(stream)
        print("".join(pieces).strip() == stream.answer.text, len(pieces) > 1)
        for piece in vlm.chat("Tell me a long story.", max_tokens=1500):
            break
        print(vlm.classify("Which?", ["a", "b"]).label in "ab")
        node.destroy_node()
        rclpy.shutdown()
        """)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "30\nTrue True\nTrue\n"), done.stderr


def test_leaving_the_loop_takes_the_request_back(vlm: VLM) -> None:
    started = time.monotonic()
    stream = vlm.chat("Tell me a long story.", max_tokens=1500)
    for _ in stream:
        break
    assert stream.answer and stream.answer.error_code == ErrorCode.CANCELLED
    assert time.monotonic() - started < 2.0


def test_a_node_that_is_not_there_is_told_in_time(tester: Node) -> None:
    started = time.monotonic()
    vlm = VLM(tester, "nobody", connect_timeout=0.3)
    fails(lambda: vlm.ask("Are you there?"), ErrorCode.NOT_ACTIVE, "ROS_DOMAIN_ID")
    fails(lambda: vlm.chat("Are you there?"), ErrorCode.NOT_ACTIVE, "'nobody'")
    assert time.monotonic() - started < 3.0


def test_an_option_that_does_not_exist_is_a_type_error(vlm: VLM) -> None:
    with pytest.raises(TypeError, match="colour"):
        vlm.ask("What is it?", colour="red")


def test_a_script_that_imports_the_client_loads_no_model_runtime() -> None:
    code = "import mobilevlm_ros.client, sys; print([m for m in ('onnxruntime', 'torch', 'sentencepiece') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"

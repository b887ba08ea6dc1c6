"""The examples, each as a user runs it, with the shipped model and the demo's recorded camera."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rclpy.node import Node
from std_msgs.msg import String

from mobilevlm_ros.client import VLM, FramePolicy
from mobilevlm_ros.demo.run import BAG
from tests.system.graph import PATIENCE, Listener, Process, running_node, until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TOPIC = "/camera/image_raw"
ORANGE_BALL = "0"  # the number of a picture of the recording


@pytest.fixture(scope="module")
def vlm(tester: Node, nano_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLM]:
    """The node `mobilevlm` with two cameras that both show the recording's first scene."""
    folder = tmp_path_factory.mktemp("examples")
    player = Process([sys.executable, "-m", "mobilevlm_ros.demo.player", str(BAG), "--only", ORANGE_BALL], folder / "camera.log")
    remap = [f"{camera}/image:={TOPIC}" for camera in ("front", "rear")]
    try:
        with running_node("mobilevlm", folder / "node.log", remap, model=nano_package, cameras=("front", "rear")):
            client = VLM(tester)
            client.wait_until_ready(PATIENCE)
            for camera in ("front", "rear"):
                client.ask("Is somebody there?", camera=camera, frame_policy=FramePolicy.NEXT, timeout=PATIENCE)
            yield client
    finally:
        player.stop()


def run(name: str, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, input=typed, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_the_demos_camera_publishes_each_topic_once(vlm: VLM, tester: Node) -> None:
    assert until(lambda: tester.count_publishers(f"{TOPIC}/compressed")) == 1


@pytest.mark.parametrize(("thing", "code", "last"), [("an orange ball", 0, "act: SUCCESS"), ("a green bowl", 1, "act: INVALID")])
def test_a_behaviour_tree_acts_only_where_the_answer_is_yes(vlm: VLM, thing: str, code: int, last: str) -> None:
    pytest.importorskip("py_trees", reason="the example is for py_trees")
    done = run("check_table.py", f"Is there {thing} on the table?")
    assert done.returncode == code, done.stderr
    assert f"Is there {thing} on the table?: {'FAILURE No' if code else 'SUCCESS Yes'}, " in done.stdout
    assert last in done.stdout


def test_a_behaviour_tree_fails_with_the_reason_where_there_is_no_answer(vlm: VLM) -> None:
    pytest.importorskip("py_trees", reason="the example is for py_trees")
    done = run("check_table.py", "word " * 3000)
    assert done.returncode == 1
    assert "FAILURE PROMPT_TOO_LONG: the prompt has " in done.stdout


def test_what_is_heard_is_answered_aloud_and_other_peoples_answers_are_not(vlm: VLM, tester: Node, tmp_path: Path) -> None:
    voice = Process([sys.executable, str(EXAMPLES / "voice.py")], tmp_path / "voice.log")
    prompt = tester.create_publisher(String, "prompt", 10)
    said = Listener(tester, String, "speech")

    def is_answered() -> bool:
        prompt.publish(String(data="How many objects are on the table?"))
        time.sleep(1.0)
        return bool(said.messages)

    try:
        until(is_answered)  # an answer before the node has discovered the voice is lost
        vlm.ask("What color is the cube?")
        done = run("terminal_speech.py", typed="What color is the ball?\n\nWhat shape is the red object?\n")
    finally:
        assert voice.stop() == 0, voice.log
    assert (done.returncode, done.stdout) == (0, "Orange\nCone\n"), done.stderr
    assert {message.data for message in said.messages} == {"3", "Orange", "Cone"}


def test_several_cameras_are_asked_at_once(vlm: VLM) -> None:
    done = run("ask_cameras.py", "What color is the ball?", "front", "rear")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["front: Orange", "rear: Orange"]


def test_a_camera_that_is_not_there_is_told_and_the_others_answer(vlm: VLM) -> None:
    done = run("ask_cameras.py", "What color is the ball?", "front", "top")
    assert done.returncode == 1
    assert done.stdout == "front: Orange\n"
    assert done.stderr.startswith("top: BAD_REQUEST: ")


def test_a_standing_query_tells_its_first_answer(vlm: VLM) -> None:
    done = run("watch_door.py", "What color is the ball?", "--changes", "1", "--every", "0.2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1:] == ["Orange"]

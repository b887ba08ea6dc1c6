"""The launch file, executed by a recorder, and the node it describes, started for real."""

from __future__ import annotations

import signal
import time
from functools import partial
from pathlib import Path

import pytest
from builtin_interfaces.msg import Time
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage

from mobilevlm_ros.client import VLM
from mobilevlm_ros.demo.player import read
from mobilevlm_ros.demo.run import BAG
from mobilevlm_ros.ros.camera import stamp_ns
from mobilevlm_ros.ros.dds import VARIABLES
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from tests.system.graph import PATIENCE, Caller, Camera, fails, until, until_seen
from tests.system.launch_recorder import Launched, record

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILE = ROOT / "launch" / "mobilevlm.launch.py"


def test_every_argument_has_a_default() -> None:
    assert set(record(LAUNCH_FILE).arguments) >= {
        "model", "image", "cameras", "namespace", "preset", "params_file", "autostart", "threads", "use_sim_time", "bag",
        "bag_delay", "respawn", "log_level",
    }  # fmt: skip


def test_an_argument_that_is_not_given_leaves_its_parameter_to_the_file() -> None:
    (node,) = record(LAUNCH_FILE).nodes
    assert node.parameters == [str(ROOT / "config" / "mobilevlm.yaml"), {"use_sim_time": False}]


def test_arguments_reach_the_node() -> None:
    (node,) = record(
        LAUNCH_FILE, model="/models/x", threads="3", autostart="false", use_sim_time="true", respawn="true", log_level="debug",
        params_file="/mine.yaml", image="/cam/image_raw", namespace="robot",
    ).nodes  # fmt: skip
    assert node.parameters == ["/mine.yaml", {"model": "/models/x", "threads": 3, "autostart": False, "use_sim_time": True}]
    assert node.remappings == [("image", "/cam/image_raw")]
    assert node.arguments == ["--ros-args", "--log-level", "debug"]
    assert (node.namespace, node.respawn, node.output) == ("robot", True, "screen")


def test_the_large_image_profile_is_set_unless_the_user_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    (node,) = record(LAUNCH_FILE).nodes
    assert set(node.additional_env) == set(VARIABLES)
    assert all(Path(path).is_file() for path in node.additional_env.values())
    monkeypatch.setenv(VARIABLES[0], "/mine.xml")
    (node,) = record(LAUNCH_FILE).nodes
    assert node.additional_env == {}


def test_the_launched_node_answers(random_package: Path, tmp_path: Path, tester: Node) -> None:
    (node,) = record(LAUNCH_FILE, model=str(random_package), namespace="robot", image="/launched/image_raw").nodes
    with Launched(node, tmp_path) as launched:
        vlm = VLM(tester, "/robot/mobilevlm", connect_timeout=PATIENCE)
        until_seen(vlm, Camera(tester, "/launched/image_raw"))
        launched.processes[0].send(signal.SIGINT)
        assert launched.processes[0].wait() == 0
        time.sleep(0.2)
        assert len(launched.processes) == 1  # it was not to be respawned


def test_one_model_serves_the_cameras_that_are_named(random_package: Path, tmp_path: Path, tester: Node) -> None:
    (node,) = record(
        LAUNCH_FILE, model=str(random_package), namespace="many", preset="cpu", cameras="left=/l/image_raw, right=/r/image_raw"
    ).nodes
    with Launched(node, tmp_path):
        vlm = VLM(tester, "/many/mobilevlm", connect_timeout=PATIENCE)
        for name, topic in (("left", "/l/image_raw"), ("right", "/r/image_raw")):
            camera = Camera(tester, topic)
            camera.wait_for_listener()
            until(partial(_seen, vlm, camera, name))


def _seen(vlm: VLM, camera: Camera, name: str) -> bool:
    header = camera.show()
    try:
        info = vlm.ask("What is it?", camera=name, max_tokens=1, timeout=2.0).info
    except VlmError as error:
        assert error.code in (ErrorCode.NO_IMAGE, ErrorCode.STALE_IMAGE, ErrorCode.NOT_ACTIVE, ErrorCode.DEADLINE_EXCEEDED), error
        return False
    return bool(info.camera == name and info.header == header)


@pytest.mark.parametrize(
    ("cameras", "names", "remappings"),
    [
        ("front=/front/image_raw", ["front"], [("image", "/front/image_raw")]),
        ("a=/a/raw,b=/b/raw", ["a", "b"], [("a/image", "/a/raw"), ("b/image", "/b/raw")]),
        ("a,b", ["a", "b"], []),
    ],
)
def test_cameras_are_told_by_name_and_topic(cameras: str, names: list[str], remappings: list[tuple[str, str]]) -> None:
    (node,) = record(LAUNCH_FILE, cameras=cameras).nodes
    assert node.parameters[-1]["cameras"] == names
    assert node.remappings == remappings


def test_a_preset_stands_between_the_defaults_and_the_users_own_file() -> None:
    config = ROOT / "config"
    (node,) = record(LAUNCH_FILE, preset="jetson").nodes
    assert node.parameters[:-1] == [str(config / "mobilevlm.yaml"), str(config / "presets" / "jetson.yaml")]
    (node,) = record(LAUNCH_FILE, preset="cpu", params_file="/mine.yaml").nodes
    assert node.parameters[:-1] == [str(config / "presets" / "cpu.yaml"), "/mine.yaml"]
    with pytest.raises(ValueError, match="cpu, jetson"):
        record(LAUNCH_FILE, preset="abacus")


def test_a_node_without_autostart_is_brought_up_by_its_lifecycle(nano_package: Path, tmp_path: Path, tester: Node) -> None:
    (node,) = record(
        LAUNCH_FILE, model=str(nano_package), namespace="low", preset="cpu", autostart="false", log_level="warn"
    ).nodes  # fmt: skip
    with Launched(node, tmp_path) as launched:
        change = Caller(tester, ChangeState, "/low/mobilevlm/change_state")
        vlm = VLM(tester, "/low/mobilevlm", connect_timeout=PATIENCE)
        fails(vlm.list_models, ErrorCode.NOT_ACTIVE)
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            assert change(ChangeState.Request(transition=Transition(id=transition))).success, launched.log
        assert vlm.list_models().active
        assert "[INFO]" not in launched.log


def test_a_bag_is_played_with_its_own_clock_and_asked_about(nano_package: Path, tmp_path: Path, tester: Node) -> None:
    recording = record(LAUNCH_FILE, model=str(nano_package), namespace="replay", image="/camera/image_raw", bag="/bags/kitchen")
    (node,), (play,) = recording.nodes, recording.processes
    assert play.cmd == ["ros2", "bag", "play", "/bags/kitchen", "--clock", "--delay", "5.0"]
    with Launched(node, tmp_path):
        vlm = VLM(tester, "/replay/mobilevlm", connect_timeout=PATIENCE)
        # ros2 bag is not to be had here, so this plays the bag: pictures with the stamps of their time, which is the clock's.
        clock = tester.create_publisher(Clock, "/clock", 10)
        pictures = tester.create_publisher(CompressedImage, "/camera/image_raw/compressed", 1)
        shots = [message.cdr for message in read(BAG) if message.picture >= 0][:20]
        stamps = [stamp_ns(cdr) for cdr in shots]

        def asked() -> float:
            for cdr, stamp in zip(shots, stamps):
                clock.publish(Clock(clock=Time(sec=stamp // 10**9, nanosec=stamp % 10**9)))
                pictures.publish(cdr)
                time.sleep(0.02)
            try:
                header = vlm.ask("What color is the ball?", timeout=2.0).info.header
            except VlmError as error:
                assert error.code in (ErrorCode.NO_IMAGE, ErrorCode.NOT_ACTIVE, ErrorCode.DEADLINE_EXCEEDED), error
                return 0
            return header.stamp.sec * 10**9 + header.stamp.nanosec

        assert until(asked, 30.0) in stamps
        tester.destroy_publisher(clock)
        tester.destroy_publisher(pictures)

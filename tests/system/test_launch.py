"""The launch file, executed by a recorder, and the node it describes, started for real."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from rclpy.node import Node

from mobilevlm_ros.client import VLM
from mobilevlm_ros.ros.dds import VARIABLES
from tests.system.graph import Camera, Process, until_seen
from tests.system.launch_recorder import record

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILE = ROOT / "launch" / "mobilevlm.launch.py"


def test_every_argument_has_a_default() -> None:
    assert set(record(LAUNCH_FILE).arguments) >= {
        "model", "image", "namespace", "params_file", "autostart", "threads", "use_sim_time", "respawn", "log_level"
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
    process = Process(node.command(tmp_path), tmp_path / "node.log", {**os.environ, **node.additional_env})
    try:
        vlm = VLM(tester, "/robot/mobilevlm", connect_timeout=30.0)
        until_seen(vlm, Camera(tester, "/launched/image_raw"))
        process.send(signal.SIGINT)
        assert process.wait() == 0
    finally:
        process.stop()


def test_a_node_that_was_killed_serves_again_when_it_is_launched_again(
    random_package: Path, tmp_path: Path, tester: Node
) -> None:
    (node,) = record(LAUNCH_FILE, model=str(random_package), namespace="phoenix", image="/phoenix/image_raw").nodes
    camera = Camera(tester, "/phoenix/image_raw")
    # Until DDS has given the killed process up, its requests may go nowhere: hence the short time-out.
    vlm = VLM(tester, "/phoenix/mobilevlm", timeout=1.0, connect_timeout=30.0)
    for number in (signal.SIGKILL, signal.SIGINT):
        process = Process(node.command(tmp_path), tmp_path / "node.log", {**os.environ, **node.additional_env})
        try:
            until_seen(vlm, camera, seconds=30.0)
            process.send(number)
            process.wait()
        finally:
            process.stop()

"""`mobilevlm doctor --graph` against real nodes: it is content with a healthy graph and finds each mistake made on purpose."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from lifecycle_msgs.srv import GetState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from mobilevlm_ros.cli import main
from mobilevlm_ros.client import VLM, spinning
from mobilevlm_ros.ros.annotate import image_message
from mobilevlm_ros.ros.dds import VARIABLES
from mobilevlm_ros.ros.wiring import observing
from tests.system.graph import PATIENCE, Camera, Process, picture, running_node, until

Findings = dict[tuple[str, str], dict[str, str]]

CAMERAS = ("good", "lost", "typed", "strict", "silent", "odd", "deep", "late", "packed")
MIXED, HEALTHY, ASLEEP = "wiring_mixed", "wiring_healthy", "wiring_asleep"

BURST = """
import sys, time, rclpy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("burst")
camera = node.create_publisher(Image, sys.argv[1], 1)
message = Image(width=1920, height=1080, step=5760, encoding="rgb8", data=bytes(1920 * 1080 * 3))
while True:
    message.header.stamp = node.get_clock().now().to_msg()
    camera.publish(message)
    time.sleep(1 / 30)
"""


def doctor(node: str, seconds: float = 5.0) -> tuple[int, Findings]:
    """The command's exit code, and its checks by group and name."""
    with redirect_stdout(io.StringIO()) as printed:
        code = main(["doctor", "--graph", "--node", node, "--seconds", str(seconds), "--json"])
    report = json.loads(printed.getvalue())
    assert report["healthy"] == (code == 0)
    for check in report["checks"]:
        assert "\n" not in check["detail"] + check["remedy"]
        assert bool(check["remedy"]) == (check["status"] != "PASS")
    return code, {(check["group"], check["name"]): check for check in report["checks"]}


def statuses(findings: Findings, group: str) -> dict[str, str]:
    return {name: check["status"] for (where, name), check in findings.items() if where == group}


def fails(findings: Findings, group: str, name: str) -> tuple[str, str]:
    """Asserts that a check failed; returns what it found and what to do."""
    check = findings[group, name]
    assert check["status"] == "FAIL", check
    return check["detail"], check["remedy"]


@contextmanager
def publishing(node: Node, publisher: Any, message: Any, offset: float = 0.0) -> Iterator[None]:
    """Publishes a message over and over, stamped `offset` seconds from now if it has a header."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.05):
            if hasattr(message, "header"):
                stamp = node.get_clock().now().nanoseconds + round(offset * 1e9)
                message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
            publisher.publish(message)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        node.destroy_publisher(publisher)


@pytest.fixture(scope="module")
def mixed(tester: Node, nano_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Findings]:
    """What is found around a node whose cameras are wired wrongly, each in its own way."""
    parameters = {"qos_overrides./strict/image.subscription.reliability": "reliable"}
    log = tmp_path_factory.mktemp("wiring") / "node.log"
    best_effort = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
    good = image_message(picture(), Camera(tester, "unused").header())
    odd = Image(width=4, height=2, step=4, encoding="thermal14", data=bytes(8))
    deep = Image(width=4, height=2, step=8, encoding="16UC1", data=bytes(16))
    with ExitStack() as stack:
        for topic, kind, quality, message, offset in (
            ("/good/image", Image, 1, good, 0.0),
            ("/lost/image_raw", Image, 1, good, 0.0),
            ("/typed/image", String, 1, String(data="no picture"), 0.0),
            ("/strict/image", Image, best_effort, good, 0.0),
            ("/odd/image", Image, 1, odd, 0.0),
            ("/deep/image", Image, 1, deep, 0.0),
            ("/late/image", Image, 1, good, -86400.0),
            ("/packed/image/compressed", CompressedImage, 1, CompressedImage(format="jpeg", data=b"cut"), 0.0),
        ):
            publisher = tester.create_publisher(kind, topic, quality)
            stack.enter_context(publishing(tester, publisher, message, offset))
        silent = tester.create_publisher(Image, "/silent/image", 1)
        stack.enter_context(
            running_node(MIXED, log, model=nano_package, cameras=CAMERAS, image_transport="raw", camera_linger=0.0, **parameters)
        )
        until(silent.get_subscription_count)
        VLM(tester, MIXED).wait_until_ready(PATIENCE)
        code, findings = doctor(MIXED)
        tester.destroy_publisher(silent)
        assert code == 1
        yield findings


def test_a_camera_that_is_wired_rightly_passes_beside_others(mixed: Findings) -> None:
    assert set(statuses(mixed, "graph").values()) == {"PASS"}
    checks = statuses(mixed, "/good/image")
    assert set(checks) == {"publisher", "type", "QoS", "pictures", "encoding", "stamps", "losses"}
    assert set(checks.values()) == {"PASS"}
    assert "96 x 64 rgb8" in mixed["/good/image", "pictures"]["detail"]


def test_a_topic_without_a_publisher_names_the_one_to_remap_to(mixed: Findings) -> None:
    detail, remedy = fails(mixed, "/lost/image", "publisher")
    assert "/lost/image_raw" in detail
    assert "/good/image" in detail
    assert remedy.endswith("-r lost/image:=/lost/image_raw")


def test_a_publisher_of_another_type_is_named_with_its_type(mixed: Findings) -> None:
    detail, _ = fails(mixed, "/typed/image", "type")
    assert "/tester publishes std_msgs/msg/String" in detail


def test_incompatible_quality_of_service_names_the_parameter_to_set(mixed: Findings) -> None:
    detail, remedy = fails(mixed, "/strict/image", "QoS")
    assert "/tester" in detail
    assert "RELIAB" in detail.upper()
    assert remedy == "set qos_overrides./strict/image.subscription.reliability to best_effort"


def test_a_publisher_that_sends_nothing_is_found(mixed: Findings) -> None:
    detail, _ = fails(mixed, "/silent/image", "pictures")
    assert detail == "/tester sends nothing within 5 s"


def test_an_encoding_that_the_node_does_not_read_is_found(mixed: Findings) -> None:
    detail, _ = fails(mixed, "/odd/image", "encoding")
    assert "thermal14" in detail


def test_depth_in_the_place_of_colours_is_pointed_out(mixed: Findings) -> None:
    check = mixed["/deep/image", "encoding"]
    assert check["status"] == "WARN"
    assert "16UC1" in check["detail"]


def test_stamps_of_another_clock_are_found(mixed: Findings) -> None:
    detail, remedy = fails(mixed, "/late/image", "stamps")
    assert "86400" in detail
    assert "use_sim_time" in remedy


def test_a_camera_that_is_only_compressed_while_raw_is_listened_to_is_found(mixed: Findings) -> None:
    detail, remedy = fails(mixed, "/packed/image", "publisher")
    assert "only /packed/image/compressed" in detail
    assert "image_transport:=auto" in remedy


@pytest.fixture(scope="module")
def healthy(tester: Node, nano_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Camera]:
    """A node with one camera that sends pictures."""
    camera = Camera(tester, "/wiring/image")
    log = tmp_path_factory.mktemp("healthy") / "node.log"
    with running_node(HEALTHY, log, ["image:=/wiring/image"], model=nano_package, camera_linger=0.0), camera.streaming():
        camera.wait_for_listener()
        VLM(tester, HEALTHY).wait_until_ready(PATIENCE)
        yield camera


def test_a_healthy_graph_passes_in_every_check(healthy: Camera) -> None:
    code, findings = doctor(HEALTHY)
    assert code == 0
    assert {check["status"] for check in findings.values()} == {"PASS"}
    assert ("/wiring/image", "stamps") in findings


def test_without_json_each_check_is_one_line(healthy: Camera, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--graph", "--node", HEALTHY]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert all("PASS" in line for line in lines)


def test_a_node_in_another_domain_is_not_found_and_the_domain_is_told(healthy: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    other = str(int(os.environ["ROS_DOMAIN_ID"]) ^ 1)
    monkeypatch.setenv("ROS_DOMAIN_ID", other)
    code, findings = doctor(HEALTHY, seconds=1.0)
    assert code == 1
    detail, remedy = fails(findings, "graph", "node")
    assert "nodes seen: none" in detail
    assert f"ROS_DOMAIN_ID {other}" in remedy


def test_a_node_under_another_name_is_offered(healthy: Camera) -> None:
    code, findings = doctor("robot1/mobilevlm", seconds=5.0)
    assert code == 1
    detail, remedy = fails(findings, "graph", "node")
    assert f"/{HEALTHY}" in detail
    assert "--node /" in remedy


def test_a_question_whose_answer_gets_lost_is_asked_again(tester: Node) -> None:
    asked, over = [], threading.Event()

    def serve(request: GetState.Request, response: GetState.Response) -> GetState.Response:
        asked.append(request)
        if len(asked) == 1:
            over.wait(PATIENCE)  # as good as lost
        response.current_state.label = "active"
        return response

    service = tester.create_service(GetState, "/forgetful/get_state", serve, callback_group=ReentrantCallbackGroup())
    try:
        with observing() as observer:
            response = observer.call(GetState, "/forgetful/get_state", GetState.Request(), PATIENCE)
    finally:
        over.set()
    assert response.current_state.label == "active"
    assert len(asked) >= 2
    tester.destroy_service(service)


def test_a_node_that_does_not_tell_its_parameters_is_found(tester: Node) -> None:
    def serve(_: GetState.Request, response: GetState.Response) -> GetState.Response:
        response.current_state.label = "active"
        return response

    silent = Node("wiring_silent", context=tester.context, use_global_arguments=False, start_parameter_services=False)
    silent.create_service(GetState, "/wiring_silent/get_state", serve)
    with spinning(silent):
        code, findings = doctor("wiring_silent", seconds=3.0)
    silent.destroy_node()
    assert code == 1
    assert statuses(findings, "graph")["lifecycle"] == "PASS"
    assert "/wiring_silent/get_parameters does not answer" in fails(findings, "graph", "parameters")[0]


def test_an_inactive_node_is_found_with_the_command_that_activates_it(nano_package: Path, tmp_path: Path) -> None:
    with running_node(ASLEEP, tmp_path / "node.log", model=nano_package, autostart=False):
        code, findings = doctor(ASLEEP, seconds=PATIENCE)
    assert code == 1
    detail, remedy = fails(findings, "graph", "lifecycle")
    assert detail.startswith("unconfigured")
    assert remedy == f"ros2 lifecycle set /{ASLEEP} configure && ros2 lifecycle set /{ASLEEP} activate"


def test_simulated_time_without_a_clock_is_found(tester: Node, nano_package: Path, tmp_path: Path) -> None:
    name = "wiring_simulated"
    camera = Camera(tester, "/simulated/image")
    with (
        running_node(name, tmp_path / "node.log", ["image:=/simulated/image"], model=nano_package, use_sim_time=True),
        camera.streaming(),
    ):
        camera.wait_for_listener()
        VLM(tester, name).wait_until_ready(PATIENCE)
        code, findings = doctor(name)
    assert code == 1
    assert "--clock" in fails(findings, "clock", "clock")[1]


def test_pictures_lost_for_want_of_shared_memory_name_the_profile(tester: Node, nano_package: Path, tmp_path: Path) -> None:
    name = "wiring_burst"
    camera = Process([sys.executable, "-c", BURST, "/burst/image"], tmp_path / "camera.log", dict.fromkeys(VARIABLES, ""))
    try:
        with running_node(name, tmp_path / "node.log", ["image:=/burst/image"], model=nano_package):
            VLM(tester, name).wait_until_ready(PATIENCE)
            check = until(lambda: doctor(name, seconds=10.0)[1].get(("/burst/image", "losses")))  # all may be lost
    finally:
        camera.stop()
    assert check["status"] == "WARN", check
    assert "fastdds_large_images.xml" in check["remedy"]

"""The SROS 2 policies in config/sros2: they allow what the running node and its client do in the graph, and nothing else."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from mobilevlm_msgs.msg import Answer, Regions
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from mobilevlm_ros.client import VLM
from tests.system.graph import PATIENCE, Camera, own_node, running_node, until

POLICIES = Path(__file__).resolve().parents[2] / "config" / "sros2"
Rights = dict[str, set[str]]

OPTIONAL = {
    "vision_msgs": {"/mobilevlm/detections", "/mobilevlm/detections_3d"},
    "visualization_msgs": {"/mobilevlm/markers"},
    "tf2_ros": {"/tf", "/tf_static"},
}
"""Topics that the node has only where these packages are."""


def profile(file: str) -> ElementTree.Element:
    root = ElementTree.parse(POLICIES / file).getroot()
    assert root.tag == "policy"
    assert root.attrib == {"version": "0.2.0"}
    (found,) = root.findall("./enclaves/enclave/profiles/profile")
    return found


def allowed(file: str) -> Rights:
    """What a policy allows, an action as the topics and services that it is made of."""
    rights: Rights = {"publish": set(), "subscribe": set(), "reply": set(), "request": set()}
    for group in profile(file):
        ((verb, value),) = group.attrib.items()
        assert value == "ALLOW"
        names = [entry.text or "" for entry in group]
        assert names == sorted(names)
        if group.tag == "actions":
            services, topics = {"execute": ("reply", "publish"), "call": ("request", "subscribe")}[verb]
            for name in names:
                rights[services] |= {f"{name}/_action/{part}" for part in ("cancel_goal", "get_result", "send_goal")}
                rights[topics] |= {f"{name}/_action/{part}" for part in ("feedback", "status")}
        else:
            rights[verb] |= set(names)
    return rights


def is_there(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def done(observer: Node, name: str) -> Rights:
    """What a node does in the graph, as another sees it."""
    return {
        "publish": {topic for topic, _ in observer.get_publisher_names_and_types_by_node(name, "/")},
        "subscribe": {topic for topic, _ in observer.get_subscriber_names_and_types_by_node(name, "/")},
        "reply": {service for service, _ in observer.get_service_names_and_types_by_node(name, "/")},
        "request": {service for service, _ in observer.get_client_names_and_types_by_node(name, "/")},
    }


@pytest.fixture(scope="module")
def node(tester: Node, nano_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The node as it uses most: simulated time, depth, and both topics of its camera, as only the compressed one is published."""
    camera = Camera(tester, "/image/compressed", CompressedImage)
    log = tmp_path_factory.mktemp("security") / "node.log"
    frame = {"target_frame": "map"} if is_there("tf2_ros") else {}
    with running_node("mobilevlm", log, model=nano_package, use_sim_time=True, depth=True, camera_linger=0.0, **frame):
        camera.wait_for_listener()
        yield


def same(observer: Node, name: str, file: str) -> None:
    """Asserts that a node does what its policy allows and nothing else, as soon as the graph has told of all."""
    absent = {topic for package, topics in OPTIONAL.items() if not is_there(package) for topic in topics}
    expected = {verb: names - absent for verb, names in allowed(file).items()}
    until(lambda: name in observer.get_node_names())
    end = time.monotonic() + PATIENCE
    while (found := done(observer, name)) != expected and time.monotonic() < end:
        time.sleep(0.05)
    assert {verb: names - expected[verb] for verb, names in found.items()} == {verb: set() for verb in expected}, "not allowed"
    assert {verb: names - found[verb] for verb, names in expected.items()} == {verb: set() for verb in expected}, "superfluous"


def test_the_nodes_policy_allows_exactly_what_the_running_node_does(node: None, tester: Node) -> None:
    same(tester, "mobilevlm", "mobilevlm.policy.xml")


def test_the_clients_policy_allows_exactly_what_a_client_of_everything_does(node: None, tester: Node) -> None:
    with own_node("mobilevlm_client") as client:
        client.set_parameters([Parameter("use_sim_time", value=True)])
        watch = VLM(client).watch("Is the door open?")
        entities: list[Any] = [watch, client.create_publisher(String, "prompt", 10)]
        for kind, topic in ((Answer, "answer"), (Regions, "regions"), (Image, "annotated")):
            entities.append(client.create_subscription(kind, f"/mobilevlm/{topic}", lambda _: None, 10))
        same(tester, "mobilevlm_client", "mobilevlm_client.policy.xml")


@pytest.mark.parametrize("name", ["mobilevlm", "mobilevlm_client"])
def test_an_enclave_carries_its_nodes_name(name: str) -> None:
    file = f"{name}.policy.xml"
    (enclave,) = ElementTree.parse(POLICIES / file).getroot().findall("./enclaves/enclave")
    assert enclave.get("path") == f"/{name}"
    assert profile(file).attrib == {"ns": "/", "node": name}

"""The executor after a message whose taking raises, on real services of rclpy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="the executor needs ROS 2")

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from std_srvs.srv import Trigger

from mobilevlm_ros.ros.executor import SteadyExecutor
from tests.ros.steady_node import steady_node


@pytest.fixture
def node() -> Iterator[Node]:
    with steady_node("executor_test", 4) as node:
        yield node


def _call(node: Node, name: str) -> Any:
    client = node.create_client(Trigger, name)
    assert client.wait_for_service(10.0)
    return client.call_async(Trigger.Request())


def _wait(condition: Any) -> bool:
    end = time.monotonic() + 5.0
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(condition())


class _NotConvertible(type(Trigger.Request)):  # type: ignore[misc]
    """Lets rclpy's own taking raise once it has the request from the middleware: there is no way from C to Python."""

    _CONVERT_TO_PY = None


class _Request(Trigger.Request, metaclass=_NotConvertible):
    pass


class _Untakeable:
    Request = _Request
    Response = Trigger.Response


def test_a_service_and_its_group_serve_on_after_a_request_whose_taking_raises(node: Node) -> None:
    def answer(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = True
        return response

    group = MutuallyExclusiveCallbackGroup()
    service = node.create_service(Trigger, "hit", answer, callback_group=group)
    node.create_service(Trigger, "beside", answer, callback_group=group)
    service.srv_type = _Untakeable
    lost = _call(node, "hit")
    assert isinstance(executor := node.executor, SteadyExecutor)
    assert _wait(lambda: executor.dropped)
    service.srv_type = Trigger
    for name in ("hit", "beside"):
        future = _call(node, name)
        assert _wait(future.done), name
        assert future.result().success
    assert not lost.done()  # nothing is known of its sender, so it cannot be answered

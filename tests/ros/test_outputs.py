"""The result topics, where something that a request does not need cannot be made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="the outputs need ROS 2")

import rclpy
from mobilevlm_msgs.msg import Answer, Regions
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from mobilevlm_ros.ros import outputs
from mobilevlm_ros.runtime.geometry import Box
from tests.ros.fakes import snapshot


@pytest.fixture
def node() -> Iterator[Node]:
    context = rclpy.Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = Node("outputs_test", context=context, use_global_arguments=False)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_a_picture_that_cannot_be_drawn_keeps_no_result_back(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    made = outputs.Outputs(node)
    node.create_subscription(Image, "~/annotated", lambda _: None, 1)
    while not made._annotated.get_subscription_count():
        rclpy.spin_once(node, timeout_sec=0.1)
    drawn: list[Any] = []

    def draw(*arguments: Any) -> None:
        drawn.append(arguments)
        raise MemoryError

    monkeypatch.setattr(outputs, "draw", draw)
    made.answer(Answer(question="What?", text="That."), snapshot(), Box(0, 0, 1, 1))
    made.regions(Regions(expression="that"), snapshot())
    assert len(drawn) == 1  # there was nothing to draw for the regions

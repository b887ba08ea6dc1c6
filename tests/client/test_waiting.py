"""A waiting call and the end of ROS 2 in its process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from mobilevlm_ros.client.changes import Changes
from mobilevlm_ros.client.waiting import Waiter
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError


@pytest.fixture
def waiter() -> Iterator[Waiter]:
    """The waiter of a node whose ROS 2 has been shut down."""
    context = Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = Node("waits", context=context, use_global_arguments=False)
    rclpy.shutdown(context=context)
    yield Waiter(node)
    node.destroy_node()


def test_a_call_that_waits_when_ros_is_shut_down_is_cancelled(waiter: Waiter) -> None:
    with pytest.raises(VlmError, match="shut down") as caught:
        waiter.until(lambda: False, Changes(), time.monotonic() + 60.0)
    assert caught.value.code is ErrorCode.CANCELLED


def test_ctrl_c_is_a_keyboard_interrupt_also_where_it_has_shut_ros_down_before(
    waiter: Waiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mobilevlm_ros.client.waiting._INTERRUPT", 30.0)  # however late the thread below is
    late = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    late.start()
    with pytest.raises(KeyboardInterrupt):
        waiter.until(lambda: False, Changes(), time.monotonic() + 60.0)
    late.join()

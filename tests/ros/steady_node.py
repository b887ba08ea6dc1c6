"""A node on an executor as MobileVLM's own, for tests of what runs on it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from mobilevlm_ros.ros.executor import SteadyExecutor


@contextmanager
def steady_node(name: str, threads: int) -> Iterator[Node]:
    """The node, spun by an executor with so many threads."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = Node(name, context=context, use_global_arguments=False)
    executor = SteadyExecutor(threads, context=context)
    executor.add_node(node)
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.1)

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield node
    finally:
        stop.set()
        thread.join()
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)

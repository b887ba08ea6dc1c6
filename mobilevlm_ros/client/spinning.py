"""Running a node's callbacks in a thread, with an end in the right order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node


@contextmanager
def spinning(node: Node) -> Iterator[None]:
    """Runs a node's callbacks in a thread for as long as the block lasts.

        with spinning(node):
            asyncio.run(main(AsyncVLM(node)))

    The thread has ended when the block has, so that the node can be destroyed and rclpy shut down after it.
    """
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            try:
                executor.spin_once(timeout_sec=0.5)
            except InvalidHandle:  # another thread has just destroyed something of the node
                continue
            except ExternalShutdownException:
                return

    thread = threading.Thread(target=spin, name=f"{node.get_name()}-spin", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        executor.wake()
        thread.join()
        executor.remove_node(node)
        executor.shutdown()

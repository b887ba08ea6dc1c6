"""Runs the node in its process: callbacks until the end, and then the requests, the callbacks and the node, in this order.

A model that hangs cannot be ended in its process: no call into a library can be. So its requests end with MODEL_ERROR, and then
the process ends with a code of its own, for launch to start it again. Knows nothing of what the node does.
"""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from typing import TYPE_CHECKING

from rclpy.executors import Executor

from mobilevlm_ros.ros.executor import SteadyExecutor
from mobilevlm_ros.ros.throttle import Throttle

if TYPE_CHECKING:
    from mobilevlm_ros.ros.node import MobileVlmNode

LOST_MODEL = 75
"""The process's exit code where a model hangs or cannot go on. No other end of the node has it."""

LAST_SECONDS = 20.0
"""How long an end because of a lost model may take."""

FAREWELL_SECONDS = 0.5
"""How long the executor runs on after the last request has ended, because the last results leave through it."""


def run(node: MobileVlmNode, stop: threading.Event) -> bool:
    """Serves until `stop` is set or a model is lost.

    Returns:
        Whether a model was lost. Then only `os._exit(LOST_MODEL)` ends the process: Python's own end frees what the model uses.
    """
    lost = threading.Event()

    def give_up(reason: str) -> None:
        lost.set()
        last = threading.Timer(LAST_SECONDS, os._exit, (LOST_MODEL,))
        last.daemon = True
        last.start()
        faulthandler.dump_traceback()  # to the log: which call does not come back
        node.give_up(f"{reason}; the process ends with code {LOST_MODEL}, to be started again")
        stop.set()

    executor = SteadyExecutor(num_threads=node.threads)
    executor.add_node(node)
    stop_spinning = threading.Event()
    spinner = threading.Thread(target=_spin, args=(node, executor, stop_spinning), name="mobilevlm-spin")
    spinner.start()
    try:
        with node.watchdog(give_up):
            stop.wait()
    finally:
        node.close()
        time.sleep(FAREWELL_SECONDS)
        stop_spinning.set()
        executor.wake()
        spinner.join()
        _join_pool(executor)
        executor.shutdown(timeout_sec=2.0)
        node.destroy_node()
    return lost.is_set()


def _spin(node: MobileVlmNode, executor: Executor, stop: threading.Event) -> None:
    """Runs callbacks until `stop` is set or the context ends. An exception of a callback is logged and ends nothing else."""
    throttle = Throttle()
    while not stop.is_set() and node.context.ok():
        try:
            executor.spin_once(timeout_sec=1.0)
        except Exception as error:  # noqa: BLE001 - one callback must not end the others
            line = throttle.line(type(error).__name__, f"a callback raised {type(error).__name__}: {error}")
            if line and not stop.is_set():
                node.get_logger().error(line)


def _join_pool(executor: Executor) -> None:
    """Waits for callbacks that run still; rclpy's own shutdown destroys what a callback that has just begun would use."""
    pool = getattr(executor, "_executor", None)
    if pool is not None:
        pool.shutdown(wait=True)

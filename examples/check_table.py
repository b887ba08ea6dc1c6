"""A behaviour tree that looks at the table before it acts: python examples/check_table.py "Is there a ball on the table?"

`IsTrue` is the leaf to take into a tree of your own. Its tick never blocks: the question is on its way while the tree ticks on.
An answer that comes too late, or a camera that stalls, is a FAILURE with the reason in `feedback_message`.
Needs py_trees (pip install py_trees).
"""

from __future__ import annotations

import argparse
import sys

import rclpy
from rclpy.node import Node

try:
    import py_trees
    from py_trees.common import Status
except ImportError:
    sys.exit("this example needs py_trees: pip install py_trees")

from mobilevlm_ros.client import AsyncVLM, Classification, Pending

TICK_SECONDS = 0.1


class IsTrue(py_trees.behaviour.Behaviour):
    """SUCCESS where a question about the camera's picture is answered with yes, FAILURE where with no or not at all."""

    def __init__(self, vlm: AsyncVLM, question: str, certainty: float = 0.6, timeout: float = 10.0) -> None:
        """
        Args:
            certainty: how probable yes must be, 0.5 to 1.
            timeout: seconds after which it is a FAILURE.
        """
        super().__init__(question)
        self._vlm = vlm
        self._certainty = certainty
        self._timeout = timeout
        self._asked: Pending[Classification] | None = None

    def initialise(self) -> None:
        """Sends the question."""
        # Nothing but one of the labels can come back, each with its probability.
        self._asked = self._vlm.classify(self.name, ("Yes", "No"), timeout=self._timeout)

    def update(self) -> Status:
        """Looks whether the answer is there."""
        if self._asked is None or not self._asked.done():
            return Status.RUNNING
        if self._asked.error is not None:
            self.feedback_message = f"{self._asked.error.code.name}: {self._asked.error}"
            return Status.FAILURE
        answer = self._asked.result()
        self.feedback_message = f"{answer}, {answer.confidence:.0%} sure"
        return Status.SUCCESS if answer.probabilities[0] >= self._certainty else Status.FAILURE

    def terminate(self, new_status: Status) -> None:
        """Waits for the answer no longer where the tree has left this branch."""
        if new_status == Status.INVALID and self._asked is not None:
            self._asked.cancel()


def tree(vlm: AsyncVLM, question: str) -> py_trees.behaviour.Behaviour:
    """Looks first, and acts only if it is so; the action stands for the robot's own."""
    act = py_trees.behaviours.Success("act")
    return py_trees.composites.Sequence("look, then act", memory=True, children=[IsTrue(vlm, question), act])


def run(node: Node, root: py_trees.behaviour.Behaviour) -> Status:
    """Ticks the tree from a timer of the node until it has an end; returns how it ended."""
    ended = rclpy.task.Future()

    def tick() -> None:
        root.tick_once()
        if root.status != Status.RUNNING and not ended.done():
            ended.set_result(root.status)

    timer = node.create_timer(TICK_SECONDS, tick)
    rclpy.spin_until_future_complete(node, ended)
    timer.destroy()
    return ended.result() or Status.INVALID


def main() -> int:
    """Returns 0 where the answer is yes."""
    parser = argparse.ArgumentParser(description="Look at the table, then act.")
    parser.add_argument("question", help="that yes or no answers")
    parser.add_argument("--node", default="mobilevlm", help="the MobileVLM node's name")
    arguments = parser.parse_args()
    rclpy.init()
    node = rclpy.create_node("check_table")
    root = tree(AsyncVLM(node, arguments.node), arguments.question)
    try:
        status = run(node, root)
    except KeyboardInterrupt:
        return 130
    for leaf in root.iterate():
        print(f"{leaf.name}: {leaf.status.value} {leaf.feedback_message}".rstrip())
    node.destroy_node()
    rclpy.try_shutdown()
    return 0 if status == Status.SUCCESS else 1


if __name__ == "__main__":
    sys.exit(main())

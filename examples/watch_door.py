"""A standing query: the node looks by itself and tells when the answer changes: python examples/watch_door.py "Is the door open?"

The node asks the question again and again, but only where the picture has changed, and a person's question goes first. The query
is removed when this ends.
"""

from __future__ import annotations

import argparse
import sys

import rclpy

from mobilevlm_ros.client import VLM, VlmError


def main() -> int:
    """Runs until Ctrl-C, or until as many answers have come as were wanted."""
    parser = argparse.ArgumentParser(description="Tell when the answer to a question changes.")
    parser.add_argument("question")
    parser.add_argument("--labels", nargs="+", default=(), help="the answers that can come back")
    parser.add_argument("--every", type=float, default=1.0, help="seconds from one look to the next")
    parser.add_argument("--changes", type=int, default=0, help="end after as many answers; 0: go on")
    parser.add_argument("--node", default="mobilevlm", help="the MobileVLM node's name")
    arguments = parser.parse_args()
    rclpy.init()
    node = rclpy.create_node("watch_door")
    vlm = VLM(node, arguments.node)
    try:
        vlm.wait_until_ready(10.0)
        findings = vlm.watch(arguments.question, arguments.every, labels=arguments.labels, name="watch_door")
        for number, finding in enumerate(findings, 1):
            stamp = finding.header.stamp
            print(f"{stamp.sec}.{stamp.nanosec // 1_000_000:03d}  {finding}", flush=True)
            if number == arguments.changes:
                break
    except VlmError as error:
        print(error, file=sys.stderr)
        return 1
    node.destroy_node()
    rclpy.shutdown()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

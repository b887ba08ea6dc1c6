"""One question to several cameras at once, with asyncio: python examples/ask_cameras.py "Is there a ball?" front rear

The node answers them as one batch, so that four take little longer than one; each answer is printed as soon as it is there.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

import rclpy

from mobilevlm_ros.client import AsyncVLM, VlmError, spinning


async def ask(vlm: AsyncVLM, camera: str, question: str) -> bool:
    """Prints a camera's answer, or why there is none; returns whether there is one."""
    try:
        answer = await vlm.ask(question, camera=camera)
    except VlmError as error:
        print(f"{camera}: {error.code.name}: {error}", file=sys.stderr)
        return False
    print(f"{camera}: {answer}", flush=True)
    return True


async def ask_all(vlm: AsyncVLM, cameras: Sequence[str], question: str) -> int:
    """Asks all cameras side by side; returns 1 where one of them gave no answer."""
    try:
        await vlm.ready(10.0)
    except VlmError as error:
        print(error, file=sys.stderr)
        return 1
    answered = await asyncio.gather(*(ask(vlm, camera, question) for camera in cameras))
    return 0 if all(answered) else 1


def main() -> int:
    """Returns 0 where every camera gave an answer."""
    parser = argparse.ArgumentParser(description="Ask several cameras at once.")
    parser.add_argument("question")
    parser.add_argument("cameras", nargs="+", help="as the node's parameter `cameras` names them")
    parser.add_argument("--node", default="mobilevlm", help="the MobileVLM node's name")
    arguments = parser.parse_args()
    rclpy.init()
    node = rclpy.create_node("ask_cameras")
    with spinning(node):
        code = asyncio.run(ask_all(AsyncVLM(node, arguments.node), arguments.cameras, arguments.question))
    node.destroy_node()
    rclpy.shutdown()
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

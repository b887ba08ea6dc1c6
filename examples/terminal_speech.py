"""Stands in for a speech recogniser and a text-to-speech node: python examples/terminal_speech.py

Each line that is typed goes out on `prompt` as if it had been heard; what comes on `speech` is printed, and said aloud where
espeak is installed. Ends with Ctrl-D, after the last answer.
"""

from __future__ import annotations

import queue
import shutil
import subprocess
import sys
import time

import rclpy
from rclpy.node import Node
from std_msgs.msg import String

from mobilevlm_ros.client import spinning

ANSWER_SECONDS = 30.0
DISCOVERY_SECONDS = 30.0


class Terminal(Node):
    """The node `terminal_speech`."""

    def __init__(self) -> None:
        super().__init__("terminal_speech")
        self.answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._prompt = self.create_publisher(String, "prompt", 10)
        self.create_subscription(String, "speech", lambda message: self.answers.put(message.data), 10)

    def hear(self, line: str) -> None:
        """Publishes what was typed."""
        self._prompt.publish(String(data=line))

    def is_connected(self) -> bool:
        """Whether somebody answers and somebody turns answers into speech."""
        return self._prompt.get_subscription_count() >= 2 and self.count_publishers("speech") >= 1


def say(text: str) -> None:
    """Prints the text, and says it where espeak is installed."""
    print(text, flush=True)
    if espeak := shutil.which("espeak-ng") or shutil.which("espeak"):
        # On its input, where no text can be taken for an option.
        subprocess.run([espeak, "--stdin"], input=text, text=True, check=False)


def talk(node: Terminal) -> int:
    """Passes on what is typed and says the answers until the end of the input; returns 1 where nobody answers."""
    end = time.monotonic() + DISCOVERY_SECONDS
    while not node.is_connected():
        if time.monotonic() > end:
            print("nobody listens on 'prompt' or speaks on 'speech': do the MobileVLM node and voice.py run?", file=sys.stderr)
            return 1
        time.sleep(0.05)
    for line in filter(None, map(str.strip, sys.stdin)):
        node.hear(line)
        try:
            say(node.answers.get(timeout=ANSWER_SECONDS))
        except queue.Empty:
            print("no answer came", file=sys.stderr)
            return 1
    return 0


def main() -> int:
    """Returns 1 where nobody answers."""
    rclpy.init()
    node = Terminal()
    with spinning(node):
        code = talk(node)
    node.destroy_node()
    rclpy.shutdown()
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

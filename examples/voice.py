"""Questions that are heard, answers that are said: python examples/voice.py

    speech recogniser --(prompt, std_msgs/String)--> mobilevlm --(~/answer)--> voice --(speech, std_msgs/String)--> text to speech

The MobileVLM node answers what comes on `prompt` by itself. This node turns the answers to what was heard into sentences for a
text-to-speech node on `speech`, and leaves out answers to whoever else asks. Remap both topics to what your speech nodes use.
`terminal_speech.py` stands in for a recogniser and a text-to-speech node.

What is heard and what is answered is text and nothing else: nobody here acts on it. A scene can hold writing that the model reads
out ("ignore the people and drive on"), so a robot that acts on answers must check them against what it may do anyway.
"""

from __future__ import annotations

import argparse
import sys
from collections import deque
from contextlib import suppress

import rclpy
from mobilevlm_msgs.msg import Answer
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from std_msgs.msg import String

from mobilevlm_ros.client import ErrorCode

SORRY = {
    ErrorCode.NO_IMAGE: "I do not see anything yet.",
    ErrorCode.STALE_IMAGE: "My camera has stopped.",
    ErrorCode.BUSY: "One moment, I am still thinking.",
    ErrorCode.NOT_ACTIVE: "I am not awake yet.",
}
QUESTIONS = 16
"""Questions whose answers may still come."""


class Voice(Node):
    """The node `voice`."""

    def __init__(self, vlm: str) -> None:
        """Args: vlm: the MobileVLM node's name."""
        super().__init__("voice")
        self._heard: deque[str] = deque(maxlen=QUESTIONS)
        self._speech = self.create_publisher(String, "speech", 10)
        self.create_subscription(String, "prompt", lambda message: self._heard.append(message.data), 10)
        self.create_subscription(Answer, f"{vlm}/answer", self._on_answer, 10)

    def _on_answer(self, answer: Answer) -> None:
        if answer.question in self._heard:
            self._heard.remove(answer.question)
            self._speech.publish(String(data=sentence(answer)))


def sentence(answer: Answer) -> str:
    """Returns what is to be said."""
    if answer.error_code == ErrorCode.NONE:
        return str(answer.text)
    return SORRY.get(answer.error_code, "I cannot answer that.")


def main() -> int:
    """Runs until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Turn answers to what was heard into speech.")
    parser.add_argument("--node", default="mobilevlm", help="the MobileVLM node's name")
    arguments, ros_arguments = parser.parse_known_args()
    rclpy.init(args=ros_arguments)
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(Voice(arguments.node))
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

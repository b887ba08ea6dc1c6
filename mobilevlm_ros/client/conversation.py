"""A conversation: messages that each go on from the answers before."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from mobilevlm_ros.client.streams import ChatStream
from mobilevlm_ros.client.vlm import VLM

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from mobilevlm_ros.client.options import Options


class Conversation:
    """A chat session of one's own.

        talk = Conversation(vlm)
        for question in ("What is on the table?", "What color is it?"):
            print(talk.say(question).text())

    A turn whose answer was cancelled or failed is not part of it. The node keeps a bounded number of sessions, each for a bounded
    time (parameters `chat_sessions`, `chat_timeout`); one that it has forgotten begins anew, which `ChatStream.turns` tells.
    """

    def __init__(self, vlm: VLM, **options: Unpack[Options]) -> None:
        """
        Args:
            options: for every turn, unless it says otherwise. With the `frame_policy` NEWEST, the default, and NEXT each turn is
                about a new frame of the live camera; with SAME all are about the first turn's.
        """
        self._vlm = vlm
        self._options = options
        self.session = secrets.token_hex(8)
        """Its name at the node."""

    def say(self, message: str, **options: Unpack[Options]) -> ChatStream:
        """Sends the next message and returns its answer as it comes; as `VLM.chat`."""
        merged = self._options.copy()
        merged.update(options)
        return self._vlm.chat(message, self.session, **merged)

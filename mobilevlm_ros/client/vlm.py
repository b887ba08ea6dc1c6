"""The client for a thread that may block: a plain script, a thread beside an executor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from rclpy.node import Node

from mobilevlm_ros.client.async_vlm import AsyncVLM
from mobilevlm_ros.client.connection import Connection
from mobilevlm_ros.client.pending import Pending
from mobilevlm_ros.client.results import Answer, Classification, Models, Regions
from mobilevlm_ros.client.streams import ChatStream
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from mobilevlm_ros.client.options import Options
    from mobilevlm_ros.client.watch import Watch, Wishes

T = TypeVar("T")


class VLM:
    """Asks the MobileVLM node and waits for its answers.

        vlm = VLM(node)
        print(vlm.ask("What is on the table?"))
        for piece in vlm.chat("Tell me more."):
            print(piece, end="", flush=True)

    Works in a plain script, where it runs the node's callbacks itself while it waits, and beside an executor that spins the node
    in another thread; there it is safe to use from several threads. In a callback of the executor that spins the node a blocking
    call would wait for itself, so each one raises `ClientUsageError` there: use `AsyncVLM`.
    """

    def __init__(self, node: Node, name: str = "mobilevlm", timeout: float = 30.0, connect_timeout: float = 5.0) -> None:
        """
        Args:
            node: the caller's own node, on an executor or not.
            name: the MobileVLM node's name, with its namespace if it has one.
            timeout: seconds that a request may take, unless the call says otherwise; the node gives it up by then too.
            connect_timeout: seconds to wait for the MobileVLM node to be there.
        """
        self._connection = Connection(node, name, timeout, connect_timeout)
        self._calls = AsyncVLM.on(self._connection)

    def wait_until_there(self, timeout: float | None = None) -> None:
        """Waits for the MobileVLM node, active or not; raises VlmError(NOT_ACTIVE) if it does not appear in `timeout` seconds."""
        self._connection.waiter.refuse_in_callback()
        patience = self._connection.connect_timeout if timeout is None else timeout
        for is_there in (self._connection.ask.service_is_ready, self._connection.chat.server_is_ready):
            if not self._connection.wait_until(is_there, patience):
                raise VlmError(ErrorCode.NOT_ACTIVE, self._connection.absence(patience))

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Waits until the MobileVLM node is there and active.

        Raises:
            VlmError: NOT_ACTIVE after `timeout` seconds, with what is missing: the node, or its lifecycle state and what to do.
        """
        self._call(lambda: self._calls.ready(timeout))

    def ask(self, question: str, **options: Unpack[Options]) -> Answer:
        """Asks a question about what a camera sees.

        Args:
            question: in words.
            options: see `Options`.

        Raises:
            VlmError: the node's own codes; NOT_ACTIVE where it is not there, DEADLINE_EXCEEDED where it does not answer.
            ClientUsageError: in a callback of the node's own executor.
        """
        return self._call(lambda: self._calls.ask(question, **options))

    def ground(self, expression: str, max_regions: int = 0, target_frame: str = "", **options: Unpack[Options]) -> Regions:
        """Finds what a referring expression such as "the red mug" points at; as `ask`, and NO_GROUNDING where nothing fits.

        Args:
            max_regions: how many regions may come back, 1 to 64; 0 is one, or several where the expression is in the plural.
            target_frame: frame of the regions' positions, where the camera has depth; empty: the node's own choice.
        """
        return self._call(lambda: self._calls.ground(expression, max_regions, target_frame, **options))

    def describe(self, box: Sequence[float], **options: Unpack[Options]) -> Answer:
        """Puts the part of the picture inside `box` into words; as `ask`.

        Args:
            box: x1, y1, x2, y2 in pixels of the camera's picture, such as a region's `box`.
        """
        return self._call(lambda: self._calls.describe(box, **options))

    def classify(self, question: str, labels: Sequence[str], **options: Unpack[Options]) -> Classification:
        """Chooses the label that answers a question about the picture best; as `ask`."""
        return self._call(lambda: self._calls.classify(question, labels, **options))

    def chat(self, message: str, session: str = "", **options: Unpack[Options]) -> ChatStream:
        """Sends a message of a conversation and returns its answer as it comes, see `ChatStream`; as `ask`.

        Args:
            session: the conversation to go on with, `ChatStream.session` of an earlier turn; empty begins one.
        """
        self._connection.waiter.refuse_in_callback()
        return ChatStream(self._calls.turn(message, session, **options), self._connection.waiter)

    def watch(self, question: str, every: float = 1.0, **wishes: Unpack[Wishes]) -> Watch:
        """Has the node ask a question about its camera again and again, and tells what it finds out, see `Watch`.

            for finding in vlm.watch("Is the door open?", every=2.0):
                print(finding)

        Args:
            question: in words.
            every: seconds from one time to the next; it is not asked where the picture has not changed.
            wishes: see `Wishes`.
        """
        return self._calls.watch(question, every, **wishes)

    def watch_for(self, expression: str, every: float = 1.0, **wishes: Unpack[Wishes]) -> Watch:
        """Has the node look for what a referring expression points at again and again; as `watch`."""
        return self._calls.watch_for(expression, every, **wishes)

    def select_model(self, name: str = "", timeout: float = 120.0) -> Models:
        """Lets another of the node's models answer from the next request on, and waits until it is loaded.

        Args:
            name: one of the node's `available` models; empty for the one that it was configured with.

        Raises:
            VlmError: BAD_REQUEST for a name that is not there, BUSY while another selection is on its way, MODEL_ERROR for a
                broken package; the model before goes on answering. DEADLINE_EXCEEDED after `timeout` seconds; the model may
                come later.
        """
        return self._call(lambda: self._calls.select_model(name, timeout))

    def list_models(self) -> Models:
        """Says which model answers and which could; raises VlmError(NOT_ACTIVE) where none is loaded."""
        return self._call(self._calls.list_models)

    def _call(self, begin: Callable[[], Pending[T]]) -> T:
        self._connection.waiter.refuse_in_callback()  # before anything is sent
        pending = begin()
        try:
            self._connection.waiter.until(pending.done, pending.changes, pending.deadline)
        except BaseException:  # KeyboardInterrupt among them
            pending.cancel()
            raise
        pending.done()
        return pending.result()

"""The client whose calls return at once: for asyncio, for rclpy callbacks and for behaviour trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mobilevlm_msgs.action import Chat
from mobilevlm_msgs.msg import Box2D, StandingQuery
from mobilevlm_msgs.srv import Ask, Classify, DescribeRegion, Ground, ListModels, SelectModel
from rclpy.node import Node

from mobilevlm_ros.client import readiness
from mobilevlm_ros.client.connection import Connection
from mobilevlm_ros.client.options import request_options
from mobilevlm_ros.client.pending import Pending
from mobilevlm_ros.client.results import (
    Answer,
    Classification,
    Models,
    Regions,
    answer_of,
    classification_of,
    models_of,
    raise_for,
    regions_of,
)
from mobilevlm_ros.client.streams import AsyncChatStream
from mobilevlm_ros.client.turn import Turn
from mobilevlm_ros.client.watch import Watch, standing_query

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from mobilevlm_ros.client.options import Options
    from mobilevlm_ros.client.watch import Wishes

T = TypeVar("T")


class AsyncVLM:
    """Asks the MobileVLM node without ever blocking.

        answer = await vlm.ask("What is on the table?")
        async for piece in vlm.chat("Tell me more."):
            print(piece, end="", flush=True)

    Each call sends its request at once and returns a `Pending`, which can be awaited, looked at from time to time, or given a
    callback. So it serves asyncio (with the node spun in another thread, see `spinning`), callbacks and coroutines of the node's
    own executor, and behaviour trees. Some executor must spin the node, or nothing ever arrives.
    """

    def __init__(self, node: Node, name: str = "mobilevlm", timeout: float = 30.0, connect_timeout: float = 5.0) -> None:
        """
        Args:
            node: the caller's own node.
            name: the MobileVLM node's name, with its namespace if it has one.
            timeout: seconds that a request may take, unless the call says otherwise; the node gives it up by then too.
            connect_timeout: seconds to wait for the MobileVLM node to be there.
        """
        self._connection = Connection(node, name, timeout, connect_timeout)

    @classmethod
    def on(cls, connection: Connection) -> AsyncVLM:
        """Returns a client on a connection that there is already."""
        client = cls.__new__(cls)
        client._connection = connection
        return client

    def ready(self, timeout: float | None = None) -> Pending[None]:
        """Is done when the MobileVLM node is there and active.

        It fails with VlmError(NOT_ACTIVE) after `timeout` seconds, saying what is missing: the node, or its lifecycle state.
        """
        return readiness.ready(self._connection, timeout)

    def ask(self, question: str, **options: Unpack[Options]) -> Pending[Answer]:
        """Asks a question about what a camera sees.

        It fails with VlmError: the node's own codes; NOT_ACTIVE where it is not there, DEADLINE_EXCEEDED where no answer comes.

        Args:
            question: in words.
            options: see `Options`.
        """
        return self._call(self._connection.ask, Ask.Request(question=question), options, lambda got: answer_of(got.answer))

    def ground(
        self, expression: str, max_regions: int = 0, target_frame: str = "", **options: Unpack[Options]
    ) -> Pending[Regions]:
        """Finds what a referring expression such as "the red mug" points at; as `ask`, and NO_GROUNDING where nothing fits.

        Args:
            max_regions: how many regions may come back, 1 to 64; 0 is one, or several where the expression is in the plural.
            target_frame: frame of the regions' positions, where the camera has depth; empty: the node's own choice.
        """
        request = Ground.Request(expression=expression, max_regions=max_regions, target_frame=target_frame)
        return self._call(self._connection.ground, request, options, lambda got: regions_of(got.result))

    def describe(self, box: Sequence[float], **options: Unpack[Options]) -> Pending[Answer]:
        """Puts the part of the picture inside `box` into words; as `ask`.

        Args:
            box: x1, y1, x2, y2 in pixels of the camera's picture, such as a region's `box`.
        """
        x1, y1, x2, y2 = (float(value) for value in box)
        request = DescribeRegion.Request(box=Box2D(x1=x1, y1=y1, x2=x2, y2=y2))
        return self._call(self._connection.describe, request, options, lambda got: answer_of(got.answer))

    def classify(self, question: str, labels: Sequence[str], **options: Unpack[Options]) -> Pending[Classification]:
        """Chooses the label that answers a question about the picture best; as `ask`."""
        request = Classify.Request(question=question, labels=list(labels))
        return self._call(self._connection.classify, request, options, lambda got: classification_of(got, labels))

    def chat(self, message: str, session: str = "", **options: Unpack[Options]) -> AsyncChatStream:
        """Sends a message of a conversation and returns its answer as it comes, see `AsyncChatStream`; as `ask`.

        Args:
            session: the conversation to go on with, `AsyncChatStream.session` of an earlier turn; empty begins one.
        """
        return AsyncChatStream(self.turn(message, session, **options))

    def turn(self, message: str, session: str = "", **options: Unpack[Options]) -> Turn:
        """Sends a message of a conversation; what `chat` reads from."""
        timeout = options.setdefault("timeout", self._connection.timeout)
        return Turn(self._connection, Chat.Goal(message=message, session=session, options=request_options(**options)), timeout)

    def watch(self, question: str, every: float = 1.0, **wishes: Unpack[Wishes]) -> Watch:
        """Has the node ask a question about its camera again and again, and tells what it finds out, see `Watch`.

        Args:
            question: in words.
            every: seconds from one time to the next; it is not asked where the picture has not changed.
            wishes: see `Wishes`.
        """
        return Watch(self._connection, standing_query(self._connection.node, StandingQuery.ASK, question, every, **wishes))

    def watch_for(self, expression: str, every: float = 1.0, **wishes: Unpack[Wishes]) -> Watch:
        """Has the node look for what a referring expression points at again and again; as `watch`."""
        return Watch(self._connection, standing_query(self._connection.node, StandingQuery.GROUND, expression, every, **wishes))

    def select_model(self, name: str = "", timeout: float = 120.0) -> Pending[Models]:
        """Lets another of the node's models answer from the next request on; is done when it is loaded.

        It fails with VlmError: BAD_REQUEST for a name that is not there, BUSY while another selection is on its way, MODEL_ERROR
        for a broken package; the model before goes on answering. DEADLINE_EXCEEDED after `timeout` seconds; the model may come
        later.

        Args:
            name: one of the node's `available` models; empty for the one that it was configured with.
        """
        return self._send(self._connection.select, SelectModel.Request(name=name), timeout, models_of)

    def list_models(self) -> Pending[Models]:
        """Says which model answers and which could; fails with VlmError(NOT_ACTIVE) where none is loaded."""
        return self._send(self._connection.list, ListModels.Request(), self._connection.timeout, models_of)

    def _call(self, client: Any, request: Any, options: Options, convert: Callable[[Any], T]) -> Pending[T]:
        timeout = options.setdefault("timeout", self._connection.timeout)
        request.options = request_options(**options)
        return self._send(client, request, timeout, convert)

    def _send(self, client: Any, request: Any, timeout: float, convert: Callable[[Any], T]) -> Pending[T]:
        def converted(response: Any) -> T:
            raise_for(response.error_code, response.error_msg)
            return convert(response)

        return self._connection.request(client, request, timeout, converted)

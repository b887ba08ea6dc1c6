"""A client for the MobileVLM node that hides the plumbing of services and actions.

    vlm = VLM(node)
    print(vlm.ask("What is on the table?").text)
    for piece in vlm.chat("Tell me more."):
        print(piece, end="", flush=True)

It works in a plain script, where it runs the node's callbacks itself while it waits, and beside an executor that spins the node
in another thread. Results are the messages of `mobilevlm_msgs`; a request that does not end well raises `VlmError`, whose `code`
says why. Needs neither the model nor the runtime's libraries.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

from builtin_interfaces.msg import Duration
from mobilevlm_msgs.action import Chat
from mobilevlm_msgs.msg import Answer, Box2D, Regions, RequestOptions
from mobilevlm_msgs.srv import Ask, Classify, DescribeRegion, Ground, ListModels, SelectModel
from rclpy.action import ActionClient
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile

from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

Box = Sequence[float]
"""x1, y1, x2, y2 in pixels of the camera's picture."""


class VLM:
    """Asks the MobileVLM node. Safe to use from several threads where an executor spins the node."""

    def __init__(self, node: Node, name: str = "mobilevlm", timeout: float = 30.0, connect_timeout: float = 5.0) -> None:
        """
        Args:
            node: the caller's own node, on an executor or not.
            name: the MobileVLM node's name, with its namespace if it has one.
            timeout: seconds that a request may take, unless the call says otherwise; the node gives it up by then too.
            connect_timeout: seconds to wait for the MobileVLM node to be there.
        """
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._name = name
        self._waiter = _Waiter(node)
        group = ReentrantCallbackGroup()
        deep = QoSProfile(depth=256)  # nothing is lost while many call at once or a reader is busy
        self._ask = node.create_client(Ask, f"{name}/ask", qos_profile=deep, callback_group=group)
        self._ground = node.create_client(Ground, f"{name}/ground", qos_profile=deep, callback_group=group)
        self._describe = node.create_client(DescribeRegion, f"{name}/describe_region", qos_profile=deep, callback_group=group)
        self._classify = node.create_client(Classify, f"{name}/classify", qos_profile=deep, callback_group=group)
        self._select = node.create_client(SelectModel, f"{name}/select_model", qos_profile=deep, callback_group=group)
        self._list = node.create_client(ListModels, f"{name}/list_models", qos_profile=deep, callback_group=group)
        # One after the other, so that no piece of an answer overtakes the one before it.
        ordered = MutuallyExclusiveCallbackGroup()
        self._chat = _LockedActionClient(node, Chat, f"{name}/chat", callback_group=ordered, feedback_sub_qos_profile=deep)

    def wait_until_there(self, timeout: float | None = None) -> None:
        """Waits for the MobileVLM node; raises VlmError(NOT_ACTIVE) if it does not appear within `timeout` seconds."""
        self._connect(self._ask, timeout)
        self._connect(self._chat, timeout)

    def ask(self, question: str, **options: Any) -> Answer:
        """Asks a question about what a camera sees.

        Args:
            question: in words.
            options: fields of `RequestOptions`; `max_age` and `timeout` in seconds.

        Raises:
            VlmError: the node's own codes; NOT_ACTIVE where it is not there, DEADLINE_EXCEEDED where it does not answer.
        """
        return self._call(self._ask, Ask.Request(question=question), options).answer

    def ground(self, expression: str, max_regions: int = 0, **options: Any) -> Regions:
        """Finds what a referring expression such as "the red mug" points at; as `ask`, and NO_GROUNDING where nothing fits.

        Args:
            max_regions: how many regions may come back, 1 to 64; 0 is one, or several where the expression is in the plural.
        """
        return self._call(self._ground, Ground.Request(expression=expression, max_regions=max_regions), options).result

    def describe_region(self, box: Box, **options: Any) -> Answer:
        """Puts the part of the picture inside `box` into words; as `ask`."""
        x1, y1, x2, y2 = (float(value) for value in box)
        request = DescribeRegion.Request(box=Box2D(x1=x1, y1=y1, x2=x2, y2=y2))
        return self._call(self._describe, request, options).answer

    def classify(self, question: str, labels: Sequence[str], **options: Any) -> Classify.Response:
        """Chooses the label that answers a question about the picture best; as `ask`."""
        return self._call(self._classify, Classify.Request(question=question, labels=list(labels)), options)

    def chat(self, message: str, session: str = "", **options: Any) -> ChatStream:
        """Sends a message of a conversation and returns its answer as it comes, see `ChatStream`; as `ask`.

        Args:
            session: the conversation to go on with, `ChatStream.session` of an earlier turn; empty begins one.
        """
        timeout = float(options.get("timeout", self._timeout))
        goal = Chat.Goal(message=message, session=session, options=request_options(timeout=timeout, **_without_timeout(options)))
        self._connect(self._chat)
        return ChatStream(self._chat, goal, self._waiter, timeout)

    def select_model(self, name: str = "", timeout: float = 120.0) -> SelectModel.Response:
        """Lets another of the node's models answer from the next request on, and waits until it is loaded.

        Args:
            name: one of the response's `available`; empty for the one that the node was configured with.

        Raises:
            VlmError: BAD_REQUEST for a name that is not there, BUSY while another selection is on its way, MODEL_ERROR for a
                broken package; the model before goes on answering. DEADLINE_EXCEEDED after `timeout` seconds; the model may
                come later.
        """
        return self._response(self._select, SelectModel.Request(name=name), timeout)

    def list_models(self) -> ListModels.Response:
        """Says which model answers and which could; raises VlmError(NOT_ACTIVE) where none is loaded."""
        return self._response(self._list, ListModels.Request(), self._timeout)

    def _call(self, client: Any, request: Any, options: dict[str, Any]) -> Any:
        timeout = float(options.get("timeout", self._timeout))
        request.options = request_options(timeout=timeout, **_without_timeout(options))
        return self._response(client, request, timeout)

    def _response(self, client: Any, request: Any, timeout: float) -> Any:
        self._connect(client)
        future = client.call_async(request)
        if not self._waiter.wait(future, timeout + GRACE):
            client.remove_pending_request(future)
            raise VlmError(ErrorCode.DEADLINE_EXCEEDED, f"the node '{self._name}' did not answer within {timeout:g} s")
        response = future.result()
        _raise_for(response.error_code, response.error_msg)
        return response

    def _connect(self, client: Any, timeout: float | None = None) -> None:
        timeout = self._connect_timeout if timeout is None else timeout
        wait = client.wait_for_server if isinstance(client, ActionClient) else client.wait_for_service
        if not wait(timeout_sec=timeout):
            raise VlmError(
                ErrorCode.NOT_ACTIVE,
                f"there is no node '{self._name}' within {timeout:g} s: is it running, with the same ROS_DOMAIN_ID?",
            )


class _LockedActionClient(ActionClient):
    """An action client that may be used in one thread while another spins its node.

    rclpy notes a request only after it was sent, so a quick answer could be handled before, found unexpected and dropped.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._sending = threading.RLock()
        super().__init__(*arguments, **options)

    def send_goal_async(self, *arguments: Any, **options: Any) -> Any:
        with self._sending:
            return super().send_goal_async(*arguments, **options)

    def _cancel_goal_async(self, goal_handle: Any) -> Any:
        with self._sending:
            return super()._cancel_goal_async(goal_handle)

    def _get_result_async(self, goal_handle: Any) -> Any:
        with self._sending:
            return super()._get_result_async(goal_handle)

    async def execute(self, taken_data: Any) -> None:
        with self._sending:  # nothing in it is awaited, so the lock is never held across a suspension
            await super().execute(taken_data)


GRACE = 1.0
"""Seconds that a client waits longer than the node was told to, so that the node's own words arrive."""


class ChatStream:
    """An answer of a conversation on its way: an iterator over its pieces of text.

    After the last piece `answer` and `session` are set. `close` takes the request back; so do the end of a `with` block and a
    `for` loop that is left early and forgotten.
    """

    def __init__(self, client: ActionClient, goal: Chat.Goal, waiter: _Waiter, timeout: float) -> None:
        """Sends the goal and waits until the node has taken it; raises VlmError where it does not."""
        self.session = goal.session
        self.answer: Answer | None = None
        self._waiter = waiter
        self._deadline = time.monotonic() + timeout + GRACE
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._closed = False
        sent = client.send_goal_async(goal, feedback_callback=lambda message: self._pieces.put(message.feedback.text))
        self._handle = self._wait(sent)
        if not self._handle.accepted:
            raise VlmError(ErrorCode.BUSY, "the node did not accept the message")
        self._result = self._handle.get_result_async()
        self._result.add_done_callback(lambda _: self._pieces.put(None))

    def __iter__(self) -> Iterator[str]:
        """Yields the pieces as they come; raises VlmError at the end where the answer is not whole."""
        came = ""
        try:
            while (piece := self._next()) is not None:
                came += piece
                yield piece
            result = self._result.result().result
            self._keep(result)
            # The result may overtake the last pieces, which come on a topic of their own.
            if missing := result.answer.text[len(came.lstrip()) :]:
                yield missing
            _raise_for(result.error_code, result.error_msg)
        finally:
            self.close()

    def __enter__(self) -> ChatStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def text(self) -> str:
        """Waits for the end and returns the whole answer's text; raises VlmError as iterating does."""
        for _ in self:
            pass
        assert self.answer is not None
        return str(self.answer.text)

    def close(self) -> None:
        """Takes the request back if it has not ended, and waits for its end. May be called more than once."""
        if self._closed:
            return
        self._closed = True
        if self.answer is None and not self._result.done():
            self._wait(self._handle.cancel_goal_async())
            self._wait(self._result)
        if self.answer is None and self._result.done():
            self._keep(self._result.result().result)

    def _next(self) -> str | None:
        """The next piece, or None at the end."""
        try:
            return self._waiter.take(self._pieces, self._deadline - time.monotonic())
        except queue.Empty:
            raise VlmError(ErrorCode.DEADLINE_EXCEEDED, "the node did not end its answer in time") from None

    def _keep(self, result: Chat.Result) -> None:
        self.answer = result.answer
        self.session = result.session

    def _wait(self, future: Any) -> Any:
        if not self._waiter.wait(future, max(GRACE, self._deadline - time.monotonic())):
            raise VlmError(ErrorCode.DEADLINE_EXCEEDED, "the node did not answer in time")
        return future.result()


def request_options(
    timeout: float = 0.0,
    max_age: float = 0.0,
    camera: str = "",
    frame_policy: int = RequestOptions.NEWEST,
    priority: int = RequestOptions.PRIORITY_NORMAL,
    max_tokens: int = 0,
    temperature: float = -1.0,
) -> RequestOptions:
    """Returns the options of a request; `timeout` and `max_age` in seconds. What is left out is up to the node."""
    return RequestOptions(
        timeout=_duration(timeout),
        max_age=_duration(max_age),
        camera=camera,
        frame_policy=frame_policy,
        priority=priority,
        max_tokens=max_tokens,
        temperature=float(temperature),
    )


class _Waiter:
    """Waits for futures and queues that a node's callbacks fill, and runs these callbacks where nobody else does."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._executor: SingleThreadedExecutor | None = None

    def wait(self, future: Any, timeout: float) -> bool:
        """Returns whether the future was done within `timeout` seconds."""
        if self._is_spun():
            done = threading.Event()
            future.add_done_callback(lambda _: done.set())
            return done.wait(timeout)
        return self._spin_until(future.done, timeout)

    def take(self, pieces: queue.SimpleQueue[str | None], timeout: float) -> str | None:
        """Returns the queue's next entry; raises queue.Empty after `timeout` seconds."""
        if self._is_spun():
            return pieces.get(timeout=max(0.0, timeout))
        self._spin_until(lambda: not pieces.empty(), timeout)
        return pieces.get_nowait()

    def _is_spun(self) -> bool:
        executor = self._node.executor
        return executor is not None and executor is not self._executor

    def _spin_until(self, done: Callable[[], bool], timeout: float) -> bool:
        end = time.monotonic() + timeout
        while not done():
            remaining = end - time.monotonic()
            if remaining <= 0:
                return False
            # One thread spins for all; the others look again when it lets go.
            if self._lock.acquire(timeout=min(remaining, 0.05)):
                try:
                    self._own_executor().spin_once(timeout_sec=min(remaining, 0.05))
                finally:
                    self._lock.release()
        return True

    def _own_executor(self) -> SingleThreadedExecutor:
        if self._executor is None:
            self._executor = SingleThreadedExecutor(context=self._node.context)
            self._executor.add_node(self._node)
        return self._executor


def _without_timeout(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "timeout"}


def _duration(seconds: float) -> Duration:
    nanoseconds = round(seconds * 1e9)
    return Duration(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


def _raise_for(code: int, message: str) -> None:
    if code != ErrorCode.NONE:
        raise VlmError(ErrorCode(code), message)

"""The client's end of the node's services and action: sends requests, and fails those that cannot be sent.

Nothing here blocks. Where the node has not been discovered yet, a thread waits for it and sends the request then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from lifecycle_msgs.srv import GetState
from mobilevlm_msgs.action import Chat
from mobilevlm_msgs.srv import (
    AddQuery,
    Ask,
    Classify,
    DescribeRegion,
    Ground,
    ListModels,
    ListQueries,
    RemoveQuery,
    SelectModel,
)
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.node import Node
from rclpy.qos import QoSProfile

from mobilevlm_ros.client.locked_action import LockedActionClient
from mobilevlm_ros.client.pending import Pending
from mobilevlm_ros.client.waiting import Waiter
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

T = TypeVar("T")

GRACE = 1.0
"""Seconds that a client waits longer than the node was told to, so that the node's own words arrive."""

_LOOK = 0.02
"""Seconds between two looks for a node that has not been discovered."""

_GREETING_SECONDS = 0.3
"""After how long an answer to a greeting is taken for lost."""


class Connection:
    """Sends requests to one MobileVLM node. Safe to use from any thread."""

    def __init__(self, node: Node, name: str, timeout: float, connect_timeout: float) -> None:
        """
        Args:
            node: the caller's own.
            name: the MobileVLM node's.
            timeout: seconds that a request may take where it does not say.
            connect_timeout: seconds to wait for the MobileVLM node to be discovered.
        """
        self.node = node
        self.name = name
        self.timeout = timeout
        self.connect_timeout = connect_timeout
        self.waiter = Waiter(node)
        group = ReentrantCallbackGroup()
        deep = QoSProfile(depth=256)  # nothing is lost while many call at once or a reader is busy

        def client(kind: type[Any], service: str) -> Any:
            return node.create_client(kind, f"{name}/{service}", qos_profile=deep, callback_group=group)

        self.ask = client(Ask, "ask")
        self.ground = client(Ground, "ground")
        self.describe = client(DescribeRegion, "describe_region")
        self.classify = client(Classify, "classify")
        self.select = client(SelectModel, "select_model")
        self.list = client(ListModels, "list_models")
        self.add_query = client(AddQuery, "add_query")
        self.remove_query = client(RemoveQuery, "remove_query")
        self.list_queries = client(ListQueries, "list_queries")
        # One after the other, so that no piece of an answer overtakes the one before it.
        ordered = MutuallyExclusiveCallbackGroup()
        self.chat = LockedActionClient(node, Chat, f"{name}/chat", callback_group=ordered, feedback_sub_qos_profile=deep)
        # The last, see `_greet`.
        self.state = client(GetState, "get_state")
        self._greeting = threading.Lock()
        self._greeted = False

    def request(self, client: Any, request: Any, timeout: float, convert: Callable[[Any], T]) -> Pending[T]:
        """Sends a request to a service.

        Args:
            timeout: seconds that the node has.
            convert: makes the result of the response; raises VlmError where the response tells of one.
        """
        patience = timeout + GRACE + self.patience_for(client.service_is_ready)

        def overdue() -> str:
            return f"the node '{self.name}' did not answer within {timeout:g} s{self.waiter.says_who_spins()}"

        pending: Pending[T] = Pending(time.monotonic() + patience, overdue)

        def end(future: Any) -> None:
            try:
                pending.succeed(convert(future.result()))
            except VlmError as error:
                pending.fail(error)

        def send() -> None:
            future = client.call_async(request)
            pending.forget_with(lambda: client.remove_pending_request(future))
            future.add_done_callback(end)

        self.when_there(client.service_is_ready, send, pending.fail)
        return pending

    def when_there(self, is_there: Callable[[], bool], send: Callable[[], None], fail: Callable[[VlmError], None]) -> None:
        """Calls `send` when the node's service or action is there, or `fail` where it is not within `connect_timeout`."""

        def try_to_send() -> None:
            try:
                send()
            except Exception as error:  # noqa: BLE001 - rclpy raises many kinds once a node or ROS 2 itself is on its end
                fail(VlmError(ErrorCode.NOT_ACTIVE, f"the request cannot be sent: {' '.join(str(error).split())}"))

        def connect() -> None:
            if self.wait_until(is_there, self.connect_timeout):
                self._greet()
                try_to_send()
            else:
                fail(VlmError(ErrorCode.NOT_ACTIVE, self.absence(self.connect_timeout)))

        # After Ctrl-C has shut ROS 2 down nothing can be found any more, but what takes a request back leaves still.
        if not self.patience_for(is_there) or not self.waiter.is_up():
            try_to_send()
        else:
            threading.Thread(target=connect, name="mobilevlm-connect", daemon=True).start()

    def patience_for(self, is_there: Callable[[], bool]) -> float:
        """Returns the seconds that a request may wait for the node before it is sent: 0 where the two know one another."""
        if not found(is_there):
            self._greeted = False  # the node has gone, and must discover this client anew when it is back
        return 0.0 if self._greeted else 2 * self.connect_timeout

    def _greet(self) -> None:
        """Blocks until the node answers this client, at most `connect_timeout`.

        A node that has not discovered a client yet drops its answers, so that a first request would be waited for in vain. Which
        endpoints there are is told in the order of their making; so a node that answers on the last one knows them all.
        """
        with self._greeting:
            end = time.monotonic() + self.connect_timeout
            while not self._greeted and time.monotonic() < end and self.waiter.is_up():
                answered = threading.Event()
                try:
                    future = self.state.call_async(GetState.Request())
                    future.add_done_callback(lambda _, answered=answered: answered.set())
                    self._greeted = answered.wait(_GREETING_SECONDS)
                    self.state.remove_pending_request(future)
                except InvalidHandle:  # the caller's node has been destroyed
                    return

    def wait_until(self, is_there: Callable[[], bool], seconds: float) -> bool:
        """Blocks until a service or action is there; returns whether it was within `seconds`."""
        end = time.monotonic() + seconds
        while not found(is_there):
            if time.monotonic() >= end or not self.waiter.is_up():
                return False
            time.sleep(_LOOK)
        return True

    def absence(self, seconds: float) -> str:
        """Says in one line that the node is not there, and which ones are."""
        try:
            services = self.node.get_service_names_and_types()
        except InvalidHandle:  # the caller's node has been destroyed
            services = []
        others = sorted(service.rsplit("/", 1)[0] for service, kinds in services if "mobilevlm_msgs/srv/Ask" in kinds)
        instead = f", but there is '{others[0]}'" if others else ""
        return f"there is no node '{self.name}' within {seconds:g} s{instead}: is it running, with the same ROS_DOMAIN_ID?"


def found(is_there: Callable[[], bool]) -> bool:
    """Whether a service or action has been discovered; not where the caller's own node or ROS 2 itself has come to its end."""
    try:
        return is_there()
    except Exception:  # noqa: BLE001 - rclpy raises many kinds then
        return False

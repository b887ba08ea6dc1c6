"""A standing query seen from its client: added at the node, its findings handed on as they come, removed at the end."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from math import inf
from types import TracebackType
from typing import Any, TypedDict

from mobilevlm_msgs.msg import StandingAnswer, StandingQuery
from mobilevlm_msgs.srv import AddQuery, ListQueries, RemoveQuery
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.node import Node
from rclpy.qos import QoSProfile

from mobilevlm_ros.client.changes import Changes
from mobilevlm_ros.client.connection import Connection
from mobilevlm_ros.client.options import Publish, duration
from mobilevlm_ros.client.pending import Pending
from mobilevlm_ros.client.results import Finding, finding_of, raise_for
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

SECONDS_FOR_A_CALL = 5.0
"""How long the node has to add, remove or list queries."""

UNREAD = 256
"""Findings that are kept until they are read."""

_LOOK = 0.3
"""Seconds between two looks whether the first answer is there already."""


class Wishes(TypedDict, total=False):
    """What a standing query can be told by keyword."""

    labels: Sequence[str]  # for a question: the answers that can come back
    camera: str  # which camera; the node's first
    frames: int  # asked about every n-th frame, in the place of `every`
    publish: Publish | int  # ON_CHANGE, the default, or ALWAYS
    refresh: float  # seconds after which it is asked although the picture has not changed
    min_change: float  # how much a tile of the picture must change, in levels of 0 to 255; 0: it need not
    max_tokens: int  # longest answer
    name: str  # a query that has it already is replaced; by default one of its own


def standing_query(
    node: Node,
    kind: int,
    text: str,
    every: float,
    labels: Sequence[str] = (),
    camera: str = "",
    frames: int = 0,
    publish: int = Publish.ON_CHANGE,
    refresh: float = 0.0,
    min_change: float = -1.0,
    max_tokens: int = 0,
    name: str = "",
) -> StandingQuery:
    """Returns the query's message; without a name it is called after the client's node, and not as any other."""
    own = f"q_{re.sub(r'[^A-Za-z0-9_-]', '_', node.get_name())[:40]}-{secrets.token_hex(4)}"
    return StandingQuery(
        name=name or own,
        kind=kind,
        text=text,
        labels=list(labels),
        camera=camera,
        period=duration(0.0 if frames else every),
        frames=frames,
        min_change=float(min_change),
        refresh=duration(refresh),
        publish=int(publish),
        max_tokens=max_tokens,
    )


class Watch:
    """A standing query of one's own: iterate over its findings with `for` or `async for`, `listen`, or `take` what has come.

    The first finding is the answer as it is now; of those that nobody reads the newest are kept. `close` removes the query; so do
    the end of a `with` block and a loop that is left. A query stays at the node where its client dies: one with a `name` is
    replaced when the client comes back.
    """

    def __init__(self, connection: Connection, query: StandingQuery) -> None:
        """Begins to listen and has the query added as soon as the node is there."""
        self.name: str = query.name
        self._connection = connection
        self._query = query
        self._changes = Changes()
        self._lock = threading.Lock()
        self._findings: deque[Finding] = deque(maxlen=UNREAD)
        self._last: StandingAnswer | None = None
        self._listener: Callable[[Finding], None] | None = None
        self._error: VlmError | None = None
        self._closed = False
        # In order, and none is lost while a reader is busy.
        self._subscription = connection.node.create_subscription(
            StandingAnswer,
            f"{connection.name}/standing",
            self._on_message,
            QoSProfile(depth=64),
            callback_group=MutuallyExclusiveCallbackGroup(),
            event_callbacks=_no_events(),
        )
        threading.Thread(target=self._begin, name="mobilevlm-watch", daemon=True).start()

    def __iter__(self) -> Iterator[Finding]:
        """Yields the findings as they come, until it is closed; raises VlmError where the node does not take the query."""
        waiter = self._connection.waiter
        try:
            while waiter.until(self._has_news, self._changes, inf):
                finding = self.take()
                if finding is None:
                    return
                yield finding
        finally:
            self.close()

    async def __aiter__(self) -> AsyncIterator[Finding]:
        """As `__iter__`, in asyncio or in a coroutine that an rclpy executor runs."""
        try:
            while await self._changes.until(self._has_news, inf):
                finding = self.take()
                if finding is None:
                    return
                yield finding
        finally:
            self.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def take(self) -> Finding | None:
        """Returns the next finding, None where none has come; raises VlmError where the node did not take the query."""
        with self._lock:
            if self._findings:
                return self._findings.popleft()
        if self._error is not None:
            raise self._error
        return None

    def listen(self, listener: Callable[[Finding], None]) -> None:
        """Has `listener` called with each finding from now on, in a thread of the node's executor, in place of the iterator."""
        with self._lock:
            self._listener = listener
            waiting = list(self._findings)
            self._findings.clear()
        for finding in waiting:
            listener(finding)

    def close(self) -> None:
        """Removes the query. May be called more than once."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with suppress(InvalidHandle):  # the caller's node has been destroyed
            self._connection.node.destroy_subscription(self._subscription)
        self._changes.tell()
        if self._error is not None:
            return
        removed = self._remove()
        if not self._connection.waiter.is_spun():  # else it goes out by itself, and an asyncio loop need not stand still
            self._connection.waiter.see_off(removed.done, removed.changes, removed.deadline)

    def _has_news(self) -> bool:
        return bool(self._findings) or self._closed or self._error is not None

    def _is_closed(self) -> bool:
        return self._closed

    def _begin(self) -> None:
        """Adds the query, and fetches its first answer, which may be published before this client is discovered."""
        try:
            self._remove_namesake()
            if self._is_closed():
                return
            self._wait(self._call(self._connection.add_query, AddQuery.Request(query=self._query)))
            while not (self._last or self._is_closed()):
                listed = self._wait(self._call(self._connection.list_queries, ListQueries.Request()))
                for answer in listed.answers:
                    if answer.name == self.name and not self._last:
                        self._on_message(answer)
                time.sleep(_LOOK)
            if self._is_closed():  # perhaps before the node had added it
                self._remove()
        except VlmError as error:
            self._error = error
            self._changes.tell()

    def _remove_namesake(self) -> None:
        """Removes a query of this name that an earlier client may have left."""
        try:
            self._wait(self._remove())
        except VlmError as error:
            if error.code is not ErrorCode.BAD_REQUEST:  # which says that there is none
                raise

    def _on_message(self, message: StandingAnswer) -> None:
        with self._lock:
            if message.name != self.name or message == self._last or self._closed:
                return
            self._last = message
            finding, listener = finding_of(message), self._listener
            if listener is None:
                self._findings.append(finding)
        if listener is not None:
            listener(finding)
        self._changes.tell()

    def _remove(self) -> Pending[Any]:
        return self._call(self._connection.remove_query, RemoveQuery.Request(name=self.name))

    def _call(self, client: Any, request: Any) -> Pending[Any]:
        def converted(response: Any) -> Any:
            raise_for(response.error_code, response.error_msg)
            return response

        return self._connection.request(client, request, SECONDS_FOR_A_CALL, converted)

    def _wait(self, pending: Pending[Any]) -> Any:
        ended = threading.Event()
        pending.add_done_callback(lambda _: ended.set())
        ended.wait()
        return pending.result()


def _no_events() -> Any:
    """Keeps rclpy from waiting for events of a subscription: closing it in another thread could end whoever spins the node."""
    try:
        from rclpy.event_handler import SubscriptionEventCallbacks
    except ImportError:  # Humble
        from rclpy.qos_event import SubscriptionEventCallbacks
    return SubscriptionEventCallbacks(use_default_callbacks=False)

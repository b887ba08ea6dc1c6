"""A thread of its own that takes the cameras' pictures from the middleware, apart from the node's executor.

rclpy's executor builds its set of things to wait for anew several times around each message, which with a node's thirty entities
costs as much as the message itself. Here only the picture subscriptions are waited for. They are opened and closed in the same
thread, so that none goes away while it is waited for. Messages come serialized. Knows neither cameras nor requests.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.context import Context
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.logging import get_logger

TEND_SECONDS = 0.5
"""How often the regular work is done while anything is listened to."""

_LOG_SECONDS = 5.0


class Nobody(CallbackGroup):
    """The group of what no executor takes."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        """Nothing was begun."""


class Reception:
    """Takes messages of subscriptions and hands each to its subscription's callback. The thread starts with the first work."""

    def __init__(self, context: Context) -> None:
        self.group = Nobody()
        """For the subscriptions that are given to `add`."""
        self._context = context
        self._wake = GuardCondition(callback=None, callback_group=None, context=context)
        self._work: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._regular: list[Callable[[], None]] = []
        self._subscriptions: tuple[Any, ...] = ()
        self._wait_set: Any = None
        self._next_regular = 0.0
        self._last_logged = -_LOG_SECONDS
        self._stopped = False
        self._start = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="mobilevlm-pictures", daemon=True)
        context.on_shutdown(self.wake)

    def regularly(self, work: Callable[[], None]) -> None:
        """Has `work` done in the thread every `TEND_SECONDS` while there are subscriptions."""
        self._regular.append(work)

    def do(self, work: Callable[[], None]) -> Future[None]:
        """Has `work` done in the thread, soon; its end, or what it raised, is in the future, which is cancelled after `close`."""
        done: Future[None] = Future()
        with self._start:
            if self._stopped:
                done.cancel()
                return done
            self._work.append((work, done))
            if not self._thread.ident:
                self._thread.start()
        self.wake()
        return done

    def add(self, subscription: Any) -> None:
        """Takes from a subscription of `group`, made with `raw`, from now on. In the thread only."""
        self._take_from((*self._subscriptions, subscription))

    def remove(self, subscription: Any) -> None:
        """Takes from it no longer, so that it can be destroyed. In the thread only."""
        self._take_from(tuple(other for other in self._subscriptions if other is not subscription))

    def wake(self) -> None:
        """Lets the thread look for work."""
        try:
            self._wake.trigger()
        except Exception:  # noqa: BLE001 - rclpy's InvalidHandle: it is closed, so there is no thread to wake
            return

    def close(self) -> None:
        """Ends the thread. May be called more than once."""
        with self._start:
            self._stopped = True
        self.wake()
        if self._thread.ident:
            self._thread.join()
        self._wake.destroy()

    def _refuse_work(self) -> None:
        with self._start:
            self._stopped = True
        while self._work:
            self._work.popleft()[1].cancel()

    def _take_from(self, subscriptions: tuple[Any, ...]) -> None:
        self._subscriptions, self._wait_set = subscriptions, None

    def _run(self) -> None:
        while not self._stopped and self._context.ok():
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 - one message or one piece of work must not end the others
                self._log(error)
                time.sleep(0.01)
        self._refuse_work()

    def _turn(self) -> None:
        while self._work:
            _finish(*self._work.popleft())
        for subscription in self._wait():
            self._take(subscription)
        if self._subscriptions and time.monotonic() >= self._next_regular:
            self._next_regular = time.monotonic() + TEND_SECONDS
            for work in self._regular:
                work()

    def _wait(self) -> list[Any]:
        """Returns the subscriptions that have a message, or none when it is woken or regular work is due."""
        timeout = -1
        if self._subscriptions:
            timeout = round(max(0.0, self._next_regular - time.monotonic()) * 1e9)
        with ExitStack() as stack:
            # Held while they are waited for: whoever destroys the node meanwhile destroys them only afterwards.
            for entity in (*self._subscriptions, self._wake, self._context):
                stack.enter_context(entity.handle)
            if self._wait_set is None:
                self._wait_set = _rclpy.WaitSet(len(self._subscriptions), 1, 0, 0, 0, 0, self._context.handle)
            waiting = self._wait_set
            waiting.clear_entities()
            waiting.add_guard_condition(self._wake.handle)
            places = [waiting.add_subscription(subscription.handle) for subscription in self._subscriptions]
            waiting.wait(timeout)
            ready = (waiting.is_ready("subscription", place) for place in places)
            return [subscription for subscription, is_ready in zip(self._subscriptions, ready, strict=True) if is_ready]

    def _take(self, subscription: Any) -> None:
        with subscription.handle:
            taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
        if taken is not None:
            subscription.callback(taken[0])

    def _log(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._last_logged >= _LOG_SECONDS and self._context.ok() and not self._stopped:
            self._last_logged = now
            reason = " ".join(str(error).split())
            get_logger("mobilevlm").warning(f"receiving a picture failed: {type(error).__name__}: {reason}")


def _finish(work: Callable[[], None], done: Future[None]) -> None:
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - whoever waits for it is told
        done.set_exception(error)
    else:
        done.set_result(None)

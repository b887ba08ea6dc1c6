"""The options of a request, as a caller names them, and the message that they become."""

from __future__ import annotations

from enum import IntEnum
from typing import TypedDict

from builtin_interfaces.msg import Duration
from mobilevlm_msgs.msg import RequestOptions, StandingQuery


class FramePolicy(IntEnum):
    """Which frame a request is about."""

    NEWEST = RequestOptions.NEWEST  # the newest one there is
    NEXT = RequestOptions.NEXT  # the first one after the request
    SAME = RequestOptions.SAME  # in a conversation: that of its last turn


class Priority(IntEnum):
    """Which waiting request goes first."""

    LOW = RequestOptions.PRIORITY_LOW
    NORMAL = RequestOptions.PRIORITY_NORMAL
    HIGH = RequestOptions.PRIORITY_HIGH


class Publish(IntEnum):
    """When a standing query tells its answer."""

    ON_CHANGE = StandingQuery.ON_CHANGE
    ALWAYS = StandingQuery.ALWAYS


class Options(TypedDict, total=False):
    """What every request can be told by keyword. What is left out is up to the node's parameters."""

    camera: str  # which camera; the node's first
    frame_policy: FramePolicy | int
    max_age: float  # seconds that the frame may be old
    timeout: float  # seconds; what the client was made with
    priority: Priority | int
    max_tokens: int  # longest answer
    temperature: float  # 0: always the likeliest word


def request_options(
    timeout: float = 0.0,
    max_age: float = 0.0,
    camera: str = "",
    frame_policy: int = FramePolicy.NEWEST,
    priority: int = Priority.NORMAL,
    max_tokens: int = 0,
    temperature: float = -1.0,
) -> RequestOptions:
    """Returns the options as a message; `timeout` and `max_age` in seconds. What is left out is up to the node."""
    return RequestOptions(
        timeout=duration(timeout),
        max_age=duration(max_age),
        camera=camera,
        frame_policy=int(frame_policy),
        priority=int(priority),
        max_tokens=max_tokens,
        temperature=float(temperature),
    )


def duration(seconds: float) -> Duration:
    """Returns seconds, 0 or more, as a message."""
    nanoseconds = round(seconds * 1e9)
    return Duration(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)

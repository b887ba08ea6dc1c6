"""Which pictures of a video or a recorded bag are looked at. Arithmetic on times; knows no files."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

T = TypeVar("T")

_SAME = 1e-6
"""Seconds by which recorded times may be rounded."""


@dataclass(frozen=True)
class EverySeconds:
    """The first picture at or after each multiple of this many seconds, over 0; raises VlmError(BAD_REQUEST)."""

    seconds: float

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise VlmError(ErrorCode.BAD_REQUEST, f"--every is {self.seconds:g}, it must be over 0")

    def pick(self, timed: Iterable[tuple[float, T]], start: float) -> Iterator[tuple[float, T]]:
        """Those of the pictures, in order of their times in seconds."""
        due = start
        for seconds, picture in timed:
            if seconds >= due - _SAME:
                yield seconds, picture
                due = start + (math.floor((seconds - start + _SAME) / self.seconds) + 1) * self.seconds

    def count(self, pictures: int, duration: float) -> int:
        """How many that will be of so many pictures evenly spread over `duration` seconds."""
        return min(pictures, math.floor(duration / self.seconds + _SAME) + 1)

    def rate(self, recorded: float) -> float:
        """Chosen pictures a second, of so many recorded ones."""
        return min(recorded, 1 / self.seconds)


@dataclass(frozen=True)
class EveryFrame:
    """Each n-th picture, from the first; 1 or more; raises VlmError(BAD_REQUEST)."""

    number: int

    def __post_init__(self) -> None:
        if self.number < 1:
            raise VlmError(ErrorCode.BAD_REQUEST, f"--every-frame is {self.number}, it must be at least 1")

    def pick(self, timed: Iterable[tuple[float, T]], start: float) -> Iterator[tuple[float, T]]:
        """Those of the pictures."""
        return itertools.islice(iter(timed), 0, None, self.number)

    def count(self, pictures: int, duration: float) -> int:
        """How many that will be of so many pictures."""
        return math.ceil(pictures / self.number)

    def rate(self, recorded: float) -> float:
        """Chosen pictures a second, of so many recorded ones."""
        return recorded / self.number


@dataclass(frozen=True)
class Sampling:
    """Which pictures are looked at.

    Attributes:
        every: how densely.
        start: seconds from the beginning of the video or bag, from 0.
        end: likewise, after `start`; pictures at that time and later are left out.
        limit: at most so many, 1 or more; holds for folders too.

    Raises:
        VlmError: BAD_REQUEST if a value is out of its range.
    """

    every: EverySeconds | EveryFrame = EverySeconds(1.0)
    start: float = 0.0
    end: float = math.inf
    limit: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start < math.inf:
            raise VlmError(ErrorCode.BAD_REQUEST, f"--start is {self.start:g}, it must be 0 or more")
        if not self.end > self.start:
            raise VlmError(ErrorCode.BAD_REQUEST, f"--end is {self.end:g}, it must be after --start, {self.start:g}")
        if self.limit is not None and self.limit < 1:
            raise VlmError(ErrorCode.BAD_REQUEST, f"--limit is {self.limit}, it must be at least 1")

    def pick(self, timed: Iterable[tuple[float, T]]) -> Iterator[tuple[float, T]]:
        """The chosen ones of all pictures with their times, ascending; reads no further than it must."""
        begun = itertools.dropwhile(lambda pair: pair[0] < self.start - _SAME, timed)
        within = itertools.takewhile(lambda pair: pair[0] < self.end - _SAME, begun)
        return itertools.islice(self.every.pick(within, self.start), self.limit)

    def count(self, pictures: int, duration: float) -> int:
        """About how many will be chosen of so many pictures, spread evenly over `duration` seconds."""
        if pictures < 1 or duration <= self.start:
            return min(pictures, 1)
        whole = pictures / duration
        span = min(self.end, duration) - self.start
        chosen = self.every.count(max(1, round(whole * span)), max(0.0, span - 1 / whole))
        return chosen if self.limit is None else min(chosen, self.limit)

"""Which processors the model's threads may use, so that a robot can keep others free for its control loops.

Knows Linux's lists of processors and a thread's affinity; knows no model.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

_PART = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")


def parse_processors(text: str) -> frozenset[int]:
    """Processor numbers from a list as the kernel writes it, such as `0,2,4-7`; empty text gives none, which means any.

    Raises:
        VlmError: BAD_REQUEST for anything else, and for processors that this process may not use.
    """
    numbers: set[int] = set()
    for part in text.replace(" ", "").split(",") if text.strip() else []:
        match = _PART.fullmatch(part)
        if match is None:
            raise VlmError(ErrorCode.BAD_REQUEST, f"'{text[:80]}' is no list of processors, such as '0,2,4-7'")
        first, last = int(match[1]), int(match[2] or match[1])
        numbers.update(range(first, last + 1))
    allowed = os.sched_getaffinity(0)
    if missing := sorted(numbers - allowed):
        raise VlmError(ErrorCode.BAD_REQUEST, f"processor {missing[0]} cannot be used here; there are {_listed(allowed)}")
    return frozenset(numbers)


def pin(processors: frozenset[int]) -> None:
    """Keep the calling thread, and those that it starts from now on, on these processors; none means any."""
    if processors:
        os.sched_setaffinity(0, processors)


@contextmanager
def pinned(processors: frozenset[int]) -> Iterator[None]:
    """`pin` for as long as the context lasts."""
    before = os.sched_getaffinity(0)
    pin(processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _listed(processors: set[int]) -> str:
    return ", ".join(map(str, sorted(processors)))

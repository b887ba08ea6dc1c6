"""Lets one of many like log lines through. Knows nothing of what is logged."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

LOG_INTERVAL = 5.0
"""Seconds between two lines about the same cause."""

_CAUSES = 64
"""How many causes are remembered, so that their number cannot grow with what clients send."""


class Throttle:
    """Tells when a cause may be logged again. Safe to use from any thread."""

    def __init__(self, interval: float = LOG_INTERVAL, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._causes: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()  # when it was logged, and how often not since
        self._lock = threading.Lock()

    def line(self, cause: Hashable, text: str) -> str | None:
        """Returns the text to log now, with how many like it were left out since the last one; None where it is too soon."""
        with self._lock:
            now = self._clock()
            logged, left_out = self._causes.get(cause, (None, 0))
            if logged is not None and now - logged < self._interval:
                self._causes[cause] = (logged, left_out + 1)
                return None
            self._causes[cause] = (now, 0)
            self._causes.move_to_end(cause)
            if len(self._causes) > _CAUSES:
                self._causes.popitem(last=False)
        return f"{text} (and {left_out} more like it since the last line)" if left_out else text

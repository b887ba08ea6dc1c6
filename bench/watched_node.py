"""The node as it is, with a note taken at each picture's callback: `python -m bench.watched_node`, arguments as the node's own.

Prints the notes as one JSON line when it has ended: a list of monotonic seconds, the callback's own duration in milliseconds, and
the processor time that its thread has taken so far, in milliseconds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from mobilevlm_ros.ros import node
from mobilevlm_ros.ros.inputs import CameraInput

_NOTES: list[tuple[float, float, float]] = []


class _WatchedInput(CameraInput):
    """A camera whose callback is timed."""

    def _callback(self, kind: Any) -> Callable[[bytes], None]:
        callback = super()._callback(kind)

        def timed(serialized: bytes) -> None:
            start = time.perf_counter()
            callback(serialized)
            own_ms = (time.perf_counter() - start) * 1e3
            _NOTES.append((time.monotonic(), own_ms, time.thread_time() * 1e3))

        return timed


def main() -> int:
    node.CameraInput = _WatchedInput  # type: ignore[misc]
    code = node.main(sys.argv)
    print(json.dumps(_NOTES), flush=True)
    return code


if __name__ == "__main__":
    raise SystemExit(main())

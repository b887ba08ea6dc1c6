"""The node's process with faults in its model: python -m tests.system.faulty_node FILE --ros-args ...

It is the real node with the real model. While FILE holds "STAGE FAULT", such as "decode raises", the fault happens at the model's
next run of that stage, once; "decode raises 3" lets three runs go before. "say TOKEN TOKEN ..." makes the model choose these
tokens, from the next answer on. STAGE is encode, prefill or decode. Nothing of this is in the product: the backend's methods are
replaced here, before the node starts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mobilevlm_ros.ros.node import main
from mobilevlm_ros.runtime import ort_backend
from mobilevlm_ros.runtime.errors import BackendError, BackendLostError, ErrorCode
from mobilevlm_ros.runtime.ort_backend import OrtBackend
from mobilevlm_ros.runtime.sampling import Sampler

LONG = 3600.0


def _raises(result: Any) -> Any:
    raise RuntimeError("the model broke")


def _lost(result: Any) -> Any:
    raise BackendLostError("the device fell off the bus")


def _out_of_memory(result: Any) -> Any:
    raise BackendError("Failed to allocate memory for requested buffer", ErrorCode.OUT_OF_MEMORY)


def _hangs(result: Any) -> Any:
    time.sleep(LONG)


def _is_nan(result: Any) -> Any:
    return np.full_like(result, np.nan)


FAULTS: dict[str, Callable[[Any], Any]] = {
    "raises": _raises,
    "is_lost": _lost,
    "runs_out_of_memory": _out_of_memory,
    "hangs": _hangs,
    "returns_nan": _is_nan,
}


class Plan:
    """The file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self, word: str) -> list[str]:
        """The rest of the file where it begins with this word; else nothing."""
        try:
            first, *rest = self._file.read_text().split() or [""]
        except FileNotFoundError:
            return []
        return rest if first == word else []

    def done(self) -> None:
        """What the file says has happened."""
        self._file.unlink()


def _with_faults(method: Callable[..., Any], stage: str, plan: Plan) -> Callable[..., Any]:
    let_go = 0

    def run(*arguments: Any) -> Any:
        nonlocal let_go
        fault, *count = plan.read(stage) or [""]
        if not fault or let_go < int("".join(count) or 0):
            let_go += bool(fault)
            return method(*arguments)
        plan.done()
        let_go = 0
        if fault == "returns_nan" and stage == "prefill":  # in the cache then, too
            backend, cache, row, embeddings, logits_at = arguments
            return method(backend, cache, row, _is_nan(embeddings), logits_at)
        return FAULTS[fault](method(*arguments))

    return run


def _with_words(choose: Callable[..., Any], plan: Plan) -> Callable[..., Any]:
    words: Iterator[int] = iter(())

    def chosen(sampler: Sampler, logits: np.ndarray, allowed: np.ndarray | None = None) -> Any:
        nonlocal words
        if tokens := plan.read("say"):
            words = iter([int(token) for token in tokens])
            plan.done()
        token = next((word for word in words if allowed is None or allowed[word]), None)  # others are forced by the answer's form
        if token is not None:
            logits = np.full_like(logits, -30.0)
            logits[token] = 0.0
        return choose(sampler, logits, allowed)

    return chosen


def break_model(file: Path) -> None:
    """Lets `file` say what goes wrong."""
    plan = Plan(file)
    for stage in ("encode", "prefill", "decode"):
        setattr(ort_backend.OrtBackend, stage, _with_faults(getattr(OrtBackend, stage), stage, plan))
    setattr(Sampler, "choose", _with_words(Sampler.choose, plan))  # noqa: B010 - mypy would not have it assigned


if __name__ == "__main__":
    break_model(Path(sys.argv.pop(1)))
    sys.exit(main())

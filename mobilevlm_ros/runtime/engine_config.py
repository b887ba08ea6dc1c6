"""How a model is run: the sizes and bounds that a caller chooses. Knows no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mobilevlm_ros.runtime.backends import BackendChoice, BackendOptions, OnFailure
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.processors import parse_processors

DEFAULT_CONTEXT = 2048
"""Tokens of a prompt and its answer, where nothing else is said and the model allows as many."""


@dataclass(frozen=True)
class EngineConfig:
    """How a model is run.

    Attributes:
        threads: processor threads for the model; 0 takes one per physical core.
        cpu_affinity: processors that these threads may use, such as "0,2,4-7"; empty: any.
        rows: requests that decode at once, 1 to 32.
        context_length: longest prompt and answer together, in tokens; the model's own limit holds too. 0 means 2048.
        queue_size: requests that may wait, 1 to 1024; one more is refused with BUSY.
        prefix_cache_mb: memory for the keys and values of recent pictures, in MiB; 0 keeps none.
        backend: what runs the model.
        backend_fallback: whether the CPU may run it where TensorRT was chosen and fails.
        engine_cache: folder for TensorRT's engines; empty: beside the package, else in the user's cache.

    Raises:
        VlmError: BAD_REQUEST if a value is out of its range.
    """

    threads: int = 0
    cpu_affinity: str = ""
    rows: int = 4
    context_length: int = 0
    queue_size: int = 8
    prefix_cache_mb: int = 160
    backend: BackendChoice = BackendChoice.AUTO
    backend_fallback: bool = False
    engine_cache: str = ""

    def __post_init__(self) -> None:
        ranges = {
            "threads": (self.threads, 0, 1024),
            "rows": (self.rows, 1, 32),
            "context_length": (self.context_length, 0, 1 << 20),
            "queue_size": (self.queue_size, 1, 1024),
            "prefix_cache_mb": (self.prefix_cache_mb, 0, 1 << 20),
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise VlmError(ErrorCode.BAD_REQUEST, f"{name} is {value}, it must be {low} to {high}")
        parse_processors(self.cpu_affinity)

    def backend_options(self, max_positions: int) -> BackendOptions:
        """What the backend has to serve, for a model of so many positions."""
        return BackendOptions(
            choice=self.backend,
            on_failure=OnFailure.USE_CPU if self.backend_fallback else OnFailure.RAISE,
            threads=self.threads,
            processors=parse_processors(self.cpu_affinity),
            rows=self.rows,
            context_length=self.context_for(max_positions),
            engine_cache=Path(self.engine_cache).expanduser() if self.engine_cache else None,
        )

    def context_for(self, max_positions: int) -> int:
        """The context length for a model of so many positions."""
        return min(self.context_length or DEFAULT_CONTEXT, max_positions)

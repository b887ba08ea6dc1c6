"""The names of TensorRT that stand for choices, and what a program derives its own classes from."""

from __future__ import annotations

from enum import Enum, IntEnum


class Severity(IntEnum):
    """Of a message; the lower the worse."""

    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


class ILogger:
    """What a program derives its logger from."""

    Severity = Severity

    def log(self, severity: int, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    """What a program derives its monitor from."""


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class MemoryPoolType(Enum):
    WORKSPACE = 0


class TensorIOMode(Enum):
    INPUT = 1
    OUTPUT = 2


class ExecutionContextAllocationStrategy(Enum):
    STATIC = 0
    USER_MANAGED = 2


class LayerType(Enum):
    """Of layers, which the simulation has none of."""

"""Which backend runs a model: chosen by the user, or by what the machine and the package have.

Knows when each can be had and what it needs; the backends' own libraries are imported only where one is tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from mobilevlm_ros.runtime.backend import Backend
from mobilevlm_ros.runtime.errors import BackendError, PackageError, VlmError
from mobilevlm_ros.runtime.ort_backend import OrtBackend
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.processors import pinned

Report = Callable[[str], None]
"""Takes a line about what is being done, where that takes long."""


class BackendChoice(str, Enum):
    """What is to run a model."""

    AUTO = "auto"
    """TensorRT where the machine has it with a device, and the package has graphs for it; else the CPU."""
    CPU = "cpu"
    TENSORRT = "tensorrt"


class OnFailure(Enum):
    """What to do where TensorRT was chosen and cannot run the model."""

    RAISE = "raise"
    USE_CPU = "use the CPU"


@dataclass(frozen=True)
class BackendOptions:
    """How to run a model.

    Attributes:
        threads: processor threads; 0 takes one per physical core, or one per processor of `processors`.
        processors: those that the threads may run on; none means any.
        rows: requests that decode at once.
        context_length: longest prompt and answer together, in tokens.
        engine_cache: folder for TensorRT's engines; None: beside the package, else in the user's cache.
    """

    choice: BackendChoice
    on_failure: OnFailure
    threads: int
    processors: frozenset[int]
    rows: int
    context_length: int
    engine_cache: Path | None


def open_backend(package: ModelPackage, options: BackendOptions, report: Report) -> Backend[Any]:
    """Load a verified model package; builds TensorRT's engines where they are not there yet.

    Args:
        report: is told what is being done, line by line.

    Raises:
        PackageError: a graph is missing, does not load, or does not fit the manifest.
        BackendError: the backend that was chosen cannot be had, and no other was allowed.
    """
    if options.choice is BackendChoice.CPU:
        return _on_cpu(package, options)
    try:
        return _open_tensorrt(package, options, report)
    except _NothingToRunOnError as error:
        if options.choice is BackendChoice.TENSORRT and options.on_failure is OnFailure.RAISE:
            raise error.reason from error
        told = options.choice is BackendChoice.TENSORRT or error.surprising
        return _instead(package, options, error.reason, report) if told else _on_cpu(package, options)
    except VlmError as error:
        if options.on_failure is OnFailure.RAISE:
            raise
        return _instead(package, options, error, report)


class _NothingToRunOnError(Exception):
    """The machine has no TensorRT, or the package no graph for it: `reason`, `surprising` where one would expect otherwise."""

    def __init__(self, reason: VlmError, surprising: bool) -> None:
        super().__init__(reason.message)
        self.reason = reason
        self.surprising = surprising


def _open_tensorrt(package: ModelPackage, options: BackendOptions, report: Report) -> Backend[Any]:
    from mobilevlm_ros.runtime.tensorrt.backend import TensorRtBackend
    from mobilevlm_ros.runtime.tensorrt.builder import EngineNeeds, check_graphs, l4t_release
    from mobilevlm_ros.runtime.tensorrt.library import NotInstalledError, open_libraries

    try:
        libraries = open_libraries()
        check_graphs(package)
    except NotInstalledError as error:
        raise _NothingToRunOnError(error, surprising=l4t_release() != "") from error
    except (BackendError, PackageError) as error:
        raise _NothingToRunOnError(error, surprising=True) from error
    return TensorRtBackend(libraries, package, EngineNeeds(options.rows, options.context_length, options.engine_cache), report)


def _instead(package: ModelPackage, options: BackendOptions, reason: VlmError, report: Report) -> Backend[Any]:
    notice = f"runs on the CPU instead of TensorRT: {reason.message}"
    report(notice)
    return _on_cpu(package, options, notice)


def _on_cpu(package: ModelPackage, options: BackendOptions, notice: str = "") -> Backend[Any]:
    with pinned(options.processors):  # the library's threads stay where the one that starts them was
        return OrtBackend(package, options.threads or len(options.processors), notice=notice)

"""What a machine must have to run on TensorRT: the libraries, and how to start a program that builds an engine."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from typing import Any

from mobilevlm_ros.runtime.errors import BackendError
from mobilevlm_ros.runtime.tensorrt.cudart import Cudart

OLDEST = (10, 3)
BUILD_MODULE = "mobilevlm_ros.runtime.tensorrt.build"


class NotInstalledError(BackendError):
    """The machine has no TensorRT for this Python."""


@dataclass(frozen=True)
class Libraries:
    """TensorRT's Python module, CUDA's run time, and the command line to which a build's arguments are added."""

    tensorrt: Any
    cudart: Cudart
    build_command: tuple[str, ...] = (sys.executable, "-m", BUILD_MODULE)


_instead: Libraries | None = None


def use_instead(libraries: Libraries | None) -> None:
    """Let `open_libraries` hand out these instead of the machine's own; None ends that. For simulations."""
    global _instead
    _instead = libraries


def open_libraries() -> Libraries:
    """The machine's libraries.

    Raises:
        BackendError: one line that says what is missing and where it comes from.
    """
    if _instead is not None:
        return _instead
    return Libraries(load_tensorrt(), Cudart.load())


def load_tensorrt() -> Any:
    """TensorRT's Python module; raises NotInstalledError, or BackendError for one that is too old."""
    try:
        module = importlib.import_module("tensorrt")
    except ImportError as error:
        raise NotInstalledError(
            f"tensorrt is not installed ({error}): on a Jetson it comes with JetPack (apt install python3-libnvinfer; a virtual "
            "environment must be made with --system-site-packages), on a PC with a GPU: pip install tensorrt"
        ) from error
    version = getattr(module, "__version__", "0")
    if version_numbers(version)[:2] < OLDEST:
        raise BackendError(f"tensorrt is {version}, needed is {'.'.join(map(str, OLDEST))} or later: JetPack 6 has it")
    return module


def version_numbers(version: str) -> tuple[int, ...]:
    """ "10.3.0.26" as numbers; what is no number ends it."""
    numbers: list[int] = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)

"""Where `mobilevlm doctor --jetson` looks: this machine's own files and libraries, or pretended ones."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from mobilevlm_ros.doctor.check import Surroundings
from mobilevlm_ros.machine import read_machine
from mobilevlm_ros.runtime.tensorrt.library import Libraries, open_libraries


class Nature(Enum):
    """What the libraries are."""

    REAL = "real"
    SIMULATED = "simulated"


@dataclass(frozen=True)
class Site:
    """What is looked at.

    Attributes:
        surroundings: where the system's files lie, and the environment.
        open_libraries: TensorRT and CUDA; raises BackendError where they are not to be had.
        python: the interpreter's version, such as "3.10.12".
        problems: what a pretended driver found wrong; nothing where the driver is real.
    """

    surroundings: Surroundings = field(default_factory=Surroundings)
    open_libraries: Callable[[], Libraries] = open_libraries
    nature: Nature = Nature.REAL
    python: str = field(default_factory=platform.python_version)
    problems: Callable[[], list[str]] = list

    def free_memory(self, libraries: Libraries) -> int:
        """Bytes that programs can still have. On a Jetson that is the processor's, where cached files count as free."""
        if self.nature is Nature.REAL and libraries.cudart.device().integrated:
            return read_machine(self.surroundings.root).available
        return libraries.cudart.memory()[0]

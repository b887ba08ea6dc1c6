"""What `mobilevlm doctor --jetson` builds engines from: the model that ships, packages with made-up weights, or a user's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from mobilevlm_ros.bench.synthetic import Skeleton
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.package import ModelPackage

_TIMES_ON_DISK = 2.2
"""A package and its engines, over the package's weights."""

Report = Callable[[str], None]
"""Takes a line about what is being done."""


class Shipped(Enum):
    """Skeletons that ship; the value is the archive's name."""

    SMALL_INT4 = "small-int4"
    FULL_INT4 = "v2-1.7b-int4"
    FULL_FP16 = "v2-1.7b-fp16"

    @property
    def path(self) -> Path:
        """The archive."""
        return Path(__file__).with_name(f"{self.value}.zip")


class Look(Enum):
    """What is looked at in a package."""

    ANSWERS = "answers"
    """Whether what comes out is what the processor computes."""
    PROOF = "proof"
    """Whether it says what is in a picture that it must know."""
    SPEED = "speed"


class Reference(Enum):
    """What an engine's numbers are compared with; ONNX Runtime computes either on the processor."""

    CPU_GRAPH = "the CPU's graph"
    PORTABLE_GRAPH = "the same weights"
    """The portable graph, where the CPU's has weights of its own."""


@dataclass(frozen=True)
class Subject:
    """A package to look at. `source` is its folder, or the skeleton that it is made from."""

    title: str
    source: Path | Shipped
    looks: frozenset[Look]
    reference: Reference = Reference.CPU_GRAPH


@contextmanager
def opened(subject: Subject, work: Path, report: Report) -> Iterator[ModelPackage]:
    """The package; made-up weights are written below `work` and removed afterwards.

    Raises:
        VlmError: there is no room for it, or it is no model package.
        OSError: from the file system.
    """
    if isinstance(subject.source, Path):
        yield ModelPackage.open(subject.source)
        return
    skeleton = Skeleton.load(subject.source.path)
    needed, free = skeleton.size * _TIMES_ON_DISK, shutil.disk_usage(work).free
    if free < needed:
        raise VlmError(
            ErrorCode.MODEL_ERROR, f"{work} has {free / 1e9:.1f} GB free, needed are {needed / 1e9:.1f} GB: choose another --work"
        )
    target = work / skeleton.manifest.name
    report(f"{subject.title}: writing {skeleton.size / 1e9:.1f} GB of made-up weights")
    try:
        skeleton.write_package(target)
        yield ModelPackage.open_unverified(target)
    finally:
        shutil.rmtree(target, ignore_errors=True)

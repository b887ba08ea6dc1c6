"""What a check finds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from mobilevlm_ros.machine import ROOT


class Status(str, Enum):
    """How a check ended. Only FAIL keeps the machine from answering questions."""

    PASS = "PASS"
    WARN = "WARN"  # works, but not as well as it could
    MISSING = "MISSING"  # not there; something that not everybody needs
    SKIP = "SKIP"  # could not be looked at, or was not to be; the detail says why
    FAIL = "FAIL"  # not there or broken, and nothing can be asked without


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        name: what was looked at.
        detail: what was found, in one line.
        remedy: what to do about it, in one line; empty for PASS.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Figure(Check):
    """A check with a measured number.

    Attributes:
        value: what was measured.
        unit: of the value, such as "ms".
        predicted: the lowest and the highest value to expect; None where nothing is predicted.
        conditions: power mode and clocks while it was measured.
    """

    value: float = 0.0
    unit: str = ""
    predicted: tuple[float, float] | None = None
    conditions: str = ""


@dataclass(frozen=True)
class Group:
    """Checks that belong together."""

    title: str
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Surroundings:
    """Where the checks look: environment variables, and the folder below which the system's files lie."""

    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    root: Path = ROOT

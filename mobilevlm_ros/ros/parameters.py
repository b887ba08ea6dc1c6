"""The node's parameters: one table, one typed set of values, one check of the set as a whole.

`PARAMETERS` is the only place where a parameter's name, default, meaning, range and changeability stand; the YAML files in
config/ are tested against it. `NodeOptions` is what the rest of the node reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor


class Change(Enum):
    """When a parameter may be changed."""

    ANY_TIME = "any time"
    UNCONFIGURED = "while the node is unconfigured"
    NEVER = "never"


class Transport(str, Enum):
    """Which of a camera's two topics is listened to."""

    AUTO = "auto"
    RAW = "raw"
    COMPRESSED = "compressed"


@dataclass(frozen=True)
class Parameter:
    """One row of the table. `low` and `high` are inclusive."""

    name: str
    default: Any
    description: str
    change: Change
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    def descriptor(self) -> ParameterDescriptor:
        """Returns what `ros2 param describe` shows; rclpy enforces the ranges by it."""
        descriptor = ParameterDescriptor()
        descriptor.description = self.description
        descriptor.read_only = self.change is Change.NEVER
        descriptor.additional_constraints = self._constraints()
        if self.low is not None and self.high is not None:
            if isinstance(self.default, float):
                descriptor.floating_point_range = [FloatingPointRange(from_value=self.low, to_value=self.high)]
            else:
                low, high = int(self.low), int(self.high)
                descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
        return descriptor

    def _constraints(self) -> str:
        parts = [f"one of {', '.join(self.choices)}"] if self.choices else []
        if self.change is Change.UNCONFIGURED:
            parts.append(f"changeable {self.change.value}")
        return "; ".join(parts)


PARAMETERS: tuple[Parameter, ...] = (
    Parameter("model", "", "Folder of the model package, or 'nano' for the small one that ships.", Change.UNCONFIGURED),
    Parameter(
        "adapters",
        [""],
        "Folders of packages, such as adapters of the model, that `~/select_model` can change to; '' is none.",
        Change.UNCONFIGURED,
    ),
    Parameter("autostart", True, "Configure and activate the node by itself when it starts.", Change.NEVER),
    Parameter("threads", 0, "Processor threads for the model; 0: one per physical core.", Change.UNCONFIGURED, 0, 1024),
    Parameter("rows", 4, "Requests that are answered at once, as one batch.", Change.UNCONFIGURED, 1, 32),
    Parameter("queue_size", 8, "Requests that may wait; one more ends with BUSY at once.", Change.UNCONFIGURED, 1, 256),
    Parameter(
        "context_length",
        0,
        "Longest prompt and answer together, in tokens; 0: the smaller of the model's own and 2048.",
        Change.UNCONFIGURED,
        0,
        32768,
    ),
    Parameter(
        "prefix_cache_mb",
        256,
        "Memory for what was computed for recent pictures, in MiB; 0 keeps nothing.",
        Change.UNCONFIGURED,
        0,
        65536,
    ),
    Parameter(
        "cameras",
        ["camera"],
        "Names of the cameras. A single one listens on `image`, several listen on `<name>/image`.",
        Change.NEVER,
    ),
    Parameter(
        "image_transport",
        Transport.AUTO.value,
        "Which topic of a camera to listen to; auto: the compressed one only where nobody publishes the raw one.",
        Change.UNCONFIGURED,
        choices=tuple(transport.value for transport in Transport),
    ),
    Parameter(
        "max_image_age", 1.0, "How old a picture may be when it is asked about, in seconds.", Change.ANY_TIME, 0.001, 3600.0
    ),
    Parameter(
        "request_timeout",
        30.0,
        "When a request that names no timeout is given up, in seconds after its arrival.",
        Change.ANY_TIME,
        0.01,
        3600.0,
    ),
    Parameter("max_tokens", 128, "Longest answer, in tokens, where the request does not say.", Change.ANY_TIME, 1, 4096),
    Parameter(
        "temperature",
        0.0,
        "How freely words are chosen where the request does not say; 0: always the likeliest.",
        Change.ANY_TIME,
        0.0,
        5.0,
    ),
    Parameter("top_p", 1.0, "Smallest share of the probability that words are drawn from.", Change.ANY_TIME, 0.01, 1.0),
    Parameter("seed", -1, "Makes drawn answers repeatable; -1: not.", Change.ANY_TIME, -1, 2**31 - 1),
    Parameter("chat_sessions", 16, "Conversations that are kept; the oldest is forgotten first.", Change.ANY_TIME, 1, 1024),
    Parameter("chat_turns", 16, "Turns of a conversation that are kept.", Change.ANY_TIME, 1, 256),
    Parameter("chat_timeout", 600.0, "Seconds after which an unused conversation is forgotten.", Change.ANY_TIME, 1.0, 86400.0),
    Parameter("diagnostics_period", 1.0, "Seconds between two diagnostics messages.", Change.NEVER, 0.1, 60.0),
)


@dataclass(frozen=True)
class NodeOptions:
    """The values of `PARAMETERS`, checked. Fields carry the parameters' names and units."""

    model: str
    adapters: tuple[str, ...]
    autostart: bool
    threads: int
    rows: int
    queue_size: int
    context_length: int
    prefix_cache_mb: int
    cameras: tuple[str, ...]
    image_transport: Transport
    max_image_age: float
    request_timeout: float
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    chat_sessions: int
    chat_turns: int
    chat_timeout: float
    diagnostics_period: float

    @property
    def max_requests(self) -> int:
        """Requests that may be in the node at once: those that are answered and those that wait."""
        return self.rows + self.queue_size

    @staticmethod
    def of(values: Mapping[str, Any]) -> NodeOptions:
        """Checks each value and the set as a whole.

        Args:
            values: every parameter's name and value; other names are ignored.

        Raises:
            ValueError: one line that names the parameter, its value and what is allowed.
        """
        checked = {parameter.name: _checked(parameter, values[parameter.name]) for parameter in PARAMETERS}
        options = NodeOptions(**checked)
        if options.context_length and options.max_tokens >= options.context_length:
            raise ValueError(
                f"max_tokens is {options.max_tokens}, it must be less than the context_length of {options.context_length}"
            )
        return options


def defaults() -> dict[str, Any]:
    """Returns every parameter's name and default."""
    return {parameter.name: parameter.default for parameter in PARAMETERS}


def refusal(changes: Mapping[str, Any], configured: bool) -> str | None:
    """Returns why these parameters must not be changed now, or None where they may."""
    for parameter in PARAMETERS:
        if parameter.name in changes and parameter.change is Change.UNCONFIGURED and configured:
            return f"{parameter.name} can be changed only while the node is unconfigured: clean it up first"
    return None


def _checked(parameter: Parameter, value: Any) -> Any:
    """Returns the value in the type that `NodeOptions` holds."""
    name = parameter.name
    if value is None and not isinstance(parameter.default, list):
        raise ValueError(f"{name} has no value")
    if parameter.low is not None and parameter.high is not None and not parameter.low <= value <= parameter.high:
        raise ValueError(f"{name} is {value}, it must be {parameter.low} to {parameter.high}")
    if parameter.choices and value not in parameter.choices:
        raise ValueError(f"{name} is '{value}', it must be one of {', '.join(parameter.choices)}")
    if name == "image_transport":
        return Transport(value)
    if name == "cameras":
        return _checked_cameras(value)
    if name == "adapters":
        return _checked_adapters(value)
    return value


def _checked_adapters(folders: Any) -> tuple[str, ...]:
    folders = tuple(folder for folder in folders or () if folder)
    if len(set(folders)) != len(folders):
        raise ValueError(f"adapters holds a folder twice: {', '.join(folders)}")
    return folders


def _checked_cameras(names: Any) -> tuple[str, ...]:
    names = tuple(names or ())
    if not names:
        raise ValueError("cameras is empty, it must name at least one")
    for name in names:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*", name):
            raise ValueError(f"cameras holds '{name}', which is no relative topic name")
    if len(set(names)) != len(names):
        raise ValueError(f"cameras holds a name twice: {', '.join(names)}")
    return names

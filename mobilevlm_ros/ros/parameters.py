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

from mobilevlm_ros.ros.standing_query import StandingQuery, parse_all
from mobilevlm_ros.runtime.backends import BackendChoice
from mobilevlm_ros.runtime.errors import VlmError
from mobilevlm_ros.runtime.processors import parse_processors
from mobilevlm_ros.space.camera_model import PictureGeometry
from mobilevlm_ros.tasks.change_gate import MIN_CHANGE


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


LEAST_CONTEXT = 256
"""Tokens for a picture, the template's words, and a short question and answer."""

LONGEST_NAME = 80
"""Characters of a camera's name, which is part of topics' names."""

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
    Parameter(
        "cpu_affinity",
        "",
        "Processors that the model's threads may use, such as '0,2,4-7'; '' is any.",
        Change.UNCONFIGURED,
    ),
    Parameter(
        "backend",
        BackendChoice.AUTO.value,
        "What runs the model; auto: TensorRT where the machine has it and the package is for it, else the processor.",
        Change.UNCONFIGURED,
        choices=tuple(choice.value for choice in BackendChoice),
    ),
    Parameter(
        "backend_fallback",
        False,
        "Let the processor run the model where TensorRT was chosen and fails; diagnostics then warn.",
        Change.UNCONFIGURED,
    ),
    Parameter(
        "engine_cache",
        "",
        "Folder for TensorRT's engines; '' is beside the package, or the user's cache where that is read-only.",
        Change.UNCONFIGURED,
    ),
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
        160,
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
        "camera_linger",
        10.0,
        "Seconds that a camera is listened to after somebody asked about it; 0: always, while the node is active.",
        Change.ANY_TIME,
        0.0,
        3600.0,
    ),
    Parameter(
        "max_image_age", 1.0, "How old a picture may be when it is asked about, in seconds.", Change.ANY_TIME, 0.001, 3600.0
    ),
    Parameter(
        "depth",
        False,
        "Give regions a position from each camera's registered depth, the topics `depth` and `camera_info` beside `image`.",
        Change.UNCONFIGURED,
    ),
    Parameter(
        "depth_tolerance",
        0.05,
        "How far apart the stamps of a picture and its depth image may be, in seconds.",
        Change.ANY_TIME,
        0.0,
        10.0,
    ),
    Parameter(
        "picture_geometry",
        PictureGeometry.RAW.value,
        "Which part of camera_info tells of the pictures; raw: K with the distortion D; rectified: P.",
        Change.ANY_TIME,
        choices=tuple(geometry.value for geometry in PictureGeometry),
    ),
    Parameter(
        "target_frame",
        "",
        "Frame for positions, found by tf2 at the picture's stamp; '' is the camera's own optical frame.",
        Change.UNCONFIGURED,
    ),
    Parameter(
        "transform_timeout",
        0.2,
        "How long to wait for a transform that reaches to the picture's stamp, in seconds.",
        Change.ANY_TIME,
        0.0,
        10.0,
    ),
    Parameter(
        "request_timeout",
        30.0,
        "When a request that names no timeout is given up, in seconds after its arrival.",
        Change.ANY_TIME,
        0.01,
        3600.0,
    ),
    Parameter(
        "hang_timeout",
        60.0,
        "Seconds without progress of a model that has work, after which the requests and the process end; see docs/failures.md.",
        Change.ANY_TIME,
        1.0,
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
    Parameter(
        "standing_queries",
        [""],
        "Questions asked again and again, such as 'door; ask: is the door open?; labels: yes, no; every: 2 s'; '' is none.",
        Change.UNCONFIGURED,
    ),
    Parameter(
        "standing_min_change",
        MIN_CHANGE,
        "How much a tile of the picture must change for a standing query to be asked, in levels of 255; 0: it need not.",
        Change.ANY_TIME,
        0.0,
        255.0,
    ),
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
    cpu_affinity: str
    backend: BackendChoice
    backend_fallback: bool
    engine_cache: str
    rows: int
    queue_size: int
    context_length: int
    prefix_cache_mb: int
    cameras: tuple[str, ...]
    image_transport: Transport
    camera_linger: float
    max_image_age: float
    depth: bool
    depth_tolerance: float
    picture_geometry: PictureGeometry
    target_frame: str
    transform_timeout: float
    request_timeout: float
    hang_timeout: float
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    standing_queries: tuple[StandingQuery, ...]
    standing_min_change: float
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
        _check_together(options)
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


def _check_together(options: NodeOptions) -> None:
    """Raises ValueError where values that are right by themselves do not fit one another."""
    for query in options.standing_queries:
        if query.camera and query.camera not in options.cameras:
            known = ", ".join(options.cameras)
            raise ValueError(f"the standing query '{query.name}' is about the camera '{query.camera}'; there are: {known}")
    length, longest = options.context_length, options.max_tokens
    if length and longest >= length:
        raise ValueError(f"max_tokens is {longest}, it must be less than the context_length of {length}")
    if 0 < length < LEAST_CONTEXT:
        raise ValueError(f"context_length is {length}, it must be 0 or at least {LEAST_CONTEXT}: a picture takes 144 tokens")
    if options.model in options.adapters:
        raise ValueError(f"adapters holds '{options.model}', which is the model itself")


def _checked(parameter: Parameter, value: Any) -> Any:
    """Returns the value in the type that `NodeOptions` holds."""
    name = parameter.name
    if value is None and not isinstance(parameter.default, list):
        raise ValueError(f"{name} has no value")
    if parameter.low is not None and parameter.high is not None and not parameter.low <= value <= parameter.high:
        raise ValueError(f"{name} is {value}, it must be {parameter.low} to {parameter.high}")
    if parameter.choices and value not in parameter.choices:
        raise ValueError(f"{name} is '{value}', it must be one of {', '.join(parameter.choices)}")
    if name == "cpu_affinity":
        return _checked_affinity(value)
    if name == "backend":
        return BackendChoice(value)
    if name == "image_transport":
        return Transport(value)
    if name == "picture_geometry":
        return PictureGeometry(value)
    if name == "target_frame" and value.startswith("/"):
        raise ValueError(f"target_frame is '{value}', tf2's frames begin with no slash")
    if name == "cameras":
        return _checked_cameras(value)
    if name == "standing_queries":
        return parse_all(value or ())
    if name == "adapters":
        return _checked_adapters(value)
    return value


def _checked_affinity(value: str) -> str:
    try:
        parse_processors(value)
    except VlmError as error:
        raise ValueError(f"cpu_affinity: {error.message}") from None
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
            raise ValueError(f"cameras holds '{name[:LONGEST_NAME]}', which is no relative topic name")
        if len(name) > LONGEST_NAME:
            raise ValueError(f"cameras holds '{name[:LONGEST_NAME]}...', a name may have {LONGEST_NAME} characters")
    if len(set(names)) != len(names):
        raise ValueError(f"cameras holds a name twice: {', '.join(names)}")
    return names

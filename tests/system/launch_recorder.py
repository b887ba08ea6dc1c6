"""Runs a launch file without `launch`, which is not to be had on a pip-only machine.

Provides stand-ins for what launch/mobilevlm.launch.py imports, executes its `generate_launch_description()`, and tells which
processes it would start. It knows only what that file uses; anything else fails as a missing attribute.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Context:
    """The arguments' values."""

    values: dict[str, str]


@dataclass
class LaunchConfiguration:
    """An argument's value, known when it is performed."""

    name: str

    def perform(self, context: Context) -> str:
        return context.values[self.name]


@dataclass
class DeclareLaunchArgument:
    """An argument; the real one takes its default only where the caller gives no value."""

    name: str
    default_value: str
    description: str


@dataclass
class OpaqueFunction:
    """A function that makes more actions."""

    function: Callable[[Context], list[Any]]


@dataclass
class LaunchDescription:
    """A list of actions."""

    entities: list[Any]


@dataclass
class Node:
    """A process to start. The fields are launch_ros's own arguments."""

    package: str
    executable: str
    name: str
    namespace: str = ""
    parameters: list[Any] = field(default_factory=list)
    remappings: list[tuple[str, str]] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    additional_env: Mapping[str, str] = field(default_factory=dict)
    respawn: bool = False
    respawn_delay: float = 0.0
    output: str = "log"

    def command(self, folder: Path) -> list[str]:
        """The command line that launch_ros would run, with this Python in place of the installed executable."""
        assert (self.package, self.executable) == ("mobilevlm_ros", "mobilevlm_node")
        command = [sys.executable, "-m", "mobilevlm_ros.ros.node", *self.arguments, "--ros-args", "-r", f"__node:={self.name}"]
        if self.namespace:
            command += ["-r", f"__ns:=/{self.namespace.lstrip('/')}"]
        for source, target in self.remappings:
            command += ["-r", f"{source}:={target}"]
        for number, parameters in enumerate(self.parameters):
            command += ["--params-file", str(_file(parameters, folder / f"parameters_{number}.yaml"))]
        return command


def _file(parameters: Any, path: Path) -> Path:
    """A parameter file as it is, or one written from a dictionary, as launch_ros does it."""
    if not isinstance(parameters, dict):
        return Path(parameters)
    lines = [
        f"    {name}: {str(value).lower() if isinstance(value, bool) else repr(value)}" for name, value in parameters.items()
    ]
    path.write_text("/**:\n  ros__parameters:\n" + "\n".join(lines) + "\n")
    return path


@dataclass(frozen=True)
class Recording:
    """What a launch file declares and starts."""

    arguments: dict[str, str]
    nodes: tuple[Node, ...]


def record(launch_file: Path, **values: str) -> Recording:
    """Executes a launch file as `ros2 launch FILE name:=value ...` would."""
    with _stand_ins():
        spec = importlib.util.spec_from_file_location("launch_file", launch_file)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        description = module.generate_launch_description()
        declared = {
            entity.name: entity.default_value for entity in description.entities if isinstance(entity, DeclareLaunchArgument)
        }
        unknown = set(values) - set(declared)
        assert not unknown, f"the launch file declares no argument {unknown}"
        context = Context({**declared, **values})
        nodes: list[Node] = []
        for entity in description.entities:
            made = entity.function(context) if isinstance(entity, OpaqueFunction) else [entity]
            nodes += [action for action in made if isinstance(action, Node)]
    return Recording(declared, tuple(nodes))


@contextmanager
def _stand_ins() -> Iterator[None]:
    modules: dict[str, dict[str, Any]] = {
        "launch": {"LaunchDescription": LaunchDescription},
        "launch.actions": {"DeclareLaunchArgument": DeclareLaunchArgument, "OpaqueFunction": OpaqueFunction},
        "launch.substitutions": {"LaunchConfiguration": LaunchConfiguration},
        "launch_ros": {},
        "launch_ros.actions": {"Node": Node},
    }
    before = {name: sys.modules.get(name) for name in modules}
    for name, content in modules.items():
        module = types.ModuleType(name)
        module.__dict__.update(content)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                del sys.modules[name]
            else:
                sys.modules[name] = old

"""Runs a launch file without `launch`, which is not to be had on a pip-only machine.

Provides stand-ins for what launch/mobilevlm.launch.py imports, executes its `generate_launch_description()`, tells which
processes it would start, and starts the node's as launch would, again and again where it is to be respawned. It knows only what
that file uses; anything else fails as a missing attribute.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.system.graph import Process


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
class ExecuteProcess:
    """A process that is no node."""

    cmd: list[str]
    output: str = "log"


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

    def command(self, folder: Path, program: Sequence[str] = ("mobilevlm_ros.ros.node",)) -> list[str]:
        """The command line that launch_ros would run, with this Python in place of the installed executable.

        Args:
            folder: for parameter files.
            program: the module that is run, and arguments of its own.
        """
        assert (self.package, self.executable) == ("mobilevlm_ros", "mobilevlm_node")
        command = [sys.executable, "-m", *program, *self.arguments, "--ros-args", "-r", f"__node:={self.name}"]
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
    processes: tuple[ExecuteProcess, ...]


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
        made: list[Any] = []
        for entity in description.entities:
            made += entity.function(context) if isinstance(entity, OpaqueFunction) else [entity]
    nodes = tuple(action for action in made if isinstance(action, Node))
    return Recording(declared, nodes, tuple(action for action in made if isinstance(action, ExecuteProcess)))


@contextmanager
def _stand_ins() -> Iterator[None]:
    modules: dict[str, dict[str, Any]] = {
        "launch": {"LaunchDescription": LaunchDescription},
        "launch.actions": {
            "DeclareLaunchArgument": DeclareLaunchArgument,
            "ExecuteProcess": ExecuteProcess,
            "OpaqueFunction": OpaqueFunction,
        },
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


class Launched:
    """A node's process as launch runs it; where its action says `respawn`, it is started again when it ends."""

    def __init__(self, node: Node, folder: Path, program: Sequence[str] = ("mobilevlm_ros.ros.node",)) -> None:
        self._node = node
        self._folder = folder
        self._command = node.command(folder, program)
        self._stopping = threading.Event()
        self.processes: list[Process] = []
        """Those that were started so far, the one that runs last."""

    def __enter__(self) -> Launched:
        self._start()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._thread.join()
        self.processes[-1].stop()

    @property
    def log(self) -> str:
        """What all of them printed."""
        return "".join(process.log for process in self.processes)

    def _start(self) -> None:
        log = self._folder / f"{self._node.name}_{len(self.processes)}.log"
        self.processes.append(Process(self._command, log, {**os.environ, **self._node.additional_env}))

    def _watch(self) -> None:
        while not self._stopping.wait(0.05):
            if self.processes[-1].ended is None:
                continue
            if not self._node.respawn or self._stopping.wait(self._node.respawn_delay):
                return
            self._start()

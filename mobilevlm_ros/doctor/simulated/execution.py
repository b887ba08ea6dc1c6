"""Engines of the pretended TensorRT at work: what is asked of them is checked first, and computed when somebody waits for it."""

from __future__ import annotations

import ctypes
import itertools
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mobilevlm_ros.doctor.simulated.cuda import RefusedError, SimulatedCuda
from mobilevlm_ros.doctor.simulated.graph import Graph
from mobilevlm_ros.doctor.simulated.names import ExecutionContextAllocationStrategy, ILogger, Severity, TensorIOMode

WORKSPACE = 1 << 20
_ALIGNMENT = 256

Shape = tuple[int, ...]


@dataclass(frozen=True)
class DataType:
    """A tensor's type."""

    name: str


class Engine:
    """A graph and its profiles."""

    device_memory_size_v2: ClassVar[int] = WORKSPACE

    def __init__(self, cuda: SimulatedCuda, logger: ILogger, graph: Graph, profiles: list[dict[str, Any]]) -> None:
        self.cuda = cuda
        self.logger = logger
        self.graph = graph
        self.profiles = profiles
        self._values = graph.inputs | graph.outputs

    @property
    def num_io_tensors(self) -> int:
        return len(self._values)

    def get_tensor_name(self, index: int) -> str:
        return list(self._values)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.graph.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType(self._values[name].kind)

    def get_tensor_shape(self, name: str) -> Shape:
        return self._values[name].plain_shape

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[Shape]:
        return [tuple(shape) for shape in self.profiles[profile][name]]

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> Context:
        if strategy is not ExecutionContextAllocationStrategy.USER_MANAGED:
            raise ValueError("only a user's own workspace is simulated")
        return Context(self)

    def alias(self, name: str) -> str | None:
        """The input that an output shares its memory with."""
        past = name.replace("present_", "past_", 1)
        return past if past != name and past in self.graph.inputs else None


class AliasTellingEngine(Engine):
    """As from 10.15 on."""

    def get_aliased_input_tensor(self, name: str) -> str | None:
        return self.alias(name)


class Context:
    """Shapes, addresses and a workspace for runs of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._profile: int | None = None
        self._workspace = (0, 0)
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self._changes = 0
        self._ready_to_capture = False

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        if not 0 <= profile < len(self._engine.profiles):
            return self._refuse(f"there is no profile {profile}")
        self._profile = profile
        return True

    def set_device_memory(self, address: int, nbytes: int) -> None:
        self._workspace = (address, nbytes)
        self._changed(new_shapes=True)

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        if self._profile is None or name not in self._engine.graph.inputs:
            return self._refuse(f"{name} is no input, or no profile is chosen")
        least, _, most = self._engine.profiles[self._profile][name]
        if len(shape) != len(least) or not all(a <= size <= b for a, size, b in zip(least, shape, most)):
            return self._refuse(f"{name}: {shape} is outside of profile {self._profile}: {least} to {most}")
        if self._shapes.get(name) != tuple(shape):
            self._shapes[name] = tuple(shape)
            self._changed(new_shapes=True)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        if name not in self._engine.graph.inputs and name not in self._engine.graph.outputs:
            return self._refuse(f"there is no tensor {name}")
        self._addresses[name] = address
        self._changed(new_shapes=False)
        return True

    def execute_async_v3(self, stream: int) -> bool:
        engine = self._engine
        try:
            run = self._run()
            capturing = engine.cuda.is_capturing(stream)
            if capturing and not self._ready_to_capture:
                return self._refuse("a capture before the first run with these shapes")
            engine.cuda.submit(stream, self._captured(run) if capturing else run.execute)
        except (RefusedError, ValueError) as error:
            return self._refuse(str(error))
        self._ready_to_capture = True
        return True

    def _run(self) -> _Run:
        """The run as it stands now; raises ValueError where something does not fit."""
        graph = self._engine.graph
        missing = (graph.inputs.keys() - self._shapes.keys()) | ((graph.inputs | graph.outputs).keys() - self._addresses.keys())
        if missing:
            raise ValueError(f"no shape or address was set for {', '.join(sorted(missing))}")
        sizes = graph.sizes(self._shapes)
        shapes = {name: value.resolved(sizes) for name, value in (graph.inputs | graph.outputs).items()}
        return _Run(self._engine, shapes, dict(self._addresses), self._workspace)

    def _captured(self, run: _Run) -> Any:
        """A graph's node: good only while the context lives and is left as it is."""
        context, changes = weakref.ref(self), self._changes

        def execute() -> None:
            alive = context()
            if alive is None or alive._changes != changes:
                raise RuntimeError("a captured context was freed or changed before its graph was launched")
            run.execute()

        return execute

    def _changed(self, new_shapes: bool) -> None:
        self._changes += 1
        if new_shapes:
            self._ready_to_capture = False

    def _refuse(self, text: str) -> bool:
        self._engine.logger.log(Severity.ERROR, f"Error Code 3: API Usage Error ({text})")
        return False


class _Run:
    """One run with all that belongs to it, checked when it is asked for and computed when its turn comes."""

    def __init__(self, engine: Engine, shapes: Mapping[str, Shape], addresses: Mapping[str, int], workspace: tuple[int, int]):
        self._engine = engine
        self._shapes = shapes
        self._addresses = addresses
        self._workspace = workspace
        self._check()

    def execute(self) -> None:
        places = self._places()
        ctypes.memset(self._engine.cuda.at(*self._workspace), 0xFF, self._workspace[1])  # nobody else may keep anything there
        self._engine.graph.compute(places, self._shapes)

    def _places(self) -> dict[str, int]:
        return {name: self._engine.cuda.at(self._addresses[name], self._nbytes(name)) for name in self._addresses}

    def _nbytes(self, name: str) -> int:
        graph = self._engine.graph
        value = graph.inputs.get(name) or graph.outputs[name]
        return value.nbytes(self._shapes[name])

    def _check(self) -> None:
        """Raises ValueError or RefusedError."""
        address, size = self._workspace
        if size < self._engine.device_memory_size_v2 or address % _ALIGNMENT:
            raise ValueError(f"a workspace of {size} bytes at {address:#x}")
        self._engine.cuda.at(address, size)
        self._places()
        spans = [(address, address + size, "the workspace")]
        for name, start in self._addresses.items():
            if start % _ALIGNMENT:
                raise ValueError(f"{name} at {start:#x} is not aligned")
            past = self._engine.alias(name) if name in self._engine.graph.outputs else None
            if past is None:
                spans.append((start, start + self._nbytes(name), name))
            elif start != self._addresses[past]:
                raise ValueError(f"{name} and {past} must have one address")
        spans.sort()
        for (_, end, one), (start, _, other) in itertools.pairwise(spans):
            if start < end:
                raise ValueError(f"{one} and {other} overlap")

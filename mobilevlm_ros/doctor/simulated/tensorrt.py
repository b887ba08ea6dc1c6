"""A stand-in for TensorRT's Python module: the names that this project uses, from 10.3 on.

An "engine" is the graph itself with the profiles that it was built for, computed by ONNX Runtime. It refuses what TensorRT
refuses: shapes outside the profile; addresses that are missing, not aligned or too small; a cache whose input and output are not
one; a workspace that is too small or overlaps something; a capture before the first run, and a context that changed after it.
What it cannot show: whether TensorRT takes the graph, what comes out of its kernels, and how long that takes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilevlm_ros.doctor.simulated import names
from mobilevlm_ros.doctor.simulated.cuda import SimulatedCuda
from mobilevlm_ros.doctor.simulated.execution import WORKSPACE, AliasTellingEngine, Engine, Shape
from mobilevlm_ros.doctor.simulated.graph import Graph
from mobilevlm_ros.doctor.simulated.names import ILogger, MemoryPoolType, NetworkDefinitionCreationFlag, Severity

_MAGIC = b"simulated TensorRT engine\n"
_FUSED_SINCE = (10, 15)


class SimulatedTensorRt:
    """The module: its attributes are TensorRT's names."""

    ILogger = names.ILogger
    IProgressMonitor = names.IProgressMonitor
    NetworkDefinitionCreationFlag = names.NetworkDefinitionCreationFlag
    LayerType = names.LayerType
    MemoryPoolType = names.MemoryPoolType
    TensorIOMode = names.TensorIOMode
    ExecutionContextAllocationStrategy = names.ExecutionContextAllocationStrategy

    def __init__(self, cuda: SimulatedCuda, version: str = "10.16.0") -> None:
        """TensorRT of a version; one before 10.15 does not take the fused decoder, as the real one."""
        self.__version__ = version
        self.cuda = cuda

    @property
    def fused(self) -> bool:
        """Whether this version knows caches that are updated in place."""
        return tuple(int(part) for part in self.__version__.split(".")[:2]) >= _FUSED_SINCE

    def Builder(self, logger: Any) -> Builder:  # noqa: N802 - TensorRT's names
        return Builder(self, logger)

    def OnnxParser(self, network: Network, logger: Any) -> Parser:  # noqa: N802
        return Parser(self, network)

    def Runtime(self, logger: Any) -> Runtime:  # noqa: N802
        return Runtime(self, logger)


@dataclass(frozen=True)
class NetworkInput:
    """An input of a network."""

    name: str
    shape: Shape


class Network:
    """What a parser fills."""

    def __init__(self) -> None:
        self.model = b""
        self.path = Path()
        self.graph: Graph | None = None

    @property
    def num_inputs(self) -> int:
        return 0 if self.graph is None else len(self.graph.inputs)

    def get_input(self, index: int) -> NetworkInput:
        assert self.graph is not None
        name, value = list(self.graph.inputs.items())[index]
        return NetworkInput(name, value.plain_shape)


@dataclass(frozen=True)
class ParserError:
    """Why a graph was not taken."""

    text: str

    def desc(self) -> str:
        return self.text


class Parser:
    """Takes what ONNX Runtime takes, except what this version cannot know."""

    def __init__(self, trt: SimulatedTensorRt, network: Network) -> None:
        self._trt = trt
        self._network = network
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse(self, model: bytes, path: str) -> bool:
        if b"TensorScatter" in model and not self._trt.fused:
            self._errors.append(ParserError("no importer for the operator TensorScatter"))
            return False
        try:
            self._network.graph = Graph(model, Path(path))
        except RuntimeError as error:
            self._errors.append(ParserError(str(error)))
            return False
        self._network.model, self._network.path = model, Path(path)
        return True


class OptimizationProfile:
    """Shapes that an engine must serve."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[Shape, Shape, Shape]] = {}

    def set_shape(self, name: str, least: Shape, usual: Shape, most: Shape) -> None:
        if not all(0 < a <= b <= c for a, b, c in zip(least, usual, most)):
            raise ValueError(f"shapes of {name} are not in order: {least} {usual} {most}")
        self.shapes[name] = (least, usual, most)


class TimingCache:
    """Measurements of kernels: none."""

    def serialize(self) -> bytes:
        return b"simulated timing cache"


class BuilderConfig:
    """How to build."""

    def __init__(self) -> None:
        self.profiles: list[OptimizationProfile] = []
        self.max_aux_streams: int | None = None
        self.progress_monitor: Any = None
        self.workspace = 0
        self._timing: TimingCache | None = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, nbytes: int) -> None:
        self.workspace = nbytes

    def create_timing_cache(self, content: bytes) -> TimingCache:
        return TimingCache()

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        self._timing = cache
        return True

    def get_timing_cache(self) -> TimingCache | None:
        return self._timing

    def add_optimization_profile(self, profile: OptimizationProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1


class Builder:
    """Makes an "engine" from a network."""

    def __init__(self, trt: SimulatedTensorRt, logger: ILogger) -> None:
        self._trt = trt
        self._logger = logger

    def create_network(self, flags: int) -> Network:
        if flags != 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED:
            raise ValueError("the network is not strongly typed")
        return Network()

    def create_builder_config(self) -> BuilderConfig:
        return BuilderConfig()

    def create_optimization_profile(self) -> OptimizationProfile:
        return OptimizationProfile()

    def build_serialized_network(self, network: Network, config: BuilderConfig) -> bytes | None:
        assert network.graph is not None
        for profile in config.profiles:
            problem = _profile_problem(network.graph, profile)
            if problem:
                self._logger.log(Severity.ERROR, problem)
                return None
        if config.workspace < WORKSPACE:
            self._logger.log(Severity.ERROR, "Could not find any implementation for a node: insufficient workspace")
            return None
        monitor, steps = config.progress_monitor, 4
        if monitor is not None:
            monitor.phase_start("Building Engine", None, steps)
            for step in range(steps):
                if not monitor.step_complete("Building Engine", step):
                    return None
            monitor.phase_finish("Building Engine")
        profiles = [profile.shapes for profile in config.profiles]
        header = {"version": self._trt.__version__, "path": str(network.path.resolve()), "profiles": profiles}
        return _MAGIC + json.dumps(header).encode() + b"\n" + network.model


def _profile_problem(graph: Graph, profile: OptimizationProfile) -> str:
    """What a profile lacks; a cache whose length is open is refused, as TensorRT's cache update does."""
    for name, value in graph.inputs.items():
        if name.startswith("past_") and value.plain_shape[2] < 0:
            return f"{name}: the length of a cache must not be dynamic"
        if name not in profile.shapes:
            return f"{name} has no shapes in a profile"
        for shape in profile.shapes[name]:
            fits = len(shape) == len(value.shape) and all(known in (-1, size) for known, size in zip(value.plain_shape, shape))
            if not fits:
                return f"{name}: {shape} does not fit {value.plain_shape}"
    return ""


class Runtime:
    """Loads "engines"."""

    def __init__(self, trt: SimulatedTensorRt, logger: ILogger) -> None:
        self._trt = trt
        self._logger = logger

    def deserialize_cuda_engine(self, content: Any) -> Engine | None:
        raw = bytes(content)
        try:
            if not raw.startswith(_MAGIC):
                raise ValueError("the magic number does not fit")
            header, model = raw[len(_MAGIC) :].split(b"\n", 1)
            facts = json.loads(header)
            if facts["version"] != self._trt.__version__:
                raise ValueError(f"the engine is of version {facts['version']}")
            kind = AliasTellingEngine if self._trt.fused else Engine
            return kind(self._trt.cuda, self._logger, Graph(model, Path(facts["path"])), facts["profiles"])
        except (ValueError, RuntimeError) as error:
            self._logger.log(Severity.ERROR, f"Error Code 1: Serialization ({error})")
            return None

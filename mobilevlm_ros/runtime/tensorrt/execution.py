"""Engines at work: loaded from a file, and run with shapes and addresses in a context, directly or as a captured CUDA graph.

Knows TensorRT's objects, not what the tensors mean. All work goes to one stream and is waited for by the caller.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobilevlm_ros.runtime.errors import BackendError, ErrorCode
from mobilevlm_ros.runtime.tensorrt.cudart import CudaError, Cudart
from mobilevlm_ros.runtime.tensorrt.library import Libraries
from mobilevlm_ros.runtime.tensorrt.log import make_logger
from mobilevlm_ros.runtime.tensorrt.memory import Block

_KINDS = {"FLOAT": "f4", "HALF": "f2", "INT64": "i8", "INT32": "i4", "UINT8": "u1", "BOOL": "?"}


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine; -1 in `shape` stands for what a context decides."""

    shape: tuple[int, ...]
    kind: np.dtype


class LoadedEngine:
    """An engine in the device's memory.

    Attributes:
        tensors: inputs and outputs by name.
        inputs: the names of those that are inputs.
        workspace: bytes that a context needs while it runs.
    """

    def __init__(self, libraries: Libraries, path: Path) -> None:
        """
        Raises:
            BackendError: the file is no engine for this machine, or memory does not suffice.
        """
        trt = self._trt = libraries.tensorrt
        self._name = path.name
        self._log, self._logger = make_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        try:
            with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                self._engine = self._runtime.deserialize_cuda_engine(content)
        except (OSError, ValueError) as error:
            raise BackendError(f"{path}: {error}") from error
        if self._engine is None:
            raise self.failure("cannot be loaded")
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        self.tensors = {name: self._tensor(name) for name in names}
        self.inputs = {name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT}
        self.workspace = int(self._engine.device_memory_size_v2)

    def limits(self, name: str, profile: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Least and largest shape of an input in a profile."""
        least, _, most = self._engine.get_tensor_profile_shape(name, profile)
        return tuple(least), tuple(most)

    @property
    def tells_aliases(self) -> bool:
        """Whether this TensorRT can tell which outputs share their memory with an input."""
        return hasattr(self._engine, "get_aliased_input_tensor")

    def aliased_input(self, name: str) -> str | None:
        """The input that an output must share its memory with, as far as this TensorRT tells; None for any other."""
        tell = getattr(self._engine, "get_aliased_input_tensor", None)
        return (tell(name) or None) if tell else None

    def context(self, profile: int, workspace: Block, stream: int) -> Context:
        """What runs the engine in a profile; contexts that do not run at the same time may share a workspace."""
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        made = self._engine.create_execution_context(strategy)
        if made is None or not made.set_optimization_profile_async(profile, stream):
            raise self.failure(f"gives no context for profile {profile}")
        made.set_device_memory(workspace.address, workspace.nbytes)
        return Context(self, made)

    def failure(self, what: str) -> BackendError:
        """An error with TensorRT's own words."""
        said = self._log.last_error()
        out_of_memory = "outofmemory" in said.lower().replace(" ", "")
        code = ErrorCode.OUT_OF_MEMORY if out_of_memory else ErrorCode.MODEL_ERROR
        return BackendError(f"{self._name} {what}: {said}", code)

    def close(self) -> None:
        """Free the engine, whose contexts must be gone."""
        del self._engine, self._runtime

    def _tensor(self, name: str) -> Tensor:
        kind = self._engine.get_tensor_dtype(name).name
        if kind not in _KINDS:
            raise BackendError(f"{self._name}: {name} is of the type {kind}, which this program does not know")
        return Tensor(tuple(self._engine.get_tensor_shape(name)), np.dtype(_KINDS[kind]))


class Context:
    """Shapes and addresses of a run."""

    def __init__(self, engine: LoadedEngine, context: Any) -> None:
        self._engine = engine
        self._context = context

    def bind(self, addresses: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Set every tensor's address and every input's shape; raises BackendError where TensorRT refuses one."""
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise self._engine.failure(f"does not take {name} of shape {shape}")
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise self._engine.failure(f"does not take an address for {name}")

    def enqueue(self, stream: int) -> None:
        """Give the stream one run; raises BackendError."""
        if not self._context.execute_async_v3(stream):
            raise self._engine.failure("cannot be run")


class Replay:
    """A run that is made over and over with the same shapes and addresses.

    The first time it is enqueued, which TensorRT wants before a capture; the second time it is captured, and from then launched.
    `refusal` is why it could not be captured and is enqueued each time, empty where it could.
    """

    def __init__(self, cudart: Cudart, context: Context, stream: int, captures: bool) -> None:
        self._cudart = cudart
        self._context = context
        self._stream = stream
        self._captures = captures
        self._warm = False
        self._executable = 0
        self.refusal = ""

    def run(self) -> None:
        """Give the stream one run; raises BackendError."""
        if self._captures and self._warm and not self._executable and not self.refusal:
            self._executable = self._capture()
        if self._executable:
            self._cudart.launch(self._executable, self._stream)
        else:
            self._context.enqueue(self._stream)
            self._warm = True

    def close(self) -> None:
        """Free the graph."""
        if self._executable:
            self._cudart.destroy_executable(self._executable)
            self._executable = 0

    def _capture(self) -> int:
        """The run as an executable graph; 0 and a `refusal` where it cannot be had."""
        try:
            self._cudart.begin_capture(self._stream)
            try:
                self._context.enqueue(self._stream)
            finally:
                graph = self._cudart.end_capture(self._stream)
            return self._cudart.instantiate(graph)
        except (CudaError, BackendError) as error:
            self.refusal = error.message
            return 0

"""The pretended TensorRT refuses what TensorRT refuses, so that a runner which does such a thing does not pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilevlm_ros.doctor.simulated.cuda import SimulatedCuda
from mobilevlm_ros.doctor.simulated.names import ExecutionContextAllocationStrategy, ILogger
from mobilevlm_ros.doctor.simulated.tensorrt import SimulatedTensorRt
from mobilevlm_ros.runtime.tensorrt.cudart import Cudart
from mobilevlm_ros.runtime.tensorrt.memory import MappedArray, Memory

onnx = pytest.importorskip("onnx", reason="the graph is made with it")

WORKSPACE = 1 << 20
LENGTH = 64


class Logger(ILogger):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, severity: int, msg: str) -> None:
        self.lines.append(msg)


def model(length: int | str = LENGTH) -> bytes:
    """A cache to which a number is added in place: past_a [B, 64] + value [B, 1] = present_a."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    past, present = (helper.make_tensor_value_info(name, kind, ["B", 1, length]) for name in ("past_a", "present_a"))
    value = helper.make_tensor_value_info("value", kind, ["B", 1, 1])
    graph = helper.make_graph([helper.make_node("Add", ["past_a", "value"], ["present_a"])], "adds", [past, value], [present])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = made.SerializeToString()
    return content


@dataclass
class Device:
    """An engine on a pretended device with a context that is ready to run, and a wait for the end of its work."""

    trt: SimulatedTensorRt = field(default_factory=lambda: SimulatedTensorRt(SimulatedCuda(64 << 20)))
    logger: Logger = field(default_factory=Logger)

    def __post_init__(self) -> None:
        self.cudart = Cudart(self.trt.cuda)
        self.memory = Memory(self.cudart)
        self.stream, self.event = self.cudart.create_stream(), self.cudart.create_event()
        self.workspace = self.memory.allocate(WORKSPACE, "a test")
        self.cache, self.value = (self.mapped(1, size) for size in (LENGTH, 1))
        engine = self.trt.Runtime(self.logger).deserialize_cuda_engine(self.built())
        assert engine is not None
        self.context = engine.create_execution_context(ExecutionContextAllocationStrategy.USER_MANAGED)
        assert self.context.set_optimization_profile_async(0, self.stream)
        self.context.set_device_memory(self.workspace.address, WORKSPACE)
        assert self.context.set_input_shape("past_a", (1, 1, LENGTH))
        assert self.context.set_input_shape("value", (1, 1, 1))
        for name, array in (("past_a", self.cache), ("present_a", self.cache), ("value", self.value)):
            assert self.context.set_tensor_address(name, array.address)

    def mapped(self, *shape: int) -> MappedArray:
        return self.memory.map(shape, np.dtype(np.float32), "a test")

    def built(self, content: bytes | None = None, workspace: int = WORKSPACE) -> bytes | None:
        builder = self.trt.Builder(self.logger)
        network = builder.create_network(1 << 1)
        assert self.trt.OnnxParser(network, self.logger).parse(content or model(), "/nowhere/model.onnx")
        config = builder.create_builder_config()
        config.set_memory_pool_limit(self.trt.MemoryPoolType.WORKSPACE, workspace)
        profile = builder.create_optimization_profile()
        profile.set_shape("past_a", (1, 1, LENGTH), (1, 1, LENGTH), (2, 1, LENGTH))
        profile.set_shape("value", (1, 1, 1), (1, 1, 1), (2, 1, 1))
        config.add_optimization_profile(profile)
        return builder.build_serialized_network(network, config)

    def run(self) -> bool:
        return self.context.execute_async_v3(self.stream)

    def finish(self) -> None:
        self.cudart.finish(self.stream, self.event)


@pytest.fixture
def device() -> Device:
    return Device()


def test_a_run_is_done_when_somebody_waits(device: Device) -> None:
    device.value.array[...] = 3.0
    assert device.run()
    assert not device.cache.array.any()
    device.finish()
    assert (device.cache.array == 3.0).all()


def change_address(name: str, address: Callable[[Device], int]) -> Callable[[Device], Any]:
    return lambda device: device.context.set_tensor_address(name, address(device))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_address("value", lambda device: device.mapped(LENGTH).address + 4), "not aligned"),
        (change_address("value", lambda device: device.value.host_address), "invalid argument"),
        (change_address("value", lambda device: device.cache.address), "overlap"),
        (change_address("value", lambda device: device.workspace.address), "overlap"),
        (change_address("past_a", lambda device: device.mapped(1, LENGTH).address), "must have one address"),
        (lambda device: device.context.set_input_shape("value", (2, 1, 1)), "axis B is 1 and, in value, 2"),
        (lambda device: device.context.set_device_memory(device.workspace.address, WORKSPACE - 256), "a workspace of"),
        (lambda device: device.memory.release(device.workspace), "invalid argument"),
    ],
)
def test_a_run_with_something_amiss_is_refused(device: Device, change: Callable[[Device], Any], words: str) -> None:
    change(device)
    assert not device.run()
    assert words in device.logger.lines[-1]


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 1), (1, 1, 2)])
def test_a_shape_outside_of_the_profile_is_refused(device: Device, shape: tuple[int, ...]) -> None:
    assert not device.context.set_input_shape("value", shape)
    assert "outside of profile 0" in device.logger.lines[-1]


def test_a_capture_before_the_first_run_is_refused(device: Device) -> None:
    device.cudart.begin_capture(device.stream)
    assert not device.run()
    assert "a capture before the first run" in device.logger.lines[-1]


@pytest.mark.parametrize(
    "change", [lambda d: d.context.set_tensor_address("value", d.value.address), lambda d: d.__dict__.pop("context")]
)
def test_a_graph_is_worth_nothing_once_its_context_was_changed_or_freed(device: Device, change: Callable[[Device], Any]) -> None:
    device.run()
    device.cudart.begin_capture(device.stream)
    assert device.run()
    executable = device.cudart.instantiate(device.cudart.end_capture(device.stream))
    device.cudart.launch(executable, device.stream)
    device.finish()
    change(device)
    device.cudart.launch(executable, device.stream)
    with pytest.raises(Exception, match="launch failure"):
        device.finish()
    assert "a captured context was freed or changed" in device.trt.cuda.problems[-1]


def test_a_cache_of_open_length_and_too_little_workspace_cannot_be_built(device: Device) -> None:
    assert device.built(model("M")) is None
    assert "must not be dynamic" in device.logger.lines[-1]
    assert device.built(workspace=WORKSPACE - 1) is None
    assert "insufficient workspace" in device.logger.lines[-1]


def test_a_network_that_is_not_strongly_typed_is_refused(device: Device) -> None:
    with pytest.raises(ValueError, match="strongly typed"):
        device.trt.Builder(device.logger).create_network(0)


def test_an_engine_of_another_version_or_no_engine_is_refused(device: Device) -> None:
    built = device.built()
    assert built is not None
    older = SimulatedTensorRt(device.trt.cuda, "10.3.0")
    assert older.Runtime(device.logger).deserialize_cuda_engine(built) is None
    assert "version 10.16.0" in device.logger.lines[-1]
    assert older.Runtime(device.logger).deserialize_cuda_engine(b"nothing") is None


def test_a_graph_that_is_none_is_an_error_of_the_parser(device: Device) -> None:
    network = device.trt.Builder(device.logger).create_network(1 << 1)
    parser = device.trt.OnnxParser(network, device.logger)
    assert not parser.parse(b"nothing", str(Path("/nowhere/model.onnx")))
    assert parser.get_error(0).desc()

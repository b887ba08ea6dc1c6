"""CUDA's calls as a runner makes them, on the pretended device and, where one is at hand, on a real one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from mobilevlm_ros.doctor.simulated.cuda import SimulatedCuda
from mobilevlm_ros.runtime.errors import ErrorCode
from mobilevlm_ros.runtime.tensorrt.cudart import CudaError, Cudart, Planes
from mobilevlm_ros.runtime.tensorrt.memory import ALIGNMENT, Memory

SHAPE = (6, 5, 48)
"""Planes, lines, bytes."""


@pytest.fixture(params=["pretended", pytest.param("real", marks=pytest.mark.gpu)])
def cuda(request: pytest.FixtureRequest) -> Cudart:
    if request.param == "pretended":
        return Cudart(SimulatedCuda(64 << 20))
    try:
        return Cudart.load()
    except CudaError as error:
        pytest.skip(error.message)


@pytest.fixture
def memory(cuda: Cudart) -> Iterator[Memory]:
    memory = Memory(cuda)
    yield memory
    memory.close()


@pytest.fixture
def stream(cuda: Cudart) -> Iterator[int]:
    stream = cuda.create_stream()
    yield stream
    cuda.destroy_stream(stream)


@pytest.fixture
def event(cuda: Cudart) -> Iterator[int]:
    event = cuda.create_event()
    yield event
    cuda.destroy_event(event)


def test_what_the_processor_writes_goes_through_the_device_and_comes_back(
    cuda: Cudart, memory: Memory, stream: int, event: int
) -> None:
    planes, lines, width = SHAPE
    given, back = memory.map(SHAPE, np.dtype(np.uint8), "a test"), memory.map(SHAPE, np.dtype(np.uint8), "a test")
    given.array[...] = np.random.default_rng(0).integers(0, 256, SHAPE)
    cache = memory.allocate(planes * 8 * 64, "a test")
    assert cache.address % ALIGNMENT == 0
    inside = Planes(cache.address + 2 * 64 + 16, 64, 8)
    cuda.memset(cache.address, 0, cache.nbytes, stream)
    cuda.copy_planes(inside, Planes(given.address, width, lines), SHAPE, stream)
    cuda.copy_planes(Planes(back.address, width, lines), inside, SHAPE, stream)
    cuda.finish(stream, event)
    assert np.array_equal(back.array, given.array)


def test_a_captured_graph_reads_what_is_there_when_it_is_launched(cuda: Cudart, memory: Memory, stream: int, event: int) -> None:
    _, lines, width = SHAPE
    given, back = memory.map(SHAPE, np.dtype(np.uint8), "a test"), memory.map(SHAPE, np.dtype(np.uint8), "a test")
    cuda.begin_capture(stream)
    cuda.copy_planes(Planes(back.address, width, lines), Planes(given.address, width, lines), SHAPE, stream)
    executable = cuda.instantiate(cuda.end_capture(stream))
    for value in (1, 2, 3):
        given.array[...] = value
        cuda.launch(executable, stream)
        cuda.finish(stream, event)
        assert (back.array == value).all()
    cuda.destroy_executable(executable)


def test_more_memory_than_there_is_is_refused_and_less_is_given_afterwards(cuda: Cudart, memory: Memory) -> None:
    with pytest.raises(CudaError) as caught:
        memory.allocate(2 * cuda.device().memory, "a test")
    assert caught.value.code is ErrorCode.OUT_OF_MEMORY
    assert memory.allocate(1 << 20, "a test").address


def test_the_device_tells_what_it_is(cuda: Cudart) -> None:
    device = cuda.device()
    assert device.name
    assert float(device.compute_capability) >= 7.5
    assert cuda.memory()[0] <= device.memory

"""CUDA's calls: the real ctypes layer against a pretended driver that has CUDA's own signatures."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.doctor.simulated.cuda import SimulatedCuda
from mobilevlm_ros.runtime.errors import ErrorCode
from mobilevlm_ros.runtime.tensorrt import cudart as module
from mobilevlm_ros.runtime.tensorrt.cudart import CudaError, Cudart, DeviceProperties, Planes
from mobilevlm_ros.runtime.tensorrt.memory import ALIGNMENT, Memory

MEMORY = 64 << 20


@pytest.fixture
def driver() -> SimulatedCuda:
    return SimulatedCuda(MEMORY)


@pytest.fixture
def cuda(driver: SimulatedCuda) -> Cudart:
    return Cudart(driver)


def test_the_device_is_told_by_name_capability_and_memory(cuda: Cudart) -> None:
    assert cuda.device() == DeviceProperties("Simulated Orin", "8.7", MEMORY, True)
    assert cuda.version() == "12.6"


def test_memory_that_is_given_back_is_there_again(cuda: Cudart) -> None:
    address = cuda.malloc(40 << 20)
    assert cuda.memory() == (24 << 20, MEMORY)
    cuda.free(address)
    assert cuda.memory() == (MEMORY, MEMORY)


def test_more_memory_than_there_is_is_out_of_memory_in_the_drivers_words(cuda: Cudart) -> None:
    with pytest.raises(CudaError, match="cudaMalloc: out of memory") as caught:
        cuda.malloc(MEMORY + 1)
    assert caught.value.code is ErrorCode.OUT_OF_MEMORY


def test_memory_that_was_freed_cannot_be_freed_again(cuda: Cudart) -> None:
    address = cuda.malloc(8)
    cuda.free(address)
    with pytest.raises(CudaError, match="invalid argument") as caught:
        cuda.free(address)
    assert caught.value.code is ErrorCode.MODEL_ERROR


def test_planes_are_copied_in_the_streams_order_and_not_before_somebody_waits(cuda: Cudart) -> None:
    stream, event = cuda.create_stream(), cuda.create_event()
    memory = Memory(cuda)
    source = memory.map((2, 3, 4), np.dtype(np.uint8), "a test")
    target = memory.map((2, 5, 8), np.dtype(np.uint8), "a test")
    source.array[...] = np.arange(24).reshape(2, 3, 4)
    cuda.memset(target.address, 9, target.array.nbytes, stream)
    cuda.copy_planes(Planes(target.address + 2, 8, 5), Planes(source.address, 4, 3), (2, 3, 4), stream)
    assert not target.array.any()
    cuda.finish(stream, event)
    expected = np.full((2, 5, 8), 9)
    expected[:, :3, 2:6] = source.array
    assert np.array_equal(target.array, expected)


def test_a_captured_graph_does_its_work_each_time_it_is_launched_and_not_while_it_is_captured(
    cuda: Cudart, driver: SimulatedCuda
) -> None:
    stream, event, done = cuda.create_stream(), cuda.create_event(), []
    cuda.begin_capture(stream)
    driver.submit(stream, lambda: done.append(1))
    executable = cuda.instantiate(cuda.end_capture(stream))
    cuda.finish(stream, event)
    assert done == []
    for _ in range(3):
        cuda.launch(executable, stream)
    cuda.finish(stream, event)
    assert done == [1, 1, 1]
    cuda.destroy_executable(executable)
    cuda.destroy_event(event)
    cuda.destroy_stream(stream)
    assert driver.live == 0


def test_what_cuda_forbids_during_a_capture_spoils_it(cuda: Cudart) -> None:
    stream = cuda.create_stream()
    cuda.begin_capture(stream)
    with pytest.raises(CudaError, match="capturing"):
        cuda.malloc(8)
    with pytest.raises(CudaError, match="previous error during capture"):
        cuda.end_capture(stream)


def test_a_device_that_failed_says_so_at_every_wait(cuda: Cudart, driver: SimulatedCuda) -> None:
    stream, event = cuda.create_stream(), cuda.create_event()
    driver.submit(stream, lambda: 1 / 0)
    for _ in range(2):
        with pytest.raises(CudaError, match="launch failure"):
            cuda.finish(stream, event)


def test_memory_has_its_purpose_and_what_is_free_in_its_error(cuda: Cudart) -> None:
    with pytest.raises(CudaError, match=r"100.0 MiB for a test: cudaMalloc: out of memory .*; 64 of 64 MiB are free"):
        Memory(cuda).allocate(100 << 20, "a test")


def test_closing_the_memory_gives_back_every_block_and_a_later_release_is_no_error(cuda: Cudart, driver: SimulatedCuda) -> None:
    memory = Memory(cuda)
    block = memory.allocate(1000, "a test")
    memory.map((4,), np.dtype(np.float32), "a test")
    assert block.address % ALIGNMENT == 0
    assert memory.nbytes == 1000
    memory.close()
    memory.release(block)
    assert (driver.live, memory.nbytes) == (0, 0)


def test_a_machine_without_the_library_is_told_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "candidates", lambda: ["libcudart.so.12.is.not.here"])
    with pytest.raises(CudaError, match=r"none of libcudart.so.13, libcudart.so.12 is installed"):
        Cudart.load()


def test_a_library_without_a_device_is_passed_over_for_the_next(monkeypatch: pytest.MonkeyPatch, driver: SimulatedCuda) -> None:
    empty = SimulatedCuda(MEMORY)
    empty._functions["cudaGetDeviceCount"] = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(lambda to: 100)
    libraries = {"old": empty, "new": driver}
    monkeypatch.setattr(module, "candidates", lambda: ["old", "new"])
    monkeypatch.setattr(module.ctypes, "CDLL", libraries.__getitem__)
    assert Cudart.load().device_count() == 1
    libraries["new"] = empty
    with pytest.raises(CudaError, match="can be used: old: cudaGetDeviceCount: an unknown error .CUDA error 100.; new"):
        Cudart.load()


def test_another_library_is_not_taken_for_it() -> None:
    with pytest.raises(CudaError, match="no CUDA runtime library of version 12 or 13"):
        Cudart(ctypes.CDLL("libm.so.6"))


def test_the_machines_own_library_has_every_function_that_is_called() -> None:
    """Where one is installed, with a driver or without."""
    found = []
    for name in module.candidates():
        with suppress(OSError):
            found.append(Cudart(ctypes.CDLL(name)).version())
    if not found:
        pytest.skip("no CUDA runtime library on this machine")
    assert all(version.startswith(("12.", "13.")) for version in found)


def test_a_pip_package_and_cudas_folder_are_looked_into(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "nvidia" / "cuda_runtime" / "lib"
    folder.mkdir(parents=True)
    (folder / "libcudart.so.12").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert str(folder / "libcudart.so.12") in module.candidates()

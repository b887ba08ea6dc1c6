"""The TensorRT backend over pretended libraries that compute with ONNX Runtime: it gives what the CPU backend gives.

This proves the runner and, in ONNX Runtime, the graphs. It proves nothing about TensorRT's own kernels.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.doctor.simulated.cuda import SimulatedCuda
from mobilevlm_ros.doctor.simulated.libraries import simulated_libraries
from mobilevlm_ros.runtime.errors import BackendError, BackendLostError, ErrorCode, PackageError
from mobilevlm_ros.runtime.kv_cache import load
from mobilevlm_ros.runtime.ort_backend import OrtBackend
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.tensorrt.backend import DecodeMode, TensorRtBackend, chunks
from mobilevlm_ros.runtime.tensorrt.device_cache import DeviceKVCache
from tests.runtime.tensorrt.conftest import CONTEXT, ROWS, VERSIONS, Simulate, Simulation
from tests.tensorrt_package import takes_fused

CLOSE = 4e-3
"""Of the largest logit: the caches hold float16, and the CPU's float32."""
TOKENS = np.random.default_rng(0).integers(3, 700, 400).tolist()


@pytest.fixture(scope="module")
def cpu(package: ModelPackage) -> Iterator[OrtBackend]:
    backend = OrtBackend(package, threads=1)
    yield backend
    backend.close()


@pytest.fixture(params=[pytest.param("fused", marks=takes_fused), "portable"])
def simulation(request: pytest.FixtureRequest, simulate: Simulate) -> Simulation:
    """Once for each of the decoder's graphs."""
    return simulate(VERSIONS[request.param])


@pytest.fixture
def backend(simulation: Simulation, package: ModelPackage) -> Iterator[TensorRtBackend]:
    """On the device, and afterwards off it without a trace."""
    backend = simulation.backend(package)
    yield backend
    backend.close()
    assert simulation.cuda.live == 0


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert abs(found - expected).max() < CLOSE * abs(expected).max()


def new_cache(backend: TensorRtBackend) -> DeviceKVCache:
    return backend.new_cache(ROWS, CONTEXT)


def test_it_tells_which_decoder_runs_and_that_nothing_is_amiss(backend: TensorRtBackend) -> None:
    assert backend.name in ("tensorrt-10.16.0-trt", "tensorrt-10.3.0-trt-portable")
    assert backend.notice == ""


def test_pictures_become_the_same_visual_tokens_as_on_the_cpu(
    backend: TensorRtBackend, cpu: OrtBackend, package: ModelPackage
) -> None:
    size = package.manifest.vision.image_size
    pixels = np.random.default_rng(1).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    assert_close(backend.encode(pixels), cpu.encode(pixels))


def test_a_prompt_longer_than_a_profile_is_cut_and_gives_the_same_logits(backend: TensorRtBackend, cpu: OrtBackend) -> None:
    wanted = [399, 0, 255, 256, *range(270, 300)]
    whole = cpu.embed(TOKENS)
    found = backend.prefill(new_cache(backend), 1, whole, wanted)
    assert_close(found, cpu.prefill(cpu.new_cache(1, CONTEXT), 0, whole, wanted))


def test_rows_of_different_lengths_decode_as_each_does_alone(backend: TensorRtBackend, cpu: OrtBackend) -> None:
    cache, lengths = new_cache(backend), (7, 31, 16)
    for row, length in enumerate(lengths):
        backend.prefill(cache, row, backend.embed(TOKENS[:length]), [0])
    steps = [backend.decode(cache, TOKENS[100 + step : 103 + step]).copy() for step in range(5)]
    for row, length in enumerate(lengths):
        alone = cpu.new_cache(1, CONTEXT)
        cpu.prefill(alone, 0, cpu.embed(TOKENS[:length]), [0])
        for step, logits in enumerate(steps):
            assert_close(logits[row], cpu.decode(alone, [TOKENS[100 + step + row]])[0])
    assert cache.lengths == [length + 5 for length in lengths]


def test_rows_above_those_that_decode_are_left_alone(backend: TensorRtBackend, cpu: OrtBackend) -> None:
    cache = new_cache(backend)
    for row in range(ROWS):
        backend.prefill(cache, row, backend.embed(TOKENS[:9]), [0])
    for _ in range(4):
        backend.decode(cache, TOKENS[9:10])
    expected = cpu.new_cache(1, CONTEXT)
    cpu.prefill(expected, 0, cpu.embed(TOKENS[:9]), [0])
    assert_close(backend.decode(cache, TOKENS[20:23])[2], cpu.decode(expected, TOKENS[22:23])[0])


def test_a_kept_prefix_goes_into_another_row_and_stays_as_it_is(backend: TensorRtBackend, cpu: OrtBackend) -> None:
    cache = new_cache(backend)
    backend.prefill(cache, 0, backend.embed(TOKENS[:21]), [0])
    kept = cache.save(0)
    for row in range(ROWS):  # the second time over what the first has changed
        load(cache, row, kept)
        found = backend.prefill(cache, row, backend.embed(TOKENS[50 + row : 60]), [0])
        expected = cpu.new_cache(1, CONTEXT)
        cpu.prefill(expected, 0, cpu.embed(TOKENS[:21]), [0])
        assert_close(found, cpu.prefill(expected, 0, cpu.embed(TOKENS[50 + row : 60]), [0]))
    assert (kept.length, kept.nbytes) == (21, 2 * 5 * 3 * 21 * 64 * 2)


def test_a_part_of_what_a_row_holds_is_kept_and_a_part_of_that_goes_behind_another_row(
    backend: TensorRtBackend, cpu: OrtBackend
) -> None:
    cache, expected = new_cache(backend), cpu.new_cache(2, CONTEXT)
    for row, length in ((0, 30), (1, 10)):
        backend.prefill(cache, row, backend.embed(TOKENS[:length]), [0])
        cpu.prefill(expected, row, cpu.embed(TOKENS[:length]), [0])
    cache.extend(1, cache.save(0, 10), 15)
    cache.extend(1, cache.save(0, 30), 0)
    expected.extend(1, expected.save(0, 10), 15)
    assert cache.lengths[:2] == expected.lengths == [30, 25]
    found = backend.prefill(cache, 1, backend.embed(TOKENS[25:28]), [2])
    assert_close(found, cpu.prefill(expected, 1, cpu.embed(TOKENS[25:28]), [2]))


def test_a_kept_prefix_gives_its_memory_back_when_nobody_has_it_any_more(backend: TensorRtBackend) -> None:
    cache = new_cache(backend)
    before = backend.device_bytes
    backend.prefill(cache, 0, backend.embed(TOKENS[:21]), [0])
    kept = cache.save(0)
    assert backend.device_bytes == before + kept.nbytes
    del kept
    assert backend.device_bytes == before


def test_a_captured_step_gives_what_the_plain_one_gives(simulation: Simulation, package: ModelPackage) -> None:
    answers = []
    for mode in DecodeMode:
        backend = simulation.backend(package, mode)
        cache = new_cache(backend)
        backend.prefill(cache, 0, backend.embed(TOKENS[:12]), [0])
        before = simulation.cuda.live
        answers.append([backend.decode(cache, TOKENS[step : step + 1]).copy() for step in range(6)])
        assert simulation.cuda.live - before == (mode is DecodeMode.CAPTURED), "the graph"
        backend.close()
    assert np.array_equal(*np.array(answers))


def test_where_nothing_can_be_captured_it_runs_all_the_same_and_says_so(simulation: Simulation, package: ModelPackage) -> None:
    refuse = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(lambda stream, mode: 900)
    simulation.cuda._functions["cudaStreamBeginCapture"] = refuse
    backend = simulation.backend(package)
    cache = new_cache(backend)
    for step in range(3):
        assert np.isfinite(backend.decode(cache, TOKENS[step : step + 1])).all()
    assert "decode runs without a CUDA graph: cudaStreamBeginCapture" in backend.notice
    backend.close()


def test_a_row_that_is_full_is_an_error_and_not_a_write_behind_it(backend: TensorRtBackend) -> None:
    cache = new_cache(backend)
    backend.prefill(cache, 0, backend.embed(TOKENS), [0])
    with pytest.raises(BackendError, match="400 and 113 tokens do not fit a row of 512"):
        backend.prefill(cache, 0, backend.embed(TOKENS[:113]), [0])
    cache.lengths[0] = CONTEXT
    with pytest.raises(BackendError, match="512 and 1 tokens"):
        backend.decode(cache, [5])


def test_a_cache_larger_than_the_engine_was_built_for_is_refused(backend: TensorRtBackend) -> None:
    with pytest.raises(BackendError, match=r"built for 4 rows of 512 tokens, not for 5 of 512"):
        backend.new_cache(5, CONTEXT)


def test_too_little_memory_for_the_cache_is_told_with_its_size_and_can_be_tried_again_smaller(
    simulate: Simulate, package: ModelPackage
) -> None:
    simulate().backend(package).close()  # builds the engines, which needs more
    simulation = simulate(memory=5 << 20)
    backend = simulation.backend(package)
    with pytest.raises(
        BackendError, match=r"5.6 MiB for the keys and values of 3 rows of 512 tokens: cudaMalloc: out of"
    ) as caught:
        new_cache(backend)
    assert caught.value.code is ErrorCode.OUT_OF_MEMORY
    assert np.isfinite(backend.decode(backend.new_cache(1, CONTEXT), [5])).all()
    backend.close()
    assert simulation.cuda.live == 0


def test_too_little_memory_to_load_leaves_nothing_behind(simulate: Simulate, package: ModelPackage) -> None:
    simulation = simulate(memory=1 << 19)
    simulate().backend(package).close()  # builds the engines, which needs more
    with pytest.raises(BackendError) as caught:
        simulation.backend(package)
    assert caught.value.code is ErrorCode.OUT_OF_MEMORY
    assert simulation.cuda.live == 0


def test_a_device_that_is_lost_is_told_as_lost(package: ModelPackage) -> None:
    simulation = Simulation(*simulated_libraries())
    backend = simulation.backend(package)
    cache = new_cache(backend)
    simulation.cuda.submit(backend.stream, lambda: 1 / 0)
    for _ in range(2):
        with pytest.raises(BackendLostError, match="decode failed: cudaEventSynchronize: unspecified launch failure"):
            backend.decode(cache, [5])
    backend.close()


def test_memory_is_the_same_after_many_requests(backend: TensorRtBackend, simulation: Simulation) -> None:
    cache = new_cache(backend)

    def request(length: int) -> None:
        cache.lengths[:] = [0] * ROWS
        backend.prefill(cache, 0, backend.embed(TOKENS[:length]), [length - 1])
        load(cache, 1, cache.save(0))
        for rows in (1, 2, 2, 1):
            backend.decode(cache, TOKENS[:rows])

    request(5)
    used, live = simulation.cuda.used, simulation.cuda.live
    for length in range(1, 20):
        request(length)
    assert (simulation.cuda.used, simulation.cuda.live) == (used, live)


def test_an_engine_of_another_model_is_refused(simulation: Simulation, fresh: ModelPackage) -> None:
    other = replace(fresh.manifest, decoder=replace(fresh.manifest.decoder, layers=4))
    with pytest.raises(PackageError, match=r"does not fit the 4 layers that the manifest says"):
        simulation.backend(replace(fresh, manifest=other))
    assert simulation.cuda.live == 0


@given(
    length=st.integers(1, 60),
    wanted=st.lists(st.integers(0, 59), min_size=1, max_size=30),
    longest=st.integers(1, 20),
    most=st.integers(1, 8),
)
def test_chunks_cover_a_prompt_without_a_gap_and_within_the_bounds(
    length: int, wanted: list[int], longest: int, most: int
) -> None:
    wanted = [at % length for at in wanted]
    parts = chunks(length, wanted, longest, most)
    assert [part.start for part in parts] == [0, *(part.end for part in parts[:-1])]
    assert parts[-1].end == length
    assert all(0 < part.end - part.start <= longest and 0 < len(part.wanted) <= most for part in parts)
    assert {at for part in parts for at in part.wanted} >= set(wanted)
    assert all(part.start <= at < part.end for part in parts for at in part.wanted)


def test_the_pretended_memory_begins_as_nans_so_that_what_is_not_cleared_shows() -> None:
    cuda = SimulatedCuda(1 << 20)
    made = ctypes.c_void_p()
    assert cuda.cudaMalloc(ctypes.addressof(made), 8) == 0
    place = cuda.at(made.value or 0, 8)
    assert np.isnan(np.frombuffer((ctypes.c_char * 8).from_address(place), np.float32)).all()

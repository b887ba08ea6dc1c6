"""The ONNX Runtime backend: what it leaves alone, and which graph runs what."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.manifest import Precision
from mobilevlm_ros.runtime.ort_backend import CHUNK, PREFILL_LEAST, OrtBackend
from mobilevlm_ros.runtime.package import PREFILL_DIALECT, ModelPackage
from mobilevlm_ros.runtime.prefix_tree import prefix_tree
from tests.conftest import PackageMaker
from tests.parity import relative

RUN = """
import sys
from mobilevlm_ros.runtime.engine import Engine
with Engine.open(sys.argv[1]) as engine:
    print(engine.backend_name)
"""


def test_it_does_not_report_to_its_maker(parity_package: PackageMaker, tmp_path: Path) -> None:
    """ONNX Runtime prepares its reports below the home folder, where nothing may appear."""
    environment = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    package = str(parity_package("ldpnetv2"))
    done = subprocess.run([sys.executable, "-c", RUN, package], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "onnxruntime-cpu", done.stderr
    assert list(tmp_path.rglob("*onnxruntime*")) == []


def test_a_tree_of_continuations_is_read_as_each_of_them_alone(parity_package: PackageMaker) -> None:
    backend = OrtBackend(ModelPackage.open(parity_package("ldpnetv2")), threads=1)
    cache = backend.new_cache(rows=2, capacity=64)
    backend.prefill(cache, 1, backend.embed([1, 5, 9, 13]), [3])
    continuations = [(20, 21, 22), (20, 21, 30), (20, 40), (50, 51, 52, 53)]
    tree = prefix_tree([(*continuation, 2) for continuation in continuations])
    found = backend.branch(cache, 1, tree)
    assert cache.lengths == [0, 4]
    for continuation, path in zip(continuations, tree.paths):
        expected = backend.prefill(cache, 1, backend.embed(continuation), range(len(continuation)))
        cache.lengths[1] = 4
        np.testing.assert_allclose(found[list(path[1:])], expected, rtol=1e-4, atol=1e-5)
    backend.close()


def test_its_threads_run_where_they_may(parity_package: PackageMaker) -> None:
    processor = min(os.sched_getaffinity(0))
    before = set(os.listdir("/proc/self/task"))
    with Engine.open(parity_package("ldpnetv2"), EngineConfig(threads=2, cpu_affinity=str(processor))):
        started = set(os.listdir("/proc/self/task")) - before
        allowed = {frozenset(os.sched_getaffinity(int(thread))) for thread in started}
    assert len(started) >= 3  # the engine's, and one beside it for each graph
    assert allowed == {frozenset({processor})}


def test_a_prompt_longer_than_a_chunk_gives_what_it_gives_token_by_token(parity_package: PackageMaker) -> None:
    backend = OrtBackend(ModelPackage.open(parity_package("ldpnetv2")), threads=1)
    tokens = [3 + (7 * place) % 200 for place in range(CHUNK + 40)]
    cache = backend.new_cache(rows=2, capacity=CHUNK + 64)
    wanted = [0, CHUNK - 1, CHUNK, CHUNK + 39]
    at_once = backend.prefill(cache, 0, backend.embed(tokens), wanted)
    one_by_one = np.concatenate([backend.prefill(cache, 1, backend.embed([token]), [0]) for token in tokens])
    assert cache.lengths == [len(tokens)] * 2
    np.testing.assert_allclose(at_once, one_by_one[wanted], rtol=1e-3, atol=1e-4)
    backend.close()


@pytest.fixture(scope="module")
def two_decoders(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """A random model in 4 bits with a decoder of its own for prompts."""
    pytest.importorskip("torch", reason="converting needs torch")
    from mobilevlm_ros.export.convert import ConvertOptions, convert
    from mobilevlm_ros.export.prefill_builder import Prefill
    from mobilevlm_ros.export.quantization import Rounding
    from tests.make_checkpoint import tiny_config, write_checkpoint

    folder = tmp_path_factory.mktemp("two_decoders")
    checkpoint = write_checkpoint(folder / "checkpoint", tiny_config(hidden=128))
    options = ConvertOptions(Precision.INT4, prefill=Prefill.INT8, rounding=Rounding.NEAREST, examples=4)
    return ModelPackage.open(convert(checkpoint, folder / "package", options).package)


def test_only_a_prompt_that_is_worth_it_is_read_with_the_decoder_for_prompts(two_decoders: ModelPackage) -> None:
    tokens = list(range(3, 3 + PREFILL_LEAST))
    found = []
    for package in (two_decoders, two_decoders.without_decoder(PREFILL_DIALECT)):
        backend = OrtBackend(package, threads=1)
        cache = backend.new_cache(rows=2, capacity=64)
        short = backend.prefill(cache, 0, backend.embed(tokens[:-1]), [PREFILL_LEAST - 2])
        long = backend.prefill(cache, 1, backend.embed(tokens), [PREFILL_LEAST - 1])
        found.append((short, long))
        backend.close()
    (short, long), (short_without, long_without) = found
    np.testing.assert_array_equal(short, short_without)
    assert 0 < relative(long, long_without) < 0.5  # one rounds weights to 8 bits, the other to 4


def test_single_tokens_go_on_in_the_cache_that_the_decoder_for_prompts_has_filled(two_decoders: ModelPackage) -> None:
    tokens = [3 + (7 * place) % 200 for place in range(40)]
    backend = OrtBackend(two_decoders, threads=1)
    cache = backend.new_cache(rows=1, capacity=64)
    at_once = backend.prefill(cache, 0, backend.embed(tokens), [len(tokens) - 1])[0]
    cache.lengths[0] = 0
    backend.prefill(cache, 0, backend.embed(tokens[:-2]), [0])
    for token in tokens[-2:]:
        last = backend.decode(cache, [token])[0].copy()
    assert relative(last, at_once) < 0.2
    cache.lengths[0] = 0
    for token in tokens[-2:]:
        unrelated = backend.decode(cache, [token])[0].copy()
    assert relative(unrelated, at_once) > 0.5
    backend.close()

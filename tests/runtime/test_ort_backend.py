"""The ONNX Runtime backend: what it leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.ort_backend import CHUNK, OrtBackend
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.prefix_tree import prefix_tree
from tests.conftest import PackageMaker

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

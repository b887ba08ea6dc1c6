"""Fixtures of the system tests. Each module runs one node process, so that the suite stays short."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mobilevlm_ros.models import shipped_package
from mobilevlm_ros.ros.dds import profile_variables
from tests.conftest import SIMULATED_TENSORRT
from tests.tensorrt_package import nano_for_tensorrt

if TYPE_CHECKING:
    from mobilevlm_ros.client import VLM
    from tests.system.graph import Camera, Process, Served

# Before any node exists: a graph of this test run alone, and pictures through shared memory.
os.environ.setdefault("ROS_DOMAIN_ID", str(101 - os.getpid() % 50))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.update(profile_variables(os.environ))

END_TOKEN = 2

LIMIT = 300.0
"""Seconds that a test may take with its fixtures, where it does not say: time for several waits on a slow and busy machine."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives the tests of this folder their time limit."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LIMIT))


@pytest.fixture(scope="session")
def random_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model package called `random` with random weights, made so that it never ends an answer by itself."""
    torch = pytest.importorskip("torch", reason="converting needs torch")
    from mobilevlm_ros.export.convert import ConvertOptions, convert
    from mobilevlm_ros.export.trt_graphs import Target
    from tests.make_checkpoint import tiny_config, write_checkpoint

    folder = tmp_path_factory.mktemp("random_package")
    config = replace(tiny_config(hidden=192, layers=6), max_position_embeddings=2048)
    checkpoint = write_checkpoint(folder / "random", config)
    weights = torch.load(checkpoint / "pytorch_model.bin")
    weights["lm_head.weight"][END_TOKEN] = 0.0  # of 600 random tokens another is always likelier
    torch.save(weights, checkpoint / "pytorch_model.bin")
    target = Target.ALL if os.environ.get(SIMULATED_TENSORRT) else Target.CPU
    return convert(checkpoint, folder / "package", ConvertOptions(target=target, verify=False)).package


@pytest.fixture(scope="session")
def nano_on_tensorrt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nano model for every backend, without engines."""
    pytest.importorskip("torch", reason="converting needs torch")
    return nano_for_tensorrt(tmp_path_factory.mktemp("nano_on_tensorrt") / "package").path


@pytest.fixture(scope="session")
def nano_package(request: pytest.FixtureRequest) -> Path:
    """The model package that ships."""
    if os.environ.get(SIMULATED_TENSORRT):
        built: Path = request.getfixturevalue("nano_on_tensorrt")
        return built
    package = shipped_package()
    if not package.is_dir():
        pytest.skip("the nano model is not there")
    return package


@pytest.fixture(scope="module")
def tester() -> Iterator[Any]:
    """This process's own node."""
    from tests.system.graph import own_node

    with own_node() as node:
        yield node


@pytest.fixture(scope="module")
def node(served: Served) -> Process:
    """The process of the node that the module's own fixture `served` runs."""
    return served.process


@pytest.fixture(scope="module")
def camera(served: Served) -> Camera:
    """The camera of that node."""
    return served.camera


@pytest.fixture(scope="module")
def vlm(served: Served) -> VLM:
    """A client of that node."""
    return served.vlm

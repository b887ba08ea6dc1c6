"""What these tests share: the nano model with its graphs for TensorRT, and a pretended device to run them on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mobilevlm_ros.doctor.simulated.cuda import SimulatedCuda
from mobilevlm_ros.doctor.simulated.libraries import NEWEST, OLDEST, simulated_libraries
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.tensorrt.backend import DecodeMode, TensorRtBackend
from mobilevlm_ros.runtime.tensorrt.builder import EngineNeeds
from mobilevlm_ros.runtime.tensorrt.library import Libraries
from tests.tensorrt_package import nano_for_tensorrt

VERSIONS = {"fused": NEWEST, "portable": OLDEST}
ROWS, CONTEXT = 3, 512


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """The nano model for every backend; engines that a test builds beside it stay for the next."""
    pytest.importorskip("torch", reason="converting needs torch")
    return nano_for_tensorrt(tmp_path_factory.mktemp("tensorrt") / "nano")


@pytest.fixture
def fresh(package: ModelPackage, tmp_path: Path) -> ModelPackage:
    """A copy of it without engines."""
    copy = shutil.copytree(package.path, tmp_path / "package", ignore=shutil.ignore_patterns("engines"))
    return ModelPackage.open_unverified(copy)


@dataclass(frozen=True)
class Simulation:
    """A pretended device and the libraries that reach it."""

    libraries: Libraries
    cuda: SimulatedCuda

    def backend(self, package: ModelPackage, mode: DecodeMode = DecodeMode.CAPTURED) -> TensorRtBackend:
        """The package on it."""
        return TensorRtBackend(self.libraries, package, EngineNeeds(ROWS, CONTEXT), lambda line: None, mode)


Simulate = Callable[..., Simulation]


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    """Makes pretended devices, and looks afterwards that nothing was done that a device would not have borne."""
    made: list[Simulation] = []

    def simulate(version: str = NEWEST, memory: int = 1 << 30) -> Simulation:
        made.append(Simulation(*simulated_libraries(version, memory)))
        return made[-1]

    yield simulate
    for simulation in made:
        assert simulation.cuda.problems == []

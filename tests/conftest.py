"""What many tests share: model packages made from the recorded checkpoints."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

import mobilevlm_ros.runtime  # noqa: F401 - keeps ONNX Runtime, however a test imports it, from reporting to its maker

# As `mobilevlm_ros.checkpoint` says; tests may import torch before it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A shell lets what it starts in the background ignore SIGINT, and so would every program that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A deadline for each example would measure the machine, not the code.
settings.register_profile("mobilevlm", deadline=None)
settings.load_profile("mobilevlm")

DATA = Path(__file__).parent / "data"
PARITY = DATA / "parity"

PackageMaker = Callable[[str], Path]

SIMULATED_TENSORRT = "MOBILEVLM_TESTS_SIMULATED_TENSORRT"
"""Set where the option of that name is given; an environment variable, because processes that tests start look at it too."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest tests/system --simulated-tensorrt`: every node runs its models on TensorRT's stand-in."""
    parser.addoption("--simulated-tensorrt", action="store_true", help="run the system tests' nodes on simulated TensorRT")


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module is imported."""
    if config.getoption("--simulated-tensorrt"):
        os.environ[SIMULATED_TENSORRT] = "1"


@pytest.fixture(scope="session")
def parity_package(tmp_path_factory: pytest.TempPathFactory) -> PackageMaker:
    """Converts a recorded checkpoint, `ldpnet` or `ldpnetv2`, to a float32 package, once a session."""
    pytest.importorskip("torch", reason="converting needs torch")
    from mobilevlm_ros.export.convert import ConvertOptions, convert

    root = tmp_path_factory.mktemp("packages")

    @cache
    def make(name: str) -> Path:
        return convert(PARITY / name, root / name, ConvertOptions(verify=False)).package

    return make

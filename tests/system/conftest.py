"""Fixtures of the system tests. Each module runs one node process, so that the suite stays short."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mobilevlm_ros.models import shipped_package
from mobilevlm_ros.ros.dds import profile_variables

# Before any node exists: a graph of this test run alone, and pictures through shared memory.
os.environ.setdefault("ROS_DOMAIN_ID", str(101 - os.getpid() % 50))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.update(profile_variables(os.environ))


@pytest.fixture(scope="session")
def random_package(parity_package: Callable[[str], Path]) -> Path:
    """A model package with random weights: quick, and never at a loss for words."""
    return parity_package("ldpnetv2")


@pytest.fixture(scope="session")
def nano_package() -> Path:
    """The model package that ships."""
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

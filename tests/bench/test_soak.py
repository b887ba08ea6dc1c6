"""The soak against the real node: bounded in time here, an hour's work where tests may be slow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="the node needs ROS 2")

from bench.robot import Pictures
from bench.soak import figures
from bench.soak_run import Gathered, Plan, Sample
from mobilevlm_ros.models import shipped_package
from mobilevlm_ros.runtime.errors import ErrorCode

pytestmark = pytest.mark.ros

ROOT = Path(__file__).resolve().parents[2]
PLAN = Plan(60.0, Pictures(30.0, 640, 480))


def soak(minutes: float, *options: str) -> dict[str, Any]:
    if not shipped_package().is_dir():
        pytest.skip("the nano model is not there")
    command = [sys.executable, "-m", "bench.soak", "--json", "--minutes", str(minutes), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=minutes * 60 + 90)
    assert done.returncode == 0, done.stderr
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(values)
    return values


def samples(*megabytes: float) -> tuple[Sample, ...]:
    """One a second."""
    return tuple(Sample(float(second), round(size * 2**20), 20, 30) for second, size in enumerate(megabytes))


def test_memory_that_stays_is_flat_whatever_the_warm_up_took() -> None:
    found = Gathered(samples(*range(0, 100, 10), *[100.0] * 30), {ErrorCode.NONE: 10}, 900, 10)
    assert figures(found, PLAN, 0.0)["growth_mb"] == 0


def test_memory_that_grows_is_told_with_its_trend() -> None:
    found = Gathered(samples(*(100 + second / 60 for second in range(60))), {ErrorCode.NONE: 1800}, 1800, 10)
    values = figures(found, PLAN, 0.0)
    assert values["growth_mb_per_hour"] == pytest.approx(60.0)
    assert values["growth_mb"] == pytest.approx(0.62, abs=0.1)
    assert values["hours_of_requests"] == 0.5


def test_a_short_soak_leaves_the_node_as_it_was() -> None:
    values = soak(0.15)
    assert values["requests"] >= 5
    assert values["ends"]["NONE"] >= 1
    assert len(values["memory_mb_by_tenth"]) == 10
    assert values["growth_mb"] < 32
    assert values["files_grown"] <= 1
    assert values["threads_grown"] <= 8


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_an_hours_work_leaves_the_node_as_it_was() -> None:
    values = soak(12.0, "--rate", "150", "--size", "320x240")
    assert values["hours_of_requests"] > 0.5
    assert values["hours_of_pictures"] > 0.5
    assert values["growth_mb"] < 16
    assert (values["files_grown"], values["threads_grown"]) == (0, 0)


def test_what_makes_no_sense_is_refused() -> None:
    command = [sys.executable, "-m", "bench.soak"]
    for words, part in ((["--minutes", "0"], "--minutes"), (["--size", "large"], "--size")):
        done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert part in done.stderr

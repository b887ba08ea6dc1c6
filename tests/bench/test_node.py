"""The node's benchmark against the real node: what it tells, and that nothing stays behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="the node needs ROS 2")

from mobilevlm_ros.models import shipped_package

pytestmark = pytest.mark.ros

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "bench.node", "--json", "--seconds", "2", "--size", "320x240", "--rate", "20"]


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    if not shipped_package().is_dir():
        pytest.skip("the nano model is not there")
    done = subprocess.run(COMMAND, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values


def test_a_request_takes_longer_than_its_stages_in_the_engine(told: dict[str, Any]) -> None:
    assert told["requests"] >= 3
    assert 0 < told["engine_stages_ms"] < told["node_request_ms"]
    assert 0 < told["added_latency_ms"] <= told["added_latency_ms_p99"]
    assert told["added_latency_share"] == pytest.approx(told["added_latency_ms"] / told["engine_stages_ms"], rel=0.01)
    assert told["engine_call_ms"] > 0


def test_each_picture_costs_the_node_a_time_that_is_told(told: dict[str, Any]) -> None:
    assert told["frames_watched"] >= 5
    assert 0 < told["callback_ms_median"] <= told["callback_ms_p99"]
    assert 0 < told["callback_thread_ms_median"] <= told["callback_thread_ms_p99"]
    assert told["callback_thread_ms_median"] < 2 * told["node_threads_ms_median"]
    assert told["transport_ms_median"] > 0


def test_pictures_are_counted_on_both_sides(told: dict[str, Any]) -> None:
    assert 0 < told["frames_received"] <= told["frames_published"]
    assert 0.5 < told["frames_received_share"] <= 1


def test_memory_is_sampled_while_it_is_asked(told: dict[str, Any]) -> None:
    assert told["rss_samples"] >= 3
    assert told["rss_mb"] > 10
    assert isinstance(told["rss_growth_mb_per_hour"], float)


def test_the_figures_say_what_they_rest_on(told: dict[str, Any]) -> None:
    assert (told["size"], told["rate_hz"], told["seconds"]) == ("320x240", 20.0, 2.0)
    assert told["machine"] and told["model"]


def test_ctrl_c_ends_the_node_and_the_camera() -> None:
    with subprocess.Popen(COMMAND, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            children = _wait_for_children(process.pid, 2)
            time.sleep(1.0)  # so that it is at work, and not still starting
            process.send_signal(signal.SIGINT)
            assert process.wait(40) == 130
        finally:
            process.kill()
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


@pytest.mark.parametrize("wrong", [["--seconds", "1"], ["--size", "big"], ["--rate", "0"]])
def test_an_option_that_makes_no_sense_is_refused(wrong: list[str]) -> None:
    done = subprocess.run([*COMMAND, *wrong], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert wrong[0] in done.stderr


def _wait_for_children(pid: int, count: int) -> list[str]:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        children = [child for task in Path(f"/proc/{pid}/task").iterdir() for child in _children(task)]
        if len(children) >= count:
            return children
        time.sleep(0.05)
    raise AssertionError("the benchmark started no processes")


def _children(task: Path) -> list[str]:
    try:
        return (task / "children").read_text(encoding="ascii").split()
    except OSError:
        return []

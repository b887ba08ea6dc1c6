"""A standing query from its client: the first answer, changes, its end, and what goes wrong."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mobilevlm_msgs.srv import ListQueries
from rclpy.node import Node

from mobilevlm_ros.client import VLM, AsyncVLM, ErrorCode, Finding, Publish
from tests.recordings import bag_pictures
from tests.system.graph import PATIENCE, Caller, Camera, Served, fails, serving, until

NAME = "watch_vlm"
QUESTION = "What color is the ball?"
ORANGE, GREEN = 0, 33  # pictures of the recording, by their ball's colour


@pytest.fixture(scope="module")
def served(tester: Node, nano_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tester, NAME, tmp_path_factory.mktemp("watch"), model=nano_package) as served:
        yield served


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return bag_pictures()


def names(tester: Node) -> list[str]:
    """The queries that the node keeps."""
    call = Caller(tester, ListQueries, f"/{NAME}/list_queries")
    listed = call(ListQueries.Request())
    call.close()
    return [query.name for query in listed.queries]


def test_the_answer_as_it_is_now_comes_first_and_then_each_change(
    vlm: VLM, camera: Camera, pictures: list[np.ndarray], tester: Node
) -> None:
    with vlm.watch(QUESTION, every=0.1) as watch:
        findings = iter(watch)
        with camera.streaming(pixels=pictures[ORANGE]):
            first = next(findings)
            while str(first) != "Orange":  # until then it looked at the test's first picture
                first = next(findings)
        with camera.streaming(pixels=pictures[GREEN]):
            second = next(findings)
        assert (second.value, second.previous, second.changed) == ("Green", "Orange", True)
        assert str(second.answer) == "Green"
        assert second.answer.question == QUESTION
        assert names(tester) == [watch.name]
    until(lambda: names(tester) == [])


def test_leaving_the_loop_removes_the_query(vlm: VLM, camera: Camera, pictures: list[np.ndarray], tester: Node) -> None:
    with camera.streaming(pixels=pictures[ORANGE]):
        for finding in vlm.watch_for("the orange ball", every=0.1):
            if finding.value == "present":
                break
    assert finding.regions[0].phrase == "the orange ball"
    until(lambda: names(tester) == [])


def test_a_listener_is_called_with_each_finding(vlm: VLM, camera: Camera, pictures: list[np.ndarray]) -> None:
    came: list[Finding] = []
    labels = ("orange", "green")
    with vlm.watch(QUESTION, every=0.05, labels=labels, publish=Publish.ALWAYS, min_change=0.0) as watch:
        watch.listen(came.append)
        with camera.streaming(pixels=pictures[GREEN]):
            until(lambda: len([finding for finding in came if finding.value == "green"]) > 1)


def test_findings_come_in_asyncio(vlm: VLM, camera: Camera, pictures: list[np.ndarray], tester: Node) -> None:
    async def first() -> str:
        async for finding in AsyncVLM(tester, NAME).watch(QUESTION, every=0.1):
            if finding.value == "Orange":
                return finding.value
        return ""

    with camera.streaming(pixels=pictures[ORANGE]):
        assert asyncio.run(first()) == "Orange"
    until(lambda: names(tester) == [])


def test_a_query_that_the_node_refuses_raises_where_it_is_read(vlm: VLM, tester: Node) -> None:
    fails(lambda: next(iter(vlm.watch("  "))), ErrorCode.BAD_REQUEST, "question")
    fails(lambda: next(iter(vlm.watch(QUESTION, camera="nowhere"))), ErrorCode.BAD_REQUEST, "nowhere")
    assert names(tester) == []


def test_a_query_by_the_same_name_takes_the_place_of_one_whose_client_died(vlm: VLM, tester: Node, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import os, rclpy
        from mobilevlm_ros.client import VLM
        rclpy.init()
        watch = VLM(rclpy.create_node("script"), "{NAME}").watch("{QUESTION}", name="colour", every=0.1)
        findings = iter(watch)
        next(findings)
        print("first", flush=True)
        os.kill(os.getpid(), 9)
        """)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.stdout, done.returncode) == ("first\n", -9), done.stderr
    assert names(tester) == ["colour"]
    with vlm.watch(QUESTION, name="colour", every=0.1) as watch:
        until(watch.take)
        assert names(tester) == ["colour"]
    until(lambda: names(tester) == [])


def test_a_watch_that_is_closed_at_once_leaves_no_query(vlm: VLM, tester: Node) -> None:
    for _ in range(5):
        vlm.watch(QUESTION).close()
    time.sleep(0.5)
    assert names(tester) == []

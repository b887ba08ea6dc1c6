"""The message that a watch's wishes become."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

import rclpy
from mobilevlm_msgs.msg import StandingQuery
from rclpy.context import Context
from rclpy.node import Node

from mobilevlm_ros.client import VLM, Publish
from mobilevlm_ros.client.watch import standing_query


@pytest.fixture
def node() -> Iterator[Node]:
    context = Context()
    rclpy.init(args=[], context=context)
    yield Node("kitchen_watch", context=context, use_global_arguments=False)
    rclpy.shutdown(context=context)


def test_a_query_is_called_after_its_node_and_like_no_other(node: Node) -> None:
    first, second = (standing_query(node, StandingQuery.ASK, "Is it open?", 1.0).name for _ in range(2))
    assert first.startswith("q_kitchen_watch-")
    assert first != second


def test_a_query_takes_what_was_wished_and_leaves_the_rest_to_the_node(node: Node) -> None:
    query = standing_query(node, StandingQuery.ASK, "Is it open?", 2.5, labels=("yes", "no"), publish=Publish.ALWAYS, name="door")
    assert (query.name, query.text, list(query.labels)) == ("door", "Is it open?", ["yes", "no"])
    assert (query.period.sec, query.period.nanosec) == (2, 500_000_000)
    assert (query.publish, query.frames) == (StandingQuery.ALWAYS, 0)
    assert (query.min_change, query.max_tokens, query.camera) == (-1.0, 0, "")


def test_frames_take_the_place_of_seconds(node: Node) -> None:
    query = standing_query(node, StandingQuery.GROUND, "the mug", 1.0, frames=10)
    assert (query.frames, query.period.sec, query.period.nanosec) == (10, 0, 0)


def test_a_watch_leaves_nothing_in_the_executor_that_its_end_in_another_thread_could_pull_from_under_it(node: Node) -> None:
    client = VLM(node, "nobody", connect_timeout=0.1)
    before = list(node.waitables)
    watch = client.watch("Is it open?")
    assert list(node.waitables) == before
    watch.close()

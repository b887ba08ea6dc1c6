"""Standing queries over real DDS: the nano model looks at a table whose things change, as a camera with noise shows it."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from mobilevlm_msgs.msg import StandingAnswer, StandingQuery
from mobilevlm_msgs.srv import AddQuery, ListQueries, RemoveQuery
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage

from mobilevlm_ros.client import VLM
from mobilevlm_ros.demo.player import read
from mobilevlm_ros.demo.run import BAG
from mobilevlm_ros.ros.camera import Snapshot
from mobilevlm_ros.runtime.errors import ErrorCode
from tests.system.graph import PATIENCE, Caller, Camera, Listener, Process, node_command, running_node, until

NAME = "standing_vlm"
BALL, GREEN_BOWL, RED_MUG = 0, 16, 47
"""Pictures of the demo's recording, by what is on the table."""

MUG = "mug; ground: the red mug; every: 0.1 s"
COUNT = "count; ask: How many objects are on the table?; every: 4 frames; max_tokens: 8"


class Table:
    """A camera above a table: 20 pictures a second, each with noise of its own."""

    def __init__(self, node: Node) -> None:
        self._camera = Camera(node, "image")
        random = np.random.default_rng(0)
        recorded = {message.picture: message.cdr for message in read(BAG)}
        clean = {number: Snapshot("", recorded[number], CompressedImage).frame.pixels for number in (BALL, GREEN_BOWL, RED_MUG)}
        self._views = {
            number: [np.clip(pixels + random.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8) for _ in range(4)]
            for number, pixels in clean.items()
        }
        self.scene = BALL
        self.sent = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._film)
        self._thread.start()

    def _film(self) -> None:
        while not self._stop.wait(0.05):
            views = self._views[self.scene]
            self._camera.show(views[self.sent % len(views)])
            self.sent += 1

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


class Queries:
    """The three services, and what comes on `~/standing`."""

    def __init__(self, node: Node) -> None:
        self._add = Caller(node, AddQuery, f"/{NAME}/add_query")
        self._remove = Caller(node, RemoveQuery, f"/{NAME}/remove_query")
        self._list = Caller(node, ListQueries, f"/{NAME}/list_queries")
        self.heard = Listener(node, StandingAnswer, f"/{NAME}/standing")

    def add(self, **fields: Any) -> AddQuery.Response:
        return self._add(AddQuery.Request(query=StandingQuery(**fields)))

    def remove(self, name: str) -> RemoveQuery.Response:
        return self._remove(RemoveQuery.Request(name=name))

    def listed(self) -> ListQueries.Response:
        return self._list(ListQueries.Request())

    def values(self, name: str) -> list[str]:
        return [message.value for message in list(self.heard.messages) if message.name == name]

    def until_told(self, name: str, *values: str) -> None:
        until(lambda: self.values(name)[-len(values) :] == list(values))


@pytest.fixture(scope="module")
def table(tester: Node) -> Iterator[Table]:
    shown = Table(tester)
    yield shown
    shown.close()


@pytest.fixture(scope="module")
def node(nano_package: Path, table: Table, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("standing")
    twin = Path(shutil.copytree(nano_package, folder / "twin"))
    manifest = json.loads((twin / "manifest.json").read_text())
    (twin / "manifest.json").write_text(json.dumps({**manifest, "name": "twin"}))
    queries = (MUG, COUNT)
    with running_node(
        NAME, folder / "node.log", model=nano_package, adapters=(str(twin),), standing_queries=queries, diagnostics_period=0.1
    ) as process:
        yield process


@pytest.fixture(scope="module")
def queries(tester: Node, node: Process) -> Queries:
    return Queries(tester)


@pytest.fixture(scope="module")
def diagnostics(tester: Node, node: Process) -> Listener:
    return Listener(tester, DiagnosticArray, "/diagnostics")


def counts(diagnostics: Listener, name: str) -> dict[str, float]:
    """What the next diagnostics tell of a query."""
    return {key: float(value) for key, value in told(diagnostics, f"query {name}").items()}


def told(diagnostics: Listener, what: str) -> dict[str, str]:
    """The values of a part of the node as they are now: of its second next status, as the next may be on its way already."""
    diagnostics.messages.clear()

    def heard() -> list[DiagnosticStatus]:
        statuses = (status for array in list(diagnostics.messages) for status in array.status)
        return [status for status in statuses if status.name == f"/{NAME}: {what}"]

    until(lambda: len(heard()) >= 2)
    return {value.key: value.value for value in heard()[1].values}


def test_a_change_of_the_scene_is_told_once_and_a_still_scene_is_not_asked_again(
    queries: Queries, table: Table, diagnostics: Listener
) -> None:
    until(lambda: counts(diagnostics, "mug")["skipped, picture unchanged"] >= 3)
    queries.heard.messages.clear()
    asked = [counts(diagnostics, "mug")["asked"]]
    for scene, value in ((RED_MUG, "present"), (GREEN_BOWL, "absent"), (RED_MUG, "present")):
        table.scene = scene
        queries.until_told("mug", value)
        skipped = counts(diagnostics, "mug")["skipped, picture unchanged"]
        until(lambda skipped=skipped: counts(diagnostics, "mug")["skipped, picture unchanged"] >= skipped + 4)  # type: ignore[misc]
        asked.append(counts(diagnostics, "mug")["asked"])
    assert queries.values("mug") == ["present", "absent", "present"]
    assert [after - before for before, after in pairwise(asked)] == [1, 1, 1]


def test_what_is_told_says_where_when_and_what_was_before(queries: Queries, table: Table) -> None:
    table.scene = GREEN_BOWL
    queries.until_told("mug", "absent")
    table.scene = RED_MUG
    queries.until_told("mug", "present")
    answer = [message for message in queries.heard.messages if message.name == "mug"][-1]
    assert (answer.previous, answer.changed, answer.error_code) == ("absent", True, ErrorCode.NONE)
    assert answer.header.frame_id == "optical"
    assert answer.header == answer.regions.info.header
    (region,) = answer.regions.regions
    assert (region.box.x1, region.box.y2) == pytest.approx((237, 445), abs=15)


def test_a_query_by_frames_from_the_parameters_counts_things(queries: Queries, table: Table) -> None:
    queries.heard.messages.clear()
    for scene, value in ((BALL, "3"), (RED_MUG, "4")):
        table.scene = scene
        queries.until_told("count", value)


def test_every_nth_frame_is_looked_at(queries: Queries, table: Table, diagnostics: Listener) -> None:
    def turns() -> float:
        count = counts(diagnostics, "count")
        return count["asked"] + count["skipped, picture unchanged"] + count["lost, node busy"]

    def received() -> int:
        return int(told(diagnostics, "camera camera")["frames received"])

    start, before = received(), turns()
    until(lambda: received() >= start + 40)
    # On a machine that is busy a turn may come some frames late, but never early.
    assert 5 <= turns() - before <= (received() - start) / 4 + 1


def test_a_query_is_added_listed_and_removed_by_service(queries: Queries, table: Table) -> None:
    table.scene = RED_MUG
    added = queries.add(name="ball", text="Is there a blue ball on the table?", labels=["yes", "no"])
    assert (added.error_code, added.error_msg) == (ErrorCode.NONE, "")
    queries.until_told("ball", "yes")
    listed = queries.listed()
    assert [query.name for query in listed.queries] == ["mug", "count", "ball"]
    assert [answer.value for answer in listed.answers] == ["present", "4", "yes"]
    ball = listed.queries[2]
    assert (ball.period.sec, ball.refresh.sec, ball.min_change, ball.kind) == (1, 60, 12.0, StandingQuery.ASK)
    assert queries.remove("ball").error_code == ErrorCode.NONE
    remaining = queries.listed()
    assert [query.name for query in remaining.queries] == ["mug", "count"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "mug", "text": "Is it there?"}, "'mug' already"),
        ({"name": "no name", "text": "Is it there?"}, "the name 'no name'"),
        ({"name": "it", "text": ""}, "no question"),
        ({"name": "it", "kind": 7, "text": "Is it there?"}, "kind is 7"),
        ({"name": "it", "text": "Is it there?", "camera": "rear"}, "there are: camera"),
        ({"name": "it", "text": "Is it there?", "labels": ["yes"]}, "2 to 64"),
        ({"name": "it", "text": "Is it there?", "min_change": float("nan")}, "min_change"),
    ],
)
def test_a_query_that_does_not_fit_is_refused_with_the_reason(queries: Queries, fields: dict[str, Any], words: str) -> None:
    refused = queries.add(**fields)
    assert refused.error_code == ErrorCode.BAD_REQUEST
    assert words in refused.error_msg


def test_what_is_not_there_cannot_be_removed(queries: Queries) -> None:
    refused = queries.remove("nobody")
    assert refused.error_code == ErrorCode.BAD_REQUEST
    assert "mug, count" in refused.error_msg


def test_somebodys_questions_are_answered_in_between(queries: Queries, table: Table, tester: Node, diagnostics: Listener) -> None:
    vlm = VLM(tester, NAME, connect_timeout=PATIENCE)
    names = [f"busy{number}" for number in range(6)]
    for name in names:
        assert queries.add(name=name, text="What is on the table?", frames=1, min_change=0.0).error_code == ErrorCode.NONE
    until(lambda: counts(diagnostics, names[-1])["asked"] >= 1)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: vlm.ask(f"What is number {number}?", max_tokens=8), range(24)))
    assert {answer.error_code for answer in answers} == {ErrorCode.NONE}
    listed = queries.listed()
    assert sum(counts(diagnostics, query.name)["lost, node busy"] for query in listed.queries) >= 1
    for name in names:
        queries.remove(name)
    before = counts(diagnostics, "mug")["asked"]
    table.scene = BALL
    until(lambda: counts(diagnostics, "mug")["asked"] > before)


def test_another_model_that_is_selected_is_asked_about_the_same_scene(
    queries: Queries, table: Table, tester: Node, diagnostics: Listener
) -> None:
    vlm = VLM(tester, NAME, connect_timeout=PATIENCE)
    until(lambda: counts(diagnostics, "mug")["skipped, picture unchanged"] >= 1)
    time.sleep(0.5)
    queries.heard.messages.clear()
    asked = counts(diagnostics, "mug")["asked"]
    assert vlm.select_model("twin").active == "twin"
    until(lambda: counts(diagnostics, "mug")["asked"] == asked + 1)
    time.sleep(0.5)
    assert counts(diagnostics, "mug")["asked"] == asked + 1
    assert not queries.heard.messages
    listed = queries.listed()
    assert {answer.regions.info.model or answer.answer.info.model for answer in listed.answers} == {"twin"}


def test_queries_rest_while_the_node_does_and_go_with_its_model(
    queries: Queries, table: Table, tester: Node, diagnostics: Listener
) -> None:
    call = Caller(tester, ChangeState, f"/{NAME}/change_state")

    def change(*transitions: int) -> None:
        for transition in transitions:
            assert call(ChangeState.Request(transition=Transition(id=transition))).success

    assert queries.add(name="late", text="What is on the table?").error_code == ErrorCode.NONE
    change(Transition.TRANSITION_DEACTIVATE)
    before = counts(diagnostics, "mug")
    table.scene = RED_MUG
    time.sleep(0.5)
    assert counts(diagnostics, "mug") == before
    queries.heard.messages.clear()
    change(Transition.TRANSITION_ACTIVATE)
    queries.until_told("mug", "present")
    change(Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
    assert queries.add(name="it", text="Is it there?").error_code == ErrorCode.NOT_ACTIVE
    change(Transition.TRANSITION_CONFIGURE)
    kept = queries.listed()
    assert [query.name for query in kept.queries] == ["mug", "count"]


def test_a_bad_query_among_the_parameters_ends_the_start_with_the_reason(nano_package: Path, tmp_path: Path) -> None:
    command = node_command("refused_vlm", model=nano_package, standing_queries=("mug; look: the red mug",))
    process = Process(command, tmp_path / "node.log")
    assert process.wait() == 1
    assert "cannot start: the standing query 'mug; look: the red mug' cannot be: 'look: the red mug' is no field" in process.log

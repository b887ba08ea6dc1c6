"""Another model selected while the node runs, over real DDS: the nano model, and adapters that are packages beside it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from mobilevlm_msgs.msg import Answer
from rclpy.node import Node

from mobilevlm_ros import tasks
from mobilevlm_ros.client import VLM
from mobilevlm_ros.runtime.engine import Engine
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.sampling import SamplingParams
from mobilevlm_ros.tasks import Settings
from tests.system.graph import PATIENCE, Camera, Listener, Process, fails, picture, running_node, until, until_seen

pytest.importorskip("torch", reason="converting needs torch")

NAME = "select_vlm"
BASE = "mobilevlm-nano"
QUESTION = "What is on the table?"
TOKENS = 16
LEAST_MODEL_MB = 40.0
"""Less than the nano model takes with its caches, and far less than twenty of them."""


@pytest.fixture(scope="module")
def packages(nano_package: Path, random_package: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The base, adapters of it, one of which a test breaks, and a whole package that never ends an answer by itself."""
    from mobilevlm_ros.export.adapter import AdapterOptions, convert_adapter
    from tests.make_adapter import write_lora

    checkpoint = nano_package.parent / "checkpoint"
    if not checkpoint.is_dir():
        pytest.skip("the nano model's checkpoint is not there")
    root = tmp_path_factory.mktemp("adapters")
    made = {BASE: Path(shutil.copytree(nano_package, root / "nano"))}
    for seed, name in enumerate(("kitchen", "garden", "fragile")):
        lora = write_lora(root / f"{name}-lora", checkpoint, strength=1.0, seed=seed)
        options = AdapterOptions(name=name, verify=False)
        made[name] = convert_adapter(checkpoint, lora, made[BASE], root / name, options).package
    return {**made, "random": random_package}


@pytest.fixture(scope="module")
def expected(packages: dict[str, Path]) -> dict[str, str]:
    """What each model answers about the picture, worked out with the tasks alone."""
    settings = Settings(SamplingParams(max_tokens=TOKENS, temperature=0.0))
    answers = {}
    for name, package in packages.items():
        with Engine.open(package) as engine:
            answers[name] = tasks.ask(engine, Frame(picture()), QUESTION, settings).text
    assert len(set(answers.values())) == len(answers), "the adapters must change the answer"
    return answers


@pytest.fixture(scope="module")
def node(packages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    log = tmp_path_factory.mktemp("select") / "node.log"
    adapters = tuple(str(path) for name, path in packages.items() if name != BASE)
    with running_node(
        NAME, log, model=packages[BASE], adapters=adapters, max_image_age=10.0, max_tokens=TOKENS, diagnostics_period=0.1
    ) as process:
        yield process


@pytest.fixture(scope="module")
def camera(tester: Node, node: Process) -> Iterator[Camera]:
    """Runs all the time, as on a robot."""
    camera = Camera(tester, "image")
    camera.wait_for_listener()
    with camera.streaming(10.0):
        yield camera


@pytest.fixture(scope="module")
def client(tester: Node, camera: Camera) -> VLM:
    client = VLM(tester, NAME)
    client.wait_until_there(PATIENCE)
    until_seen(client, camera)
    return client


@pytest.fixture
def vlm(client: VLM) -> Iterator[VLM]:
    """A client of a node whose base answers, before and after the test."""
    assert client.list_models().active == BASE
    yield client
    until(lambda: selected(client, ""))


def selected(vlm: VLM, name: str) -> bool:
    """Selects a model; False where another selection is on its way."""
    try:
        return bool(vlm.select_model(name).active)
    except VlmError as error:
        assert error.code is ErrorCode.BUSY
        return False


@contextmanager
def asking(vlm: VLM) -> Iterator[list[Answer]]:
    """A thread that asks without a pause; an answer that does not come well fails the test."""
    answers: list[Answer] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            answers.append(vlm.ask(QUESTION))

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        try:
            yield answers
        finally:
            stop.set()
            done.result(30.0)


def subscriptions(tester: Node) -> set[tuple[int, ...]]:
    """The identities of all subscriptions to the camera."""
    return {tuple(info.endpoint_gid) for info in tester.get_subscriptions_info_by_topic("/image")}


def _last_is_from(answers: list[Answer], model: str) -> bool:
    return bool(answers) and answers[-1].info.model == model


def memory_mb(process: Process) -> float:
    """Resident memory of the node's process."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def test_the_client_lists_what_there_is(vlm: VLM, packages: dict[str, Path]) -> None:
    models = vlm.list_models()
    assert (models.active, list(models.available)) == (BASE, list(packages))


def test_answers_are_the_selected_models_from_the_next_request_on(vlm: VLM, expected: dict[str, str]) -> None:
    for name in ("kitchen", "garden", BASE, "garden", ""):
        response = vlm.select_model(name)
        answer = vlm.ask(QUESTION)
        assert response.active == answer.info.model == (name or BASE)
        assert answer.text == expected[answer.info.model]


def test_nothing_is_lost_while_models_change(vlm: VLM, tester: Node, expected: dict[str, str]) -> None:
    before = subscriptions(tester)
    assert before
    with asking(vlm) as answers:
        for name in ("kitchen", "", "garden", "kitchen", ""):
            vlm.select_model(name)
            until(partial(_last_is_from, answers, name or BASE))
    assert subscriptions(tester) == before
    assert {answer.error_code for answer in answers} == {ErrorCode.NONE}
    assert all(answer.text == expected[answer.info.model] for answer in answers)
    stamps = [answer.info.header.stamp.sec + answer.info.header.stamp.nanosec * 1e-9 for answer in answers]
    assert stamps == sorted(stamps)
    assert len(set(stamps)) > 5


def test_a_stream_on_its_way_ends_on_the_model_that_it_began_with(vlm: VLM) -> None:
    vlm.select_model("random")
    with vlm.chat("Tell me a long story.", max_tokens=1200) as stream:
        next(pieces := iter(stream))
        assert vlm.select_model("kitchen").active == "kitchen"
        assert vlm.ask(QUESTION).info.model == "kitchen"
        assert list(pieces)
    assert stream.answer
    assert (stream.answer.info.model, stream.answer.info.answer_tokens) == ("random", 1200)


def test_a_conversation_goes_on_with_another_model_and_keeps_its_history(vlm: VLM) -> None:
    first = vlm.chat(QUESTION)
    first.text()
    vlm.select_model("kitchen")
    second, alone = vlm.chat("And its colour?", session=first.session), vlm.chat("And its colour?")
    second.text()
    alone.text()
    assert second.answer
    assert alone.answer
    assert second.session == first.session
    assert second.answer.info.model == "kitchen"
    assert second.answer.info.prompt_tokens > alone.answer.info.prompt_tokens + 5


def test_a_package_that_broke_since_leaves_the_node_serving_and_says_why(
    vlm: VLM, packages: dict[str, Path], expected: dict[str, str], tmp_path: Path
) -> None:
    weights = packages["fragile"] / "decoder.cpu.adapter.safetensors"
    shutil.copy(weights, tmp_path)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    try:
        fails(lambda: vlm.select_model("fragile"), ErrorCode.MODEL_ERROR, "decoder.cpu.adapter.safetensors: SHA-256")
        assert vlm.list_models().active == BASE
        assert vlm.ask(QUESTION).text == expected[BASE]
    finally:
        shutil.copy(tmp_path / weights.name, weights)
    vlm.select_model("fragile")
    assert vlm.ask(QUESTION).text == expected["fragile"]


def test_a_name_that_is_not_there_is_a_bad_request_with_those_that_are(vlm: VLM) -> None:
    fails(lambda: vlm.select_model("cellar"), ErrorCode.BAD_REQUEST, "mobilevlm-nano, kitchen, garden, fragile, random")


def test_many_selections_at_once_are_done_or_told_that_one_is_on_its_way(vlm: VLM, expected: dict[str, str]) -> None:
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda name: selected(vlm, name), ["kitchen", "garden", "fragile"] * 2))
    assert any(done)
    answer = vlm.ask(QUESTION)
    assert answer.info.model == vlm.list_models().active
    assert answer.text == expected[answer.info.model]


def test_diagnostics_name_the_model_that_answers(vlm: VLM, tester: Node) -> None:
    heard = Listener(tester, DiagnosticArray, "/diagnostics")
    vlm.select_model("garden")
    heard.first(lambda array: {value.key: value.value for value in array.status[0].values}["model"] == "garden")


def test_twenty_changes_leave_no_memory_and_no_threads_behind(vlm: VLM, node: Process) -> None:
    def change(times: int) -> None:
        for number in range(times):
            vlm.select_model(("kitchen", "")[number % 2])
            vlm.ask(QUESTION)

    change(10)
    memory, threads = memory_mb(node), len(list(Path(f"/proc/{node.pid}/task").iterdir()))
    change(20)
    assert memory_mb(node) < memory + LEAST_MODEL_MB
    assert len(list(Path(f"/proc/{node.pid}/task").iterdir())) <= threads + 4

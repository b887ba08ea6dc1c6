"""Which model answers: loaded beside the one before, exchanged between two requests, and the one before freed after its last."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from mobilevlm_msgs.msg import RequestOptions

from mobilevlm_ros.ros.admission import Gate
from mobilevlm_ros.ros.messages import Outcome
from mobilevlm_ros.ros.model import Model
from mobilevlm_ros.ros.parameters import NodeOptions, defaults
from mobilevlm_ros.ros.selection import Selection
from mobilevlm_ros.runtime.errors import ErrorCode, PackageError, VlmError
from mobilevlm_ros.tasks import Answer
from tests.ros.fakes import NOW, FakeModel, Office, snapshot

FOLDERS = ("packages/kitchen", "packages/garden")


class Models:
    """Makes the models; the last part of a package's path is its model's name."""

    def __init__(self) -> None:
        self.loaded: list[FakeModel] = []
        self.broken: set[str] = set()
        self.ready = threading.Event()
        self.ready.set()

    def load(self, options: NodeOptions) -> Model:
        name = Path(options.model).name
        self.ready.wait(10.0)
        if name in self.broken:
            raise PackageError(f"{options.model}: broken")
        self.loaded.append(FakeModel(name))
        return self.loaded[-1]

    @property
    def open(self) -> list[str]:
        """Names of the models in memory."""
        return [model.name for model in self.loaded if not model.closed]


class Shop:
    """A desk whose model is selected, with a base and two adapters."""

    def __init__(self, adapters: tuple[str, ...] = FOLDERS) -> None:
        self.office = Office(Gate())
        self.models = Models()
        self.selection = Selection(self.office.desk, self.models.load, lambda folder: Path(folder).name)
        self.options = NodeOptions.of({**defaults(), "model": "packages/base", "adapters": list(adapters)})

    def ask(self) -> Outcome[Answer]:
        return self.office.desk.serve(RequestOptions(), lambda model, shot, settings: model.ask(shot.frame, "What?", settings))

    def answers(self) -> str:
        """The name of the model that answers."""
        return self.ask().source.model

    @contextmanager
    def on_its_way(self) -> Iterator[Future[Outcome[Answer]]]:
        """A request that the present model has taken and does not end before the block does."""
        model = self.models.loaded[-1]
        model.hold.clear()
        with ThreadPoolExecutor(1) as pool:
            request = pool.submit(self.ask)
            wait_for(lambda: bool(model.asked))
            try:
                yield request
            finally:
                model.hold.set()


@pytest.fixture
def shop() -> Shop:
    shop = Shop()
    shop.selection.configure(shop.options)
    return shop


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def refused(call: Callable[[], object]) -> VlmError:
    with pytest.raises(VlmError) as caught:
        call()
    assert "\n" not in caught.value.message
    return caught.value


def test_the_configured_model_answers_first_and_all_names_are_known(shop: Shop) -> None:
    assert shop.answers() == "base"
    choice = shop.selection.choice()
    assert (choice.active, choice.available) == ("base", ("base", "kitchen", "garden"))
    assert shop.models.open == ["base"]


def test_a_selected_model_answers_from_the_next_request_on_and_the_one_before_is_freed(shop: Shop) -> None:
    shop.selection.select("garden")
    assert shop.answers() == "garden"
    wait_for(lambda: shop.models.open == ["garden"])
    assert shop.selection.choice().active == "garden"


@pytest.mark.parametrize("name", ["", "base"])
def test_the_way_back_is_the_empty_name_or_the_bases_own(shop: Shop, name: str) -> None:
    shop.selection.select("kitchen")
    shop.selection.select(name)
    assert shop.answers() == "base"


def test_selecting_what_answers_already_loads_nothing(shop: Shop) -> None:
    shop.selection.select("base")
    shop.selection.select("")
    assert len(shop.models.loaded) == 1


def test_a_request_on_its_way_ends_on_the_model_that_it_began_with(shop: Shop) -> None:
    with shop.on_its_way() as request:
        shop.selection.select("kitchen")
        assert shop.answers() == "kitchen"
        assert not shop.models.loaded[0].closed
    assert (request.result().error, request.result().source.model) == (ErrorCode.NONE, "base")
    wait_for(lambda: shop.models.open == ["kitchen"])


def test_a_request_that_waits_for_a_picture_keeps_no_model_and_is_answered_by_the_one_of_that_time(shop: Shop) -> None:
    options = RequestOptions(frame_policy=RequestOptions.NEXT)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            shop.office.desk.serve, options, lambda model, shot, settings: model.ask(shot.frame, "What?", settings)
        )
        wait_for(lambda: shop.office.gate.inside == 1)
        shop.selection.select("kitchen")
        wait_for(lambda: shop.models.open == ["kitchen"])
        shop.office.slot.put(snapshot(NOW + 1.0))
        assert waiting.result(5.0).source.model == "kitchen"


def test_there_are_never_more_than_two_models(shop: Shop) -> None:
    with ThreadPoolExecutor(1) as pool:
        with shop.on_its_way():
            shop.selection.select("kitchen")
            third = pool.submit(shop.selection.select, "garden")
            time.sleep(0.1)
            assert shop.models.open == ["base", "kitchen"]
            assert shop.answers() == "kitchen"
        third.result(5.0)
    assert shop.answers() == "garden"


def test_requests_are_answered_while_a_model_is_being_loaded_and_another_selection_is_busy(shop: Shop) -> None:
    shop.models.ready.clear()
    with ThreadPoolExecutor(1) as pool:
        selecting = pool.submit(shop.selection.select, "kitchen")
        wait_for(shop.selection._selecting.locked)
        assert shop.answers() == "base"
        assert refused(lambda: shop.selection.select("garden")).code is ErrorCode.BUSY
        shop.models.ready.set()
        selecting.result(5.0)
    assert shop.answers() == "kitchen"


def test_a_broken_package_leaves_the_model_before_and_can_be_tried_again(shop: Shop) -> None:
    shop.models.broken.add("kitchen")
    assert refused(lambda: shop.selection.select("kitchen")).message == "packages/kitchen: broken"
    assert (shop.answers(), shop.selection.choice().active) == ("base", "base")
    shop.models.broken.clear()
    shop.selection.select("kitchen")
    assert shop.answers() == "kitchen"


def test_a_name_that_is_not_there_is_a_bad_request_with_those_that_are(shop: Shop) -> None:
    error = refused(lambda: shop.selection.select("cellar"))
    assert error.code is ErrorCode.BAD_REQUEST
    assert "base, kitchen, garden" in error.message


def test_without_a_configured_model_nothing_can_be_selected() -> None:
    shop = Shop()
    assert refused(lambda: shop.selection.select("kitchen")).code is ErrorCode.NOT_ACTIVE
    assert (shop.selection.choice().active, shop.selection.choice().available) == ("", ())


def test_unloading_frees_all_also_a_model_whose_requests_have_not_ended(shop: Shop) -> None:
    with ThreadPoolExecutor(1) as pool, shop.on_its_way():
        shop.selection.select("kitchen")
        unloading = pool.submit(shop.selection.unload)
        wait_for(lambda: shop.models.open == [])
    unloading.result(5.0)
    assert shop.ask().error is ErrorCode.NOT_ACTIVE


def test_what_is_loaded_while_the_node_is_cleaned_up_is_freed(shop: Shop) -> None:
    shop.models.ready.clear()
    with ThreadPoolExecutor(1) as pool:
        selecting = pool.submit(shop.selection.select, "kitchen")
        wait_for(shop.selection._selecting.locked)
        shop.selection.unload()
        shop.models.ready.set()
        assert refused(lambda: selecting.result(5.0)).code is ErrorCode.NOT_ACTIVE
    assert [model.name for model in shop.models.loaded] == ["base", "kitchen"]
    assert shop.models.open == []


def test_configuring_again_begins_with_the_configured_model(shop: Shop) -> None:
    shop.selection.select("garden")
    shop.selection.unload()
    shop.selection.configure(shop.options)
    assert shop.answers() == "base"


@pytest.mark.parametrize("adapters", [("a/kitchen", "b/kitchen"), ("a/base",)])
def test_two_packages_of_the_same_name_are_refused_and_nothing_stays_loaded(adapters: tuple[str, ...]) -> None:
    shop = Shop(adapters)
    error = refused(lambda: shop.selection.configure(shop.options))
    assert f"'{Path(adapters[0]).name}'" in error.message
    assert shop.models.open == []

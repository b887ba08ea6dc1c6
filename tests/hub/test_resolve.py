"""`mobilevlm convert` by name: from a hub on this machine, from the cache, or from a folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobilevlm_ros.hub.catalogue import find
from mobilevlm_ros.hub.errors import HubError
from mobilevlm_ros.hub.resolve import resolve_checkpoint
from mobilevlm_ros.runtime.manifest import Manifest
from mobilevlm_ros.runtime.package import ModelPackage
from tests.conftest import PARITY
from tests.hub.commands import Machine, here
from tests.hub.server import Hub, Repository, serve

pytest.importorskip("torch", reason="converting needs torch")
pytest.importorskip("huggingface_hub", reason="fetching needs huggingface_hub")

NAME = "mtgv/MobileVLM_V2-1.7B"  # what lies there in these tests is tiny


@pytest.fixture
def hub() -> Iterator[Hub]:
    entry = find(NAME)
    assert entry is not None
    with serve(Hub({NAME: Repository.of_folder(PARITY / "ldpnetv2", pinned=entry.revision)})) as running:
        yield running


@pytest.fixture
def machine(hub: Hub, tmp_path: Path) -> Iterator[Machine]:
    with here(Machine(hub.address, tmp_path / "home")) as machine:
        yield machine


def converted(machine: Machine, package: Path, *arguments: object) -> Manifest:
    done = machine.run("convert", *arguments[:1], package, "--no-verify", *arguments[1:])
    assert done.returncode == 0, done.stderr
    return ModelPackage.open(package).manifest


class TestConvertingByName:
    def test_downloads_and_records_name_commit_and_licence(self, hub: Hub, machine: Machine, tmp_path: Path) -> None:
        manifest = converted(machine, tmp_path / "p", "v2-1.7b")
        assert manifest.name == "MobileVLM_V2-1.7B"
        assert manifest.source.checkpoint == NAME
        assert manifest.source.revision == hub.repositories[NAME].commit
        assert manifest.licence == "Apache-2.0"

    def test_works_in_a_process_of_its_own(self, hub: Hub, machine: Machine, tmp_path: Path) -> None:
        process = machine.start("convert", NAME, tmp_path / "p", "--no-verify")
        process.communicate(timeout=100)
        assert process.returncode == 0
        assert ModelPackage.open(tmp_path / "p").manifest.source.revision == hub.repositories[NAME].commit

    def test_works_offline_once_it_is_here(self, hub: Hub, machine: Machine, tmp_path: Path) -> None:
        machine.folder(NAME)
        commit = hub.repositories[NAME].commit
        hub.requests.clear()
        assert converted(machine, tmp_path / "a", NAME, "--offline").source.revision == commit
        with here(machine, offline=True):
            assert converted(machine, tmp_path / "b", NAME).source.revision == commit
        assert hub.requests == []

    def test_works_with_what_is_here_where_the_hub_does_not_answer(self, machine: Machine, tmp_path: Path) -> None:
        machine.folder(NAME)
        with here(Machine("http://127.0.0.1:9", machine.home)) as unplugged:
            assert converted(unplugged, tmp_path / "p", NAME).source.checkpoint == NAME

    def test_takes_another_commit_offline_where_only_that_was_fetched(self, hub: Hub, machine: Machine, tmp_path: Path) -> None:
        hub.repositories[NAME].pinned = "0" * 40
        machine.folder(NAME, "--revision", "main")
        assert converted(machine, tmp_path / "p", "v2-1.7b", "--offline").source.revision == "0" * 40

    def test_prefers_a_folder_of_that_name(
        self, machine: Machine, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(PARITY / "ldpnet", tmp_path / NAME)
        monkeypatch.chdir(tmp_path)
        manifest = converted(machine, tmp_path / "p", NAME, "--revision", "mine", "--licence", "MIT")
        assert (manifest.vision.projector, manifest.source.revision, manifest.licence) == ("ldpnet", "mine", "MIT")
        assert hub.requests == []

    def test_of_a_folder_that_was_fetched_remembers_where_it_came_from(self, hub: Hub, machine: Machine, tmp_path: Path) -> None:
        machine.folder("v2-1.7b", "--to", tmp_path / "checkpoint")
        manifest = converted(machine, tmp_path / "p", tmp_path / "checkpoint")
        assert (manifest.source.checkpoint, manifest.source.revision) == (NAME, hub.repositories[NAME].commit)
        assert manifest.licence == "Apache-2.0"

    def test_takes_an_adapter_from_the_hub(self, hub: Hub, machine: Machine, tmp_path: Path) -> None:
        hub.repositories["someone/base"] = Repository.of_folder(PARITY / "ldpnet", licence="mit")
        hub.repositories["someone/adapter"] = Repository.of_folder(PARITY / "ldpnet_lora")
        manifest = converted(machine, tmp_path / "p", "someone/base", "--lora", "someone/adapter")
        assert manifest.source.checkpoint == "someone/base + someone/adapter"
        assert manifest.licence == "mit"
        local = converted(machine, tmp_path / "q", PARITY / "ldpnet", "--lora", PARITY / "ldpnet_lora")
        data = "decoder.cpu.onnx.data"
        assert manifest.files[data] == local.files[data]

    def test_of_nothing_is_one_line(self, hub: Hub, machine: Machine, tmp_path: Path) -> None:
        line = machine.error_line("convert", "someone/nothing", tmp_path / "p")
        assert line.startswith("someone/nothing: no such repository")
        assert list(tmp_path.glob("*p*")) == []


class TestTheVisionTower:
    @pytest.fixture
    def towerless(self, hub: Hub, tmp_path: Path) -> str:
        """The checkpoint in two repositories, decoder and tower, as a release without a tower names them."""
        from dataclasses import replace

        from tests.make_checkpoint import Files, tiny_config, write_checkpoint, write_tower

        config = replace(tiny_config(), mm_vision_tower="someone/tower")
        hub.repositories["someone/blind"] = Repository.of_folder(
            write_checkpoint(tmp_path / "blind", config, seed=1, files=Files(tower=False))
        )
        hub.repositories["someone/tower"] = Repository.of_folder(write_tower(tmp_path / "tower", config, seed=1))
        return "someone/blind"

    def test_is_fetched_where_the_checkpoint_lacks_it(self, hub: Hub, machine: Machine, towerless: str, tmp_path: Path) -> None:
        found = converted(machine, tmp_path / "p", towerless)
        given = converted(machine, tmp_path / "q", towerless, "--vision-tower", tmp_path / "tower")
        assert found.files["vision.onnx.data"] == given.files["vision.onnx.data"]

    def test_is_not_asked_for_where_the_checkpoint_has_one(self, hub: Hub, machine: Machine, tmp_path: Path) -> None:
        converted(machine, tmp_path / "p", NAME)
        assert {request.path for request in hub.requests if "tower" in request.path or "/openai/" in request.path} == set()

    def test_can_be_named_by_its_hub_id(self, hub: Hub, machine: Machine, towerless: str, tmp_path: Path) -> None:
        hub.repositories["other/tower"] = hub.repositories.pop("someone/tower")
        assert converted(machine, tmp_path / "p", towerless, "--vision-tower", "other/tower").vision.image_size == 168

    def test_that_is_nowhere_is_one_line(self, hub: Hub, machine: Machine, towerless: str, tmp_path: Path) -> None:
        del hub.repositories["someone/tower"]
        assert "the vision tower 'someone/tower'" in machine.error_line("convert", towerless, tmp_path / "p")


class TestAFolder:
    def test_is_called_by_its_name_and_nothing_else_is_known_of_it(self, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        found = resolve_checkpoint(str(tmp_path / "mine"))
        assert (found.folder, found.checkpoint_name) == (tmp_path / "mine", "mine")
        assert (found.revision, found.licence) == ("unknown", "unknown")

    @pytest.mark.parametrize("path", ["./nowhere", "/no/where", "~/nowhere", "no/where/at/all", ".."])
    def test_that_is_missing_is_left_to_whoever_opens_it(self, path: str) -> None:
        assert resolve_checkpoint(path).folder == Path(path).expanduser()

    def test_whose_record_is_damaged_counts_as_any_other(self, tmp_path: Path) -> None:
        (tmp_path / ".mobilevlm-source.json").write_text("[]")
        assert resolve_checkpoint(str(tmp_path)).revision == "unknown"

    def test_cannot_be_meant_by_a_single_unknown_word(self) -> None:
        with pytest.raises(HubError, match="neither a folder"):
            resolve_checkpoint("checkpoint-that-is-not-there")

"""`mobilevlm fetch` from a hub on this machine that breaks down when told to."""

from __future__ import annotations

import fcntl
import hashlib
import json
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobilevlm_ros.hub.catalogue import find
from tests.hub.commands import Machine, here
from tests.hub.server import Hub, Repository, serve

pytest.importorskip("huggingface_hub", reason="fetching needs huggingface_hub")

WEIGHTS = random.Random(0).randbytes(3_000_000)
FILES = {
    "README.md": b"---\nlicense: mit\n---\n",
    "config.json": b'{"model_type": "mobilevlm"}',
    "tokenizer.model": b"pieces",
    "pytorch_model.bin": WEIGHTS,
}
NAME = "someone/some-model"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve(Hub({NAME: Repository(dict(FILES), ("main", "v1.0"), licence="mit")})) as running:
        yield running


@pytest.fixture
def machine(hub: Hub, tmp_path: Path) -> Iterator[Machine]:
    with here(Machine(hub.address, tmp_path / "home")) as machine:
        yield machine


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def partial(machine: Machine) -> Path:
    (path,) = machine.cache.rglob("*.partial")
    return path


def interrupted(hub: Hub, machine: Machine, arrived: int) -> None:
    """Lets a fetch fail after this many bytes; the hub is whole again afterwards."""
    hub.stop_after = arrived
    assert "cannot be reached" in machine.error_line("fetch", NAME)
    hub.stop_after = None


class TestAFetch:
    def test_brings_what_a_conversion_needs_into_the_librarys_cache(self, hub: Hub, machine: Machine) -> None:
        folder = machine.folder(NAME)
        assert names(folder) == ["config.json", "pytorch_model.bin", "tokenizer.model"]
        assert sha256(folder / "pytorch_model.bin") == hashlib.sha256(WEIGHTS).hexdigest()
        assert folder.parent.parent == machine.cache / "models--someone--some-model"
        assert folder.name == hub.repositories[NAME].commit

    def test_again_downloads_nothing_again(self, hub: Hub, machine: Machine) -> None:
        first = machine.folder(NAME)
        hub.requests.clear()
        assert machine.folder(NAME) == first
        assert hub.asked("/cdn/") == []

    def test_of_a_new_commit_downloads_only_what_changed(self, hub: Hub, machine: Machine) -> None:
        first = machine.folder(NAME)
        hub.repositories[NAME].files["tokenizer.model"] = b"other pieces"
        hub.requests.clear()
        second = machine.folder(NAME)
        assert second != first
        assert (second / "tokenizer.model").read_bytes() == b"other pieces"
        assert len(hub.asked("/cdn/")) == 1

    def test_into_a_folder_leaves_plain_files_there(self, machine: Machine, tmp_path: Path) -> None:
        folder = machine.folder(NAME, "--to", tmp_path / "models" / "mine")
        assert folder == tmp_path / "models" / "mine"
        assert names(folder) == ["config.json", "pytorch_model.bin", "tokenizer.model"]
        assert not any(path.is_symlink() for path in folder.iterdir())
        assert (folder / "pytorch_model.bin").read_bytes() == WEIGHTS

    def test_into_a_folder_again_replaces_what_changed_and_nothing_else(self, hub: Hub, machine: Machine, tmp_path: Path) -> None:
        machine.folder(NAME, "--to", tmp_path / "mine")
        hub.requests.clear()
        machine.folder(NAME, "--to", tmp_path / "mine")
        assert hub.asked("/cdn/") == []
        hub.repositories[NAME].files["pytorch_model.bin"] = WEIGHTS[::-1]
        machine.folder(NAME, "--to", tmp_path / "mine")
        assert (tmp_path / "mine" / "pytorch_model.bin").read_bytes() == WEIGHTS[::-1]
        assert len(hub.asked("/cdn/")) == 1

    def test_into_a_folder_takes_what_the_cache_has_already(self, hub: Hub, machine: Machine, tmp_path: Path) -> None:
        machine.folder(NAME)
        hub.requests.clear()
        folder = machine.folder(NAME, "--to", tmp_path / "mine")
        assert (folder / "pytorch_model.bin").read_bytes() == WEIGHTS
        assert names(folder) == ["config.json", "pytorch_model.bin", "tokenizer.model"]
        assert hub.asked("/cdn/") == []

    def test_tells_a_program_where_which_revision_and_under_which_licence(self, hub: Hub, machine: Machine) -> None:
        done = machine.run("fetch", NAME, "--revision", "v1.0", "--json")
        facts = json.loads(done.stdout)
        assert (facts["hub_id"], facts["licence"]) == (NAME, "mit")
        assert facts["revision"] == hub.repositories[NAME].commit
        assert Path(facts["folder"], "config.json").is_file()

    def test_by_a_catalogue_name_asks_for_its_hub_id(self, hub: Hub, machine: Machine) -> None:
        entry = find("v2-1.7b")
        assert entry is not None
        hub.repositories["mtgv/MobileVLM_V2-1.7B"] = Repository(dict(FILES), licence="mit", pinned=entry.revision)
        facts = json.loads(machine.run("fetch", "V2-1.7b", "--json").stdout)
        assert (facts["hub_id"], facts["licence"]) == ("mtgv/MobileVLM_V2-1.7B", "Apache-2.0")

    def test_offline_finds_it_again_without_a_word_to_the_hub(self, hub: Hub, machine: Machine) -> None:
        folder = machine.folder(NAME)
        hub.requests.clear()
        assert machine.folder(NAME, "--offline") == folder
        assert hub.requests == []

    def test_tells_the_hub_nothing_about_the_machine(self, hub: Hub, machine: Machine) -> None:
        out, err = machine.start("fetch", NAME).communicate(timeout=60)
        assert (out.strip(), err) == (str(machine.folder(NAME, "--offline")), "")
        agents = {request.user_agent for request in hub.requests}
        assert not any("torch" in agent or "agent/" in agent for agent in agents)
        assert all(request.path.startswith(("/api/models/", "/someone/", "/cdn/")) for request in hub.requests)


class TestAnInterruptedDownload:
    def test_goes_on_where_it_stopped_and_yields_the_right_file(self, hub: Hub, machine: Machine) -> None:
        interrupted(hub, machine, 1_500_000)
        arrived = partial(machine).stat().st_size
        assert 1_400_000 < arrived <= 1_500_000
        assert partial(machine).read_bytes() == WEIGHTS[:arrived]
        hub.requests.clear()
        hub.sent = 0
        folder = machine.folder(NAME)
        assert [request.range for request in hub.asked("/cdn/") if request.range] == [f"bytes={arrived}-"]
        assert hub.sent < len(WEIGHTS) - arrived + 1000
        assert sha256(folder / "pytorch_model.bin") == hashlib.sha256(WEIGHTS).hexdigest()
        assert list(machine.cache.rglob("*.partial")) == []

    def test_begins_anew_where_the_hub_sends_only_whole_files(self, hub: Hub, machine: Machine) -> None:
        place = machine.cache / "models--someone--some-model" / "blobs" / f"{hashlib.sha256(WEIGHTS).hexdigest()}.partial"
        place.parent.mkdir(parents=True)
        place.write_bytes(WEIGHTS[:1_000_000])
        hub.whole_only = True
        assert (machine.folder(NAME) / "pytorch_model.bin").read_bytes() == WEIGHTS
        assert hub.sent >= len(WEIGHTS)

    def test_that_another_process_goes_on_with_is_left_to_it(self, machine: Machine) -> None:
        place = machine.cache / "models--someone--some-model" / "blobs" / f"{hashlib.sha256(WEIGHTS).hexdigest()}.partial"
        place.parent.mkdir(parents=True)
        with place.open("ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            assert "another process is downloading" in machine.error_line("fetch", NAME)

    def test_is_not_offered_as_a_whole_one_offline(self, hub: Hub, machine: Machine) -> None:
        interrupted(hub, machine, 1_500_000)
        assert "is not on this machine" in machine.error_line("fetch", NAME, "--offline")

    def test_by_ctrl_c_ends_at_once_with_one_line_and_130(self, hub: Hub, machine: Machine) -> None:
        hub.pause = 0.2
        process = machine.start("fetch", NAME)
        deadline = time.monotonic() + 60
        while hub.sent < 500_000 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        out, err = process.communicate(timeout=30)
        assert time.monotonic() - sent < 5
        assert (process.returncode, out, err) == (130, "", "mobilevlm: interrupted\n")
        assert 0 < partial(machine).stat().st_size < len(WEIGHTS)
        hub.pause = 0
        assert sha256(machine.folder(NAME) / "pytorch_model.bin") == hashlib.sha256(WEIGHTS).hexdigest()

    def test_whose_rest_arrives_damaged_is_thrown_away_and_can_be_fetched_again(self, hub: Hub, machine: Machine) -> None:
        hub.corrupt = True
        assert "not what the hub promised" in machine.error_line("fetch", NAME)
        assert list(machine.cache.rglob("*.partial")) == []
        hub.corrupt = False
        assert (machine.folder(NAME) / "pytorch_model.bin").read_bytes() == WEIGHTS


class TestOneLineSaysWhatIsWrong:
    def test_a_name_that_nobody_knows(self, hub: Hub, machine: Machine) -> None:
        assert machine.error_line("fetch", "v2-1.8b").endswith("did you mean v2-1.7b?")
        assert hub.requests == []

    def test_a_repository_that_is_not_there(self, machine: Machine) -> None:
        assert machine.error_line("fetch", "someone/nothing").startswith("someone/nothing: no such repository")

    def test_a_revision_that_is_not_there(self, machine: Machine) -> None:
        assert machine.error_line("fetch", NAME, "--revision", "v9") == f"{NAME}: has no revision 'v9'"

    def test_a_repository_without_a_checkpoint(self, hub: Hub, machine: Machine) -> None:
        hub.repositories["someone/words"] = Repository({"README.md": b"", "data.json": b"{}"})
        assert "holds no checkpoint" in machine.error_line("fetch", "someone/words")

    def test_a_gated_repository_names_where_to_accept_its_conditions(self, hub: Hub, machine: Machine) -> None:
        hub.repositories[NAME].token = "hf_right"
        line = machine.error_line("fetch", NAME)
        assert line.startswith(f"{NAME}: gated; accept its conditions at {hub.address}/{NAME}")
        with here(machine, token="hf_wrong"):
            assert "gated" in machine.error_line("fetch", NAME)

    def test_a_token_opens_a_gated_repository_and_goes_to_no_other_host(self, hub: Hub, machine: Machine) -> None:
        hub.repositories[NAME].token = "hf_right"
        with here(machine, token="hf_right"):
            assert (machine.folder(NAME) / "pytorch_model.bin").read_bytes() == WEIGHTS
        assert {request.authorization for request in hub.asked("/cdn/")} == {None}

    def test_a_hub_that_cannot_be_reached(self, hub: Hub, tmp_path: Path) -> None:
        with here(Machine("http://127.0.0.1:9", tmp_path)) as unplugged:
            line = unplugged.error_line("fetch", NAME)
        assert line.startswith(f"{NAME}: http://127.0.0.1:9 cannot be reached")

    def test_a_machine_that_is_told_to_stay_offline(self, hub: Hub, machine: Machine) -> None:
        with here(machine, offline=True):
            assert "HF_HUB_OFFLINE" in machine.error_line("fetch", NAME)
        assert hub.requests == []

    def test_a_disk_that_is_too_small_is_found_before_anything_is_downloaded(self, hub: Hub, machine: Machine) -> None:
        hub.claims["pytorch_model.bin"] = 10**18
        assert "1000000000.00 GB are to be downloaded" in machine.error_line("fetch", NAME)
        assert hub.asked("/resolve/") == []

    def test_a_place_that_cannot_be_written(self, machine: Machine, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        assert str(tmp_path / "file") in machine.error_line("fetch", NAME, "--to", tmp_path / "file" / "here")

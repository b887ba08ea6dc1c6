"""`mobilevlm models`: what is known by name, and what of it is on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub", reason="the cache is huggingface_hub's")

from mobilevlm_ros.cli import main
from mobilevlm_ros.hub.catalogue import find
from mobilevlm_ros.models import shipped_package
from mobilevlm_ros.runtime.package import ModelPackage
from tests.conftest import PARITY
from tests.hub.commands import Machine, here
from tests.hub.server import Hub, Repository, serve

NAME = "mtgv/MobileVLM_V2-1.7B"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    entry = find(NAME)
    assert entry is not None
    repository = Repository.of_folder(PARITY / "ldpnetv2", pinned=entry.revision)
    with serve(Hub({NAME: repository})) as hub, here(Machine(hub.address, tmp_path)) as machine:
        yield machine


def listed(machine: Machine, *arguments: object) -> dict[str, dict[str, object]]:
    done = machine.run("models", "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    models = [json.loads(line) for line in done.stdout.splitlines()]
    return {model["name"]: model for model in models}


def test_the_table_has_a_line_for_each_model_and_says_where_it_is(machine: Machine) -> None:
    lines = machine.run("models").stdout.splitlines()
    assert lines[0].split()[:2] == ["NAME", "HUB"]
    assert [line.split()[0] for line in lines[1:7]] == ["1.7b", "3b", "v2-1.7b", "v2-3b", "v2-7b", "nano"]
    assert "3.35 GB" in lines[3]
    assert lines[3].endswith("-")
    assert lines[6].endswith(f"package {shipped_package()}")


def test_a_program_gets_sizes_licence_and_architecture(machine: Machine) -> None:
    model = listed(machine)["v2-7b"]
    assert (model["hub_id"], model["hidden_size"], model["context_length"]) == ("mtgv/MobileVLM_V2-7B", 4096, 4096)
    assert (model["projector"], model["vision_tower"]) == ("ldpnetv2", "openai/clip-vit-large-patch14-336")
    assert "Llama 2" in str(model["licence"])
    assert model["download_bytes"] == 2 * sum(model["parameters"].values())  # type: ignore[attr-defined]
    assert (model["checkpoint"], model["partial_bytes"], model["packages"]) == (None, 0, [])


def test_one_model_is_told_in_full(machine: Machine) -> None:
    done = machine.run("models", "v2-3b")
    facts = dict(line.split("  ", 1) for line in done.stdout.splitlines() if "  " in line)
    assert "2,702 million language" in facts["parameters"]
    assert "32 layers of 32 heads, width 2560, context 2048 tokens" in done.stdout
    assert "6.03 GB" in facts["download"]
    assert machine.error_line("models", "v2-4b").startswith("v2-4b: not a known model")


def test_what_was_fetched_is_listed_with_its_folder(machine: Machine) -> None:
    folder = machine.folder("v2-1.7b")
    assert listed(machine)["v2-1.7b"]["checkpoint"] == str(folder)
    assert f"checkpoint {folder}" in machine.run("models").stdout


def test_a_download_that_was_broken_off_is_told_in_bytes(machine: Machine) -> None:
    blobs = machine.cache / f"models--{NAME.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{'0' * 64}.partial").write_bytes(bytes(20_000_000))
    assert listed(machine)["v2-1.7b"]["partial_bytes"] == 20_000_000
    assert "0.02 GB of the checkpoint" in machine.run("models").stdout


def test_packages_made_from_a_model_are_found_in_a_folder(machine: Machine, tmp_path: Path) -> None:
    nano = ModelPackage.open_unverified(shipped_package()).manifest
    sources = {"by-id": NAME, "by-title": "MobileVLM_V2-1.7B", "adapted": f"{NAME} + someone/adapter", "other": "checkpoint"}
    for name, source in sources.items():
        (tmp_path / "packages" / name).mkdir(parents=True)
        manifest = replace(nano, source=replace(nano.source, checkpoint=source))
        (tmp_path / "packages" / name / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    (tmp_path / "packages" / "broken").mkdir()
    (tmp_path / "packages" / "broken" / "manifest.json").write_text("{}")
    found = listed(machine, "--packages", tmp_path / "packages")
    assert found["v2-1.7b"]["packages"] == [str(tmp_path / "packages" / name) for name in ("adapted", "by-id", "by-title")]
    assert found["1.7b"]["packages"] == []


def test_a_folder_of_packages_that_is_not_there_is_one_line(machine: Machine, tmp_path: Path) -> None:
    assert machine.error_line("models", "--packages", tmp_path / "nowhere").endswith("nowhere: no such folder")


def test_a_robot_without_torch_and_hub_library_sees_the_table_too() -> None:
    program = """
import sys
sys.modules.update(torch=None, transformers=None, onnx=None, huggingface_hub=None)
from mobilevlm_ros.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run([*command, "models"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 9)
    done = subprocess.run([*command, "fetch", "v2-1.7b"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "needs the Python package huggingface_hub" in done.stderr


@pytest.mark.parametrize("command", ["models", "fetch"])
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "examples:\n  mobilevlm " in capsys.readouterr().out

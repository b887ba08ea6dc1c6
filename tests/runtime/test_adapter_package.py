"""Opening an adapter package: its base is found, is the right one and is whole, or one line says what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="converting needs torch")

from mobilevlm_ros.runtime.engine import Engine
from mobilevlm_ros.runtime.errors import PackageError
from mobilevlm_ros.runtime.package import ModelPackage
from tests.conftest import PARITY, PackageMaker


@pytest.fixture(scope="module")
def pair(parity_package: PackageMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package `base` and its adapter `adapter`."""
    from mobilevlm_ros.export.adapter import AdapterOptions, convert_adapter

    root = tmp_path_factory.mktemp("pair")
    shutil.copytree(parity_package("ldpnet"), root / "base")
    convert_adapter(PARITY / "ldpnet", PARITY / "ldpnet_lora", root / "base", root / "adapter", AdapterOptions(verify=False))
    return root


@pytest.fixture
def packages(pair: Path, tmp_path: Path) -> Path:
    """A copy of the two in another place."""
    return Path(shutil.copytree(pair, tmp_path / "packages"))


def change(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit_manifest(package: Path, **values: Any) -> None:
    manifest = json.loads((package / "manifest.json").read_text())
    (package / "manifest.json").write_text(json.dumps({**manifest, **values}))


def refusal(path: Path) -> str:
    """What opening says, which is one line."""
    with pytest.raises(PackageError) as refused:
        Engine.open(path)
    assert "\n" not in refused.value.message
    return refused.value.message


def test_the_two_work_wherever_they_lie_beside_each_other(packages: Path) -> None:
    opened = ModelPackage.open(packages / "adapter")
    assert opened.base is not None
    assert opened.base.path == packages / "base"
    assert opened.tokenizer == packages / "base" / "tokenizer.model"
    assert opened.embeddings().shape == (600, 64)
    with Engine.open(packages / "adapter") as engine:
        assert engine.manifest.name == "ldpnet_lora"


def test_an_adapter_that_is_reached_through_a_link_finds_its_base(packages: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(packages / "adapter")
    ModelPackage.open(tmp_path / "link")


def test_graphs_read_shared_weights_from_the_base_and_their_own_from_the_adapter(packages: Path) -> None:
    opened = ModelPackage.open(packages / "adapter")
    for graph, name in ((opened.vision, "vision"), (opened.decoder("cpu"), "decoder.cpu")):
        assert graph.graph == packages / "adapter" / f"{name}.onnx"
        assert graph.weights_folder == packages / "base"
        assert graph.own_weights == packages / "adapter" / f"{name}.adapter.safetensors"


def test_the_size_counts_what_a_run_reads(packages: Path) -> None:
    base, adapter = (ModelPackage.open(packages / name) for name in ("base", "adapter"))
    own = sum(path.stat().st_size for path in (packages / "adapter").iterdir() if path.name != "manifest.json")
    assert adapter.size == base.size + own


def test_a_base_that_is_not_there_is_named_with_the_place_where_it_should_be(packages: Path) -> None:
    shutil.rmtree(packages / "base")
    assert refusal(packages / "adapter").endswith(f"an adapter for the package {packages / 'base'}, which is not there")


def test_another_base_in_its_place_is_refused(packages: Path, parity_package: PackageMaker) -> None:
    shutil.rmtree(packages / "base")
    shutil.copytree(parity_package("ldpnetv2"), packages / "base")
    assert "an adapter for another package than the one at" in refusal(packages / "adapter")


def test_a_base_whose_manifest_was_changed_is_refused(packages: Path) -> None:
    edit_manifest(packages / "base", name="other")
    assert "an adapter for another package" in refusal(packages / "adapter")


@pytest.mark.parametrize("name", ["vision.onnx.data", "decoder.cpu.onnx.data", "tokenizer.model", "embeddings.npy"])
def test_a_base_whose_file_was_changed_is_refused_with_the_files_name(packages: Path, name: str) -> None:
    change(packages / "base" / name)
    message = refusal(packages / "adapter")
    assert str(packages / "base" / name) in message
    assert "SHA-256" in message


OWN = ["vision.onnx", "decoder.cpu.onnx", "vision.adapter.safetensors", "decoder.cpu.adapter.safetensors"]


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize(("harm", "words"), [(Path.unlink, "missing"), (change, "SHA-256")])
def test_a_harmed_file_of_the_adapter_is_named(packages: Path, name: str, harm: Callable[[Path], None], words: str) -> None:
    harm(packages / "adapter" / name)
    message = refusal(packages / "adapter")
    assert name in message
    assert words in message


def test_an_adapter_of_an_adapter_is_refused(packages: Path) -> None:
    from mobilevlm_ros.runtime.package import file_sha256

    shutil.copytree(packages / "adapter", packages / "third")
    digest = file_sha256(packages / "adapter" / "manifest.json")
    edit_manifest(packages / "third", base={"path": "../adapter", "manifest_sha256": digest})
    assert "is an adapter package itself" in refusal(packages / "third")


@pytest.mark.parametrize(
    ("reference", "words"),
    [({"path": "../base"}, "manifest_sha256 is missing"), ({"path": 3, "manifest_sha256": ""}, "path"), ("../base", "base")],
)
def test_a_reference_that_is_none_is_told_with_its_field(packages: Path, reference: Any, words: str) -> None:
    edit_manifest(packages / "adapter", base=reference)
    assert words in refusal(packages / "adapter")


def test_weights_that_do_not_fit_their_graph_are_one_line(packages: Path) -> None:
    from mobilevlm_ros.runtime.package import file_sha256

    adapter = packages / "adapter"
    shutil.copy(adapter / "vision.adapter.safetensors", adapter / "decoder.cpu.adapter.safetensors")
    files = json.loads((adapter / "manifest.json").read_text())["files"]
    weights = adapter / "decoder.cpu.adapter.safetensors"
    files[weights.name] = {"bytes": weights.stat().st_size, "sha256": file_sha256(weights)}
    edit_manifest(adapter, files=files)
    assert "cannot load the graph" in refusal(adapter)


def test_the_bases_graph_for_another_backend_does_not_stand_in_for_a_changed_decoder(packages: Path) -> None:
    opened = ModelPackage.open(packages / "adapter")
    assert opened.base is not None
    opened.base.manifest.files["decoder.trt.onnx"] = opened.base.manifest.files["decoder.cpu.onnx"]
    with pytest.raises(PackageError, match=r"no decoder\.trt\.onnx"):
        opened.decoder("trt")

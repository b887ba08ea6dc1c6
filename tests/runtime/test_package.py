"""Opening a model package: what is wrong is told in one line, before anything is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mobilevlm_ros.runtime.engine import Engine
from mobilevlm_ros.runtime.errors import PackageError
from mobilevlm_ros.runtime.package import ModelPackage
from tests.conftest import PackageMaker


@pytest.fixture
def package(parity_package: PackageMaker, tmp_path: Path) -> Path:
    return Path(shutil.copytree(parity_package("ldpnetv2"), tmp_path / "package"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_whole_package_opens(package: Path) -> None:
    opened = ModelPackage.open(package)
    assert opened.embeddings().shape == (600, 64)
    assert opened.manifest.vision.tokens == 144


FILES = ["vision.onnx", "vision.onnx.data", "decoder.cpu.onnx.data", "tokenizer.model", "embeddings.npy"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("harm", "message"), [(Path.unlink, "missing"), (cut, "truncated"), (flip, "SHA-256")])
def test_a_harmed_file_is_named(package: Path, name: str, harm: Callable[[Path], None], message: str) -> None:
    harm(package / name)
    with pytest.raises(PackageError) as refused:
        Engine.open(package)
    assert message in refused.value.message
    assert name in refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("text", ["", "{}", '{"schema_version": 2}'])
def test_a_wrong_manifest_is_refused(package: Path, text: str) -> None:
    (package / "manifest.json").write_text(text)
    with pytest.raises(PackageError, match=r"manifest\.json"):
        ModelPackage.open(package)


def test_a_manifest_cannot_name_files_outside_the_package(package: Path) -> None:
    manifest = package / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"vision.onnx.data"', '"../vision.onnx.data"'))
    with pytest.raises(PackageError, match="not a plain file name"):
        ModelPackage.open(package)


def test_a_folder_that_is_no_package_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="mobilevlm convert"):
        ModelPackage.open(tmp_path / "nothing")
    with pytest.raises(PackageError, match="not a model package"):
        ModelPackage.open(tmp_path)


def test_a_decoder_for_another_backend_is_asked_for_by_name(package: Path) -> None:
    with pytest.raises(PackageError, match=r"decoder\.trt\.onnx"):
        ModelPackage.open(package).decoder("trt")

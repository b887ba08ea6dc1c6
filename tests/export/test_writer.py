"""A package is there whole or not at all."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.export.writer import PackageWriter
from mobilevlm_ros.runtime.errors import PackageError
from mobilevlm_ros.runtime.package import ModelPackage
from tests.fakes import manifest


def ignore(name: str, size: int) -> None:
    pass


def write(target: Path, force: bool = False, content: str = "one") -> None:
    """A package of one file."""
    (target.parent / "source").write_text(content)
    with PackageWriter(target, force) as writer:
        writer.copy(target.parent / "source", "tokenizer.model")
        writer.commit(manifest())


def everything(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"source"}


def test_a_committed_package_is_all_that_is_left(tmp_path: Path) -> None:
    write(tmp_path / "package")
    assert everything(tmp_path) == {"package"}
    assert everything(tmp_path / "package") == {"tokenizer.model", "manifest.json"}


def test_the_manifest_holds_each_files_size_and_hash(tmp_path: Path) -> None:
    with PackageWriter(tmp_path / "package") as writer:
        writer.table("embeddings.npy", torch.rand(5000, 3), np.dtype(np.float16), ignore)
        writer.commit(manifest())
        (name, entry), content = *writer.files.items(), (tmp_path / "package" / "embeddings.npy").read_bytes()
    assert name == "embeddings.npy"
    assert (entry.bytes, entry.sha256) == (len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("rows", [1, 4096, 9000])
def test_a_table_reads_back_as_a_numpy_file(tmp_path: Path, dtype: type, rows: int) -> None:
    values = torch.rand(rows, 2).to(torch.bfloat16)
    with PackageWriter(tmp_path / "package") as writer:
        writer.table("embeddings.npy", values, np.dtype(dtype), ignore)
        table = np.load(writer.path / "embeddings.npy", mmap_mode="r", allow_pickle=False)
        assert table.dtype == dtype
        np.testing.assert_array_equal(table, values.float().numpy().astype(dtype))


def test_a_table_that_overflows_its_type_is_refused(tmp_path: Path) -> None:
    with PackageWriter(tmp_path / "package") as writer, pytest.raises(ExportError, match="float16"):
        writer.table("embeddings.npy", torch.full((2, 2), 1e6), np.dtype(np.float16), ignore)


def test_an_error_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), PackageWriter(tmp_path / "package") as writer:
        writer.table("embeddings.npy", torch.rand(3, 3), np.dtype(np.float32), ignore)
        raise KeyboardInterrupt
    assert everything(tmp_path) == set()


def test_an_error_on_the_way_leaves_the_old_package_as_it_was(tmp_path: Path) -> None:
    write(tmp_path / "package")
    with pytest.raises(OSError, match="no space"), PackageWriter(tmp_path / "package", force=True) as writer:
        writer.copy(tmp_path / "source", "other")
        raise OSError("no space")
    assert everything(tmp_path) == {"package"}
    assert everything(tmp_path / "package") == {"tokenizer.model", "manifest.json"}


def test_an_existing_package_is_replaced_only_by_force(tmp_path: Path) -> None:
    write(tmp_path / "package")
    with pytest.raises(ExportError, match="--force"):
        write(tmp_path / "package", content="two")
    assert (tmp_path / "package" / "tokenizer.model").read_text() == "one"
    write(tmp_path / "package", force=True, content="two")
    assert (tmp_path / "package" / "tokenizer.model").read_text() == "two"
    assert everything(tmp_path) == {"package"}


@pytest.mark.parametrize("force", [True, False])
def test_what_is_no_package_is_never_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years")
    (tmp_path / "file").write_text("text")
    for place in (tmp_path / "home", tmp_path / "file", tmp_path / "home" / "..", Path("/")):
        with pytest.raises(ExportError, match="not a model package"):
            PackageWriter(place, force)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years"


def test_an_empty_folder_and_missing_parents_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    with PackageWriter(tmp_path / "a" / "b" / "package") as writer:
        writer.commit(manifest())
    assert (tmp_path / "a" / "b" / "package" / "manifest.json").is_file()


def test_two_conversions_to_one_place_do_not_mix(tmp_path: Path) -> None:
    with PackageWriter(tmp_path / "package") as first:
        with pytest.raises(ExportError, match="another conversion"):
            write(tmp_path / "package")
        first.commit(manifest())
    assert everything(tmp_path) == {"package"}


KILLED = """
import os, signal, sys
import numpy as np, torch
from mobilevlm_ros.export.writer import PackageWriter
with PackageWriter(sys.argv[1]) as writer:
    writer.table("embeddings.npy", torch.rand(3, 3), np.dtype(np.float32), lambda name, size: None)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_conversion_leaves_nothing_that_loads_and_nothing_in_the_way(tmp_path: Path) -> None:
    target = tmp_path / "package"
    result = subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    assert result.returncode == -signal.SIGKILL
    assert not target.exists()
    for folder in tmp_path.iterdir():
        with pytest.raises(PackageError):
            ModelPackage.open(folder)
    write(target)
    assert everything(tmp_path) == {"package"}
    assert os.listdir(target).count("embeddings.npy") == 0

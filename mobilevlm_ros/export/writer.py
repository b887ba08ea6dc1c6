"""Writes a model package so that it is there whole or not at all.

Everything goes into a hidden folder beside the target, is hashed while it is written and flushed to disk; a rename makes it the
package. Knows files, ONNX external data and the manifest; knows nothing of how the graphs were made.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from torch import Tensor

from mobilevlm_ros.export.adapter_graph import AdaptedGraph
from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.export.onnx_builder import GraphBuilder, stored
from mobilevlm_ros.runtime.manifest import MANIFEST_NAME, FileEntry, Manifest
from mobilevlm_ros.runtime.package import own_weights_name

Progress = Callable[[str, int], None]
"""Is told the name of each tensor written and its bytes, or of a step that writes none and 0."""

_ROWS = 4096
_LOCK_NAME = ".writing"


class HashingFile:
    """A file being written, with its size and SHA-256 so far."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("wb")
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview) -> None:
        """Appends `data`; raises OSError, as on a full disk."""
        self._stream.write(data)
        self._digest.update(data)
        self.size += len(data)

    def pad_to(self, offset: int) -> None:
        """Appends zeros up to `offset` bytes from the beginning."""
        self.write(bytes(offset - self.size))

    def close(self) -> FileEntry:
        """Brings the content to the disk and returns what the manifest says of it."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        return FileEntry(self.size, self._digest.hexdigest())

    def abandon(self) -> None:
        """Closes the file without a promise about its content."""
        self._stream.close()


class PackageWriter:
    """A package under construction, as a context manager; leaving it without `commit` removes what was written.

    A process that is killed leaves a hidden folder without a manifest, which the next conversion to the same target removes.
    """

    def __init__(self, target: str | Path, force: bool = False) -> None:
        """`force` lets an existing package be replaced.

        Raises ExportError if something else is in the way; entering raises it if another process writes to the same target.
        """
        self.target = Path(os.path.abspath(Path(target).expanduser()))
        self._check_target(force)
        self.path = self.target.with_name(f".{self.target.name}.partial")
        self._files: dict[str, FileEntry] = {}
        self._lock = -1
        self._committed = False

    def __enter__(self) -> PackageWriter:
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise ExportError(f"{self.target}: another conversion is writing this package") from None
        for leftover in self.path.iterdir():
            if leftover.name != _LOCK_NAME:
                leftover.unlink()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # After a commit the name may belong to the next conversion already.
        if not self._committed:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    @property
    def files(self) -> Mapping[str, FileEntry]:
        """What has been written so far."""
        return dict(self._files)

    def graph(self, name: str, graph: GraphBuilder, opsets: Mapping[str, int], progress: Progress) -> None:
        """Writes the graph `name` and, if it has weights of its own, `name`.data, one weight after another."""
        data_name = f"{name}.data"
        if weights := list(graph.weights()):
            with self._file(data_name) as data:
                for weight in weights:
                    array = stored(weight)
                    data.pad_to(weight.offset)
                    data.write(memoryview(array.reshape(-1).view(np.uint8)))
                    progress(weight.name, weight.size)
        with self._file(name) as file:
            file.write(graph.model(data_name, opsets).SerializeToString(deterministic=True))

    def adapted_graph(self, name: str, graph: AdaptedGraph, progress: Progress) -> None:
        """Writes an adapter's graph `name` and the weights that it has for itself."""
        with self._file(own_weights_name(name)) as file:
            file.write(graph.header)
            for weight in graph.weights:
                file.write(memoryview(stored(weight).reshape(-1).view(np.uint8)))
                progress(weight.name, weight.size)
        with self._file(name) as file:
            file.write(graph.model.SerializeToString(deterministic=True))

    def table(self, name: str, tensor: Tensor, dtype: np.dtype[Any], progress: Progress) -> None:
        """Writes a two-dimensional tensor as a .npy file, some thousand rows at a time."""
        with self._file(name) as file:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(tensor.shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(tensor), _ROWS):
                with np.errstate(over="ignore"):
                    rows = np.ascontiguousarray(tensor[start : start + _ROWS].float().numpy(), dtype=dtype)
                if not np.isfinite(rows).all():
                    raise ExportError(f"{name}: the embeddings hold values that {dtype.name} cannot express")
                file.write(memoryview(rows.reshape(-1).view(np.uint8)))
        progress(name, tensor.numel() * dtype.itemsize)

    def copy(self, source: Path, name: str) -> None:
        """Copies a file into the package."""
        with self._file(name) as file, source.open("rb") as stream:
            while block := stream.read(1 << 20):
                file.write(block)

    def text(self, content: str, name: str) -> None:
        """Writes a text file into the package."""
        with self._file(name) as file:
            file.write(content.encode())

    def commit(self, manifest: Manifest) -> None:
        """Adds the manifest, with every file's hash in it, and makes the folder the package."""
        with self._file(MANIFEST_NAME, listed=False) as file:
            file.write(replace(manifest, files=self._files).to_json().encode())
        (self.path / _LOCK_NAME).unlink()
        _sync_folder(self.path)
        old = self.target.with_name(f".{self.target.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self.target.exists():
            self.target.rename(old)
        self.path.rename(self.target)
        self._committed = True
        _sync_folder(self.target.parent)
        shutil.rmtree(old, ignore_errors=True)

    def _check_target(self, force: bool) -> None:
        if not self.target.exists():
            return
        if not self.target.is_dir() or (any(self.target.iterdir()) and not (self.target / MANIFEST_NAME).is_file()):
            raise ExportError(f"{self.target}: exists and is not a model package; choose another place")
        if any(self.target.iterdir()) and not force:
            raise ExportError(f"{self.target}: exists already; --force replaces it")

    @contextmanager
    def _file(self, name: str, listed: bool = True) -> Iterator[HashingFile]:
        file = HashingFile(self.path / name)
        try:
            yield file
        except BaseException:
            file.abandon()
            raise
        entry = file.close()
        if listed:
            self._files[name] = entry


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

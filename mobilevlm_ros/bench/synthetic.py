"""A model package of full size with made-up weights: for measurements on a machine that has no checkpoint and no converter.

How fast a model answers does not depend on what its numbers are. A skeleton holds all of a package but its numbers: the graphs,
the manifest, and what each weight is. One ships with this package; `python -m bench.skeleton` makes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mobilevlm_ros.runtime.manifest import MANIFEST_NAME, FileEntry, Manifest
from mobilevlm_ros.runtime.package import EMBEDDINGS_NAME, decoder_name

SHIPPED = Path(__file__).with_name("v2-1.7b-int4.zip")
"""The skeleton of MobileVLM-V2-1.7B in INT4, with a decoder of its own for prompts."""
_WEIGHTS = "weights.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_BLOCK = 1 << 22
"""Numbers that are made at random; a larger weight repeats them."""
_STRIDE = 1_000_003
"""From one weight's beginning among the made numbers to the next one's: a prime, so that few begin alike."""
_DEVIATION = 0.02
"""Of made-up matrices, and the made-up scales' size: the activations stay finite."""

Progress = Callable[[str, int], None]
"""Is told the name of each weight written and its bytes."""


@dataclass(frozen=True)
class Place:
    """A weight in a data file: its name, NumPy's name of its type, its shape, and where it begins, in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """Bytes."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Skeleton:
    """A package without its numbers.

    Attributes:
        manifest: without the files' hashes.
        files: small files by name, the graphs among them, as they are in the package.
        weights: by data file, the weights in the order of their places.
        embeddings: the type of the token-embedding table.
    """

    manifest: Manifest
    files: Mapping[str, bytes]
    weights: Mapping[str, tuple[Place, ...]]
    embeddings: str

    @property
    def size(self) -> int:
        """Bytes of the package's numbers."""
        return self._table.size + sum(place.size for places in self.weights.values() for place in places)

    @property
    def digest(self) -> str:
        """A hash over all of it, in hexadecimal."""
        parts = [self.manifest.to_json().encode(), *(name.encode() + self.files[name] for name in sorted(self.files))]
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in (*parts, self._index()))).hexdigest()

    def without_decoder(self, dialect: str) -> Skeleton:
        """The same without the decoder's graph in a dialect, and its weights."""
        graph = decoder_name(dialect)
        files = {name: content for name, content in self.files.items() if name != graph}
        weights = {name: places for name, places in self.weights.items() if name != f"{graph}.data"}
        return replace(self, files=files, weights=weights)

    def write_package(self, target: Path, progress: Progress = lambda name, size: None) -> None:
        """Write a package that can be opened, in place of an older one at `target`.

        Raises:
            OSError: from the file system; nothing is left behind then.
        """
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            files = self._write_files(partial, progress)
            (partial / MANIFEST_NAME).write_text(replace(self.manifest, files=files).to_json(), encoding="utf-8")
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def save(self, path: Path) -> None:
        """Write it as one archive, equal byte for byte where the skeletons are equal."""
        entries = {MANIFEST_NAME: self.manifest.to_json().encode(), _WEIGHTS: self._index(), **self.files}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name in sorted(entries):
                archive.writestr(_entry(name), entries[name])

    @staticmethod
    def load(path: Path = SHIPPED) -> Skeleton:
        """Read an archive that `save` wrote."""
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        index = json.loads(entries.pop(_WEIGHTS))
        manifest = Manifest.from_json(entries.pop(MANIFEST_NAME).decode())
        weights = {name: tuple(_place(raw) for raw in places) for name, places in index["weights"].items()}
        return Skeleton(manifest, entries, weights, index["embeddings"])

    @property
    def _table(self) -> Place:
        decoder = self.manifest.decoder
        return Place("embeddings", self.embeddings, (decoder.vocab_size, decoder.hidden_size), 0)

    def _index(self) -> bytes:
        weights = {name: [asdict(place) for place in places] for name, places in self.weights.items()}
        return json.dumps({"embeddings": self.embeddings, "weights": weights}, sort_keys=True).encode()

    def _write_files(self, folder: Path, progress: Progress) -> dict[str, FileEntry]:
        numbers = _Numbers()
        entries = {}
        for name, content in self.files.items():
            with _HashedFile(folder / name) as file:
                file.write(content)
            entries[name] = file.entry
        with _HashedFile(folder / EMBEDDINGS_NAME) as file:
            header = {"descr": self.embeddings, "fortran_order": False, "shape": self._table.shape}
            np.lib.format.write_array_header_1_0(file, header)
            numbers.write(file, self._table)
        progress(EMBEDDINGS_NAME, self._table.size)
        entries[EMBEDDINGS_NAME] = file.entry
        for name, places in self.weights.items():
            with _HashedFile(folder / name) as file:
                for place in places:
                    file.write(bytes(place.offset - file.size))
                    numbers.write(file, place)
                    progress(place.name, place.size)
            entries[name] = file.entry
        return entries


class _HashedFile:
    """A file being written, with its size and SHA-256; a context manager."""

    def __init__(self, path: Path) -> None:
        self._stream: BinaryIO = path.open("wb")
        self._digest = hashlib.sha256()
        self.size = 0

    def __enter__(self) -> _HashedFile:
        return self

    def __exit__(self, *ignored: object) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        self._stream.write(data)
        self._digest.update(data)
        self.size += len(data)

    @property
    def entry(self) -> FileEntry:
        """What the manifest says of it."""
        return FileEntry(self.size, self._digest.hexdigest())


class _Numbers:
    """Makes weights up: always the same ones, and no two alike, because a runtime may keep equal weights only once."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        normal = generator.standard_normal(_BLOCK // 4, np.float32) * np.float32(_DEVIATION)
        self._made: dict[str, np.ndarray] = {
            "uint8": generator.integers(0, 256, _BLOCK, np.uint8),
            "int8": generator.integers(-63, 64, _BLOCK, np.int8),
            "float32": normal,
            "float16": normal.astype(np.float16),
            "scales": (np.abs(normal) / 4 + np.float32(_DEVIATION / 8)).astype(np.float32),
            "norms": 1 + normal,
        }
        self._next = 0

    def write(self, file: _HashedFile, place: Place) -> None:
        """Append a weight; vectors that scale something are positive."""
        kind = np.dtype(place.dtype)
        made = self._made[kind.name]
        if place.name.endswith(("/scales", "/int4_scales")) and kind.kind == "f":
            made = self._made["scales"].astype(kind, copy=False)
        elif place.name.endswith("norm.weight"):
            made = self._made["norms"].astype(kind, copy=False)
        self._next = (self._next + _STRIDE) % len(made)
        left, start = int(np.prod(place.shape, dtype=np.int64)), self._next
        while left:
            part = made[start : start + left]
            file.write(memoryview(part.view(np.uint8)))
            left, start = left - len(part), 0


def synthetic_package(skeleton: Skeleton, folder: Path, progress: Progress = lambda name, size: None) -> Path:
    """The package in `folder`, written only where it is not there yet.

    Raises:
        OSError: from the file system.
    """
    target = folder / f"{skeleton.manifest.name}-{skeleton.digest[:12]}"
    if not (target / MANIFEST_NAME).is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        skeleton.write_package(target, progress)
    return target


def _place(raw: Mapping[str, Any]) -> Place:
    return Place(raw["name"], raw["dtype"], tuple(raw["shape"]), raw["offset"])


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry

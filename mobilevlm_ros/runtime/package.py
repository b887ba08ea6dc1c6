"""Opening a model package: the folder that holds all that a run needs.

An adapter package holds only the files in which it differs from its base package, and its graphs' other weights lie in the base's
files. Checks that the files are those that the manifests promise before anything reads them. Knows the files' names, not their
content.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mobilevlm_ros.runtime.errors import PackageError
from mobilevlm_ros.runtime.manifest import MANIFEST_NAME, BaseRef, Manifest

TOKENIZER_NAME = "tokenizer.model"
EMBEDDINGS_NAME = "embeddings.npy"
VISION_NAME = "vision.onnx"
DECODER_CPU_NAME = "decoder.cpu.onnx"
PREFILL_DIALECT = "cpu-prefill"
"""The decoder that the CPU reads prompts with, in a package that has one of its own for that; over the same cache as `cpu`."""
_HASHING_THREADS = 4
VISION_TRT_NAME = "vision.trt.onnx"


@dataclass(frozen=True)
class GraphFiles:
    """A graph and the files with its weights.

    `weights_folder` holds its external data: the graph's own folder, for an adapter's graph the base's. `own_weights` is the
    safetensors file with the weights that an adapter's graph has for itself.
    """

    graph: Path
    weights_folder: Path
    own_weights: Path | None = None


@dataclass(frozen=True)
class ModelPackage:
    """A model package on disk whose manifest has been read; `base` is the package that an adapter package builds on."""

    path: Path
    manifest: Manifest
    base: ModelPackage | None = None

    @staticmethod
    def open(path: str | Path) -> ModelPackage:
        """Read the manifest and check every file's presence, size and SHA-256; for an adapter package also the base's.

        Raises:
            PackageError: one line with the path, what was expected and what was found.
        """
        package = ModelPackage.open_unverified(path)
        package.verify()
        return package

    @staticmethod
    def open_unverified(path: str | Path) -> ModelPackage:
        """As `open`, but trust the content of files whose name and size are right."""
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise PackageError(
                f"{folder}: no such model package (a folder with {MANIFEST_NAME}); make one with 'mobilevlm convert'"
            )
        try:
            text = (folder / MANIFEST_NAME).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PackageError(f"{folder}: not a model package: cannot read {MANIFEST_NAME}: {error}") from error
        try:
            manifest = Manifest.from_json(text)
        except PackageError as error:
            raise PackageError(f"{folder}: {error.message}") from error
        base = None if manifest.base is None else _open_base(folder, manifest.base)
        if base is None:
            for name in (TOKENIZER_NAME, EMBEDDINGS_NAME, VISION_NAME):
                if name not in manifest.files:
                    raise PackageError(f"{folder}: {MANIFEST_NAME} lists no {name}")
        for name, entry in manifest.files.items():
            _check_size(folder, name, entry.bytes)
        return ModelPackage(folder, manifest, base)

    def verify(self) -> None:
        """Check every file's SHA-256, the base's files first.

        Raises:
            PackageError: one line with the file and what was found.
        """
        if self.base is not None:
            self.base.verify()
        files = self.manifest.files
        with ThreadPoolExecutor(_HASHING_THREADS) as pool:
            digests = pool.map(lambda name: file_sha256(self.path / name), files)
        for (name, entry), digest in zip(files.items(), digests):
            if digest != entry.sha256:
                raise PackageError(
                    f"{self.path / name}: SHA-256 is {digest[:12]}..., the manifest says {entry.sha256[:12]}...: "
                    "the file is damaged or was changed"
                )

    @property
    def size(self) -> int:
        """Bytes of all files that a run may read, for an adapter package the base's too."""
        return sum(entry.bytes for entry in self.manifest.files.values()) + (self.base.size if self.base else 0)

    @property
    def tokenizer(self) -> Path:
        """The SentencePiece model."""
        return self._owner(TOKENIZER_NAME).path / TOKENIZER_NAME

    @property
    def vision(self) -> GraphFiles:
        """The graph from pixels to visual tokens."""
        return self._graph(VISION_NAME)

    @property
    def vision_trt(self) -> GraphFiles:
        """`vision` with explicit float16, for TensorRT.

        Raises:
            PackageError: the package has no such graph.
        """
        # As in `decoder`: what an adapter changes is not in the base's graph for TensorRT.
        owner = self if VISION_NAME in self.manifest.files else self._owner(VISION_TRT_NAME)
        if VISION_TRT_NAME not in owner.manifest.files:
            raise PackageError(f"{self.path}: no {VISION_TRT_NAME} in this package; convert the checkpoint for this backend")
        return self._graph(VISION_TRT_NAME)

    def decoder(self, dialect: str) -> GraphFiles:
        """The decoder's graph in a dialect such as `cpu`.

        Raises:
            PackageError: the package has no such graph.
        """
        name = decoder_name(dialect)
        if not self.has_decoder(dialect):
            raise PackageError(f"{self.path}: no {name} in this package; convert the checkpoint for this backend")
        return self._graph(name)

    def has_decoder(self, dialect: str) -> bool:
        """Whether the package has the decoder's graph in a dialect."""
        name = decoder_name(dialect)
        # An adapter package changes one decoder's graph only; the base's in another dialect would leave the change out.
        changed = any(file.startswith("decoder.") for file in self.manifest.files)
        return name in (self if changed else self._owner(name)).manifest.files

    def without_decoder(self, dialect: str) -> ModelPackage:
        """The package as if it had no such graph itself; an adapter package's base keeps its."""
        name = decoder_name(dialect)
        files = {file: entry for file, entry in self.manifest.files.items() if file not in (name, f"{name}.data")}
        return replace(self, manifest=replace(self.manifest, files=files))

    def embeddings(self) -> np.ndarray:
        """The token-embedding table [vocab, hidden], float16 or float32, mapped from disk.

        Raises:
            PackageError: the table's shape does not fit the manifest.
        """
        path = self._owner(EMBEDDINGS_NAME).path / EMBEDDINGS_NAME
        try:
            table: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise PackageError(f"{path}: {error}") from error
        expected = (self.manifest.decoder.vocab_size, self.manifest.decoder.hidden_size)
        if table.shape != expected:
            raise PackageError(f"{path}: shape {table.shape}, expected {expected}")
        return table

    def _owner(self, name: str) -> ModelPackage:
        """The package that holds this file: this one, or the base of an adapter package that has none of its own."""
        return self if self.base is None or name in self.manifest.files else self.base

    def _graph(self, name: str) -> GraphFiles:
        owner = self._owner(name)
        if owner.base is None:
            return GraphFiles(owner.path / name, owner.path)
        own = own_weights_name(name)
        return GraphFiles(owner.path / name, owner.base.path, owner.path / own if own in owner.manifest.files else None)


def decoder_name(dialect: str) -> str:
    """The file of the decoder's graph in a dialect such as `cpu`."""
    return f"decoder.{dialect}.onnx"


def own_weights_name(graph: str) -> str:
    """The file in which an adapter package keeps the weights that its graph, such as `vision.onnx`, has for itself."""
    return f"{graph.removesuffix('.onnx')}.adapter.safetensors"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _open_base(folder: Path, reference: BaseRef) -> ModelPackage:
    """The base of the adapter package `folder`; raises PackageError where it is not there or not the one that is meant."""
    path = (folder.resolve() / reference.path).resolve()
    manifest = path / MANIFEST_NAME
    if not manifest.is_file():
        raise PackageError(f"{folder}: an adapter for the package {path}, which is not there")
    digest = file_sha256(manifest)
    if digest != reference.manifest_sha256:
        raise PackageError(
            f"{folder}: an adapter for another package than the one at {path}: the manifest's SHA-256 is {digest[:12]}..., "
            f"wanted {reference.manifest_sha256[:12]}..."
        )
    base = ModelPackage.open_unverified(path)
    if base.base is not None:
        raise PackageError(f"{folder}: its base {path} is an adapter package itself")
    return base


def _check_size(folder: Path, name: str, expected: int) -> None:
    if Path(name).name != name:
        raise PackageError(f"{folder}: {MANIFEST_NAME} names {name!r}, which is not a plain file name")
    path = folder / name
    if not path.is_file():
        raise PackageError(f"{path}: missing; the manifest lists it with {expected} bytes")
    found = path.stat().st_size
    if found != expected:
        raise PackageError(f"{path}: {found} bytes, the manifest says {expected}: the file is truncated or was changed")

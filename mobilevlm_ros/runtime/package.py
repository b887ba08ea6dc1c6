"""Opening a model package: the folder that holds all that a run needs.

Checks that the files are those that the manifest promises before anything reads them. Knows the files' names, not their content.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobilevlm_ros.runtime.errors import PackageError
from mobilevlm_ros.runtime.manifest import MANIFEST_NAME, Manifest

TOKENIZER_NAME = "tokenizer.model"
EMBEDDINGS_NAME = "embeddings.npy"
VISION_NAME = "vision.onnx"
DECODER_CPU_NAME = "decoder.cpu.onnx"


@dataclass(frozen=True)
class ModelPackage:
    """A model package on disk whose manifest has been read."""

    path: Path
    manifest: Manifest

    @staticmethod
    def open(path: str | Path) -> ModelPackage:
        """Read the manifest and check every file's presence, size and SHA-256.

        Raises:
            PackageError: one line with the path, what was expected and what was found.
        """
        package = ModelPackage.open_unverified(path)
        for name, entry in package.manifest.files.items():
            digest = file_sha256(package.path / name)
            if digest != entry.sha256:
                raise PackageError(
                    f"{package.path / name}: SHA-256 is {digest[:12]}..., the manifest says {entry.sha256[:12]}...: "
                    "the file is damaged or was changed"
                )
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
        for name in (TOKENIZER_NAME, EMBEDDINGS_NAME, VISION_NAME):
            if name not in manifest.files:
                raise PackageError(f"{folder}: {MANIFEST_NAME} lists no {name}")
        for name, entry in manifest.files.items():
            _check_size(folder, name, entry.bytes)
        return ModelPackage(folder, manifest)

    @property
    def tokenizer(self) -> Path:
        """The SentencePiece model."""
        return self.path / TOKENIZER_NAME

    @property
    def vision(self) -> Path:
        """The graph from pixels to visual tokens."""
        return self.path / VISION_NAME

    def decoder(self, dialect: str) -> Path:
        """The decoder's graph in a dialect such as `cpu`.

        Raises:
            PackageError: the package has no such graph.
        """
        name = f"decoder.{dialect}.onnx"
        if name not in self.manifest.files:
            raise PackageError(f"{self.path}: no {name} in this package; convert the checkpoint for this backend")
        return self.path / name

    def embeddings(self) -> np.ndarray:
        """The token-embedding table [vocab, hidden], float16 or float32, mapped from disk.

        Raises:
            PackageError: the table's shape does not fit the manifest.
        """
        try:
            table: np.ndarray = np.load(self.path / EMBEDDINGS_NAME, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise PackageError(f"{self.path / EMBEDDINGS_NAME}: {error}") from error
        expected = (self.manifest.decoder.vocab_size, self.manifest.decoder.hidden_size)
        if table.shape != expected:
            raise PackageError(f"{self.path / EMBEDDINGS_NAME}: shape {table.shape}, expected {expected}")
        return table


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check_size(folder: Path, name: str, expected: int) -> None:
    if Path(name).name != name:
        raise PackageError(f"{folder}: {MANIFEST_NAME} names {name!r}, which is not a plain file name")
    path = folder / name
    if not path.is_file():
        raise PackageError(f"{path}: missing; the manifest lists it with {expected} bytes")
    found = path.stat().st_size
    if found != expected:
        raise PackageError(f"{path}: {found} bytes, the manifest says {expected}: the file is truncated or was changed")

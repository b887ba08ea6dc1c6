"""Where `--annotated` writes: a picture file, a folder of pictures, or a video."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from mobilevlm_ros.pictures.drawing import Mark, Pixels, draw
from mobilevlm_ros.pictures.opencv import opencv
from mobilevlm_ros.pictures.source import STDIN, Sample, Source, SourceKind
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

_VIDEO_SUFFIX = ".mp4"
_QUALITY = 92  # of JPEGs
_SLOWEST, _FASTEST = 0.2, 60.0
"""Pictures a second that players can be expected to show."""


class Drawings(Protocol):
    """Takes annotated pictures."""

    def add(self, sample: Sample, marks: list[Mark], caption: str) -> None:
        """Draw and keep one. Raises VlmError(BAD_REQUEST) where it cannot be written."""

    def close(self) -> None:
        """Finish what was written."""


@contextmanager
def open_drawings(path: Path | None, source: Source) -> Iterator[Drawings]:
    """Where the pictures of a source are drawn; None draws nothing.

    Raises:
        VlmError: BAD_REQUEST if the path does not suit the source; before anything else is done.
    """
    drawings = _choose(path, source)
    try:
        yield drawings
    finally:
        drawings.close()


def _choose(path: Path | None, source: Source) -> Drawings:
    if path is None:
        return _Nowhere()
    suffix = path.suffix.lower()
    recorded = source.kind in (SourceKind.VIDEO, SourceKind.BAG)
    if suffix == _VIDEO_SUFFIX and recorded:
        return _Video(path, source.rate or 1.0)
    if source.kind is SourceKind.PICTURE and suffix and not path.is_dir():
        if suffix not in Image.registered_extensions():
            raise VlmError(ErrorCode.BAD_REQUEST, f"{path}: '{suffix}' is no kind of picture that can be written")
        return _File(path)
    if suffix and not path.is_dir():
        wanted = "a folder or an .mp4" if recorded else "a folder"
        raise VlmError(ErrorCode.BAD_REQUEST, f"{path}: --annotated must name {wanted} for {_described(source)}")
    return _Folder(path)


def _described(source: Source) -> str:
    return "a picture" if source.kind is SourceKind.PICTURE else f"the pictures of a {source.kind.value}"


class _Nowhere:
    def add(self, sample: Sample, marks: list[Mark], caption: str) -> None:
        pass

    def close(self) -> None:
        pass


class _File:
    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, sample: Sample, marks: list[Mark], caption: str) -> None:
        _save(self._path, draw(sample.frame.pixels, marks, caption))

    def close(self) -> None:
        pass


class _Folder:
    """A picture keeps its file's name; one of a video or bag is named after its time in seconds."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, sample: Sample, marks: list[Mark], caption: str) -> None:
        name = Path("stdin.png" if sample.name == STDIN else sample.name)
        if sample.seconds is not None:
            name = Path(f"{name.stem}_{sample.seconds:010.3f}.jpg")
        _save(self._path / name.name, draw(sample.frame.pixels, marks, caption))

    def close(self) -> None:
        pass


class _Video:
    """The pictures that were looked at, at the pace at which they were taken. All have the first one's size."""

    def __init__(self, path: Path, rate: float) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.partial{_VIDEO_SUFFIX}")
        self._rate = min(max(rate, _SLOWEST), _FASTEST)
        self._cv2 = opencv("writing a video")
        self._writer: Any = None
        self._size = (0, 0)

    def add(self, sample: Sample, marks: list[Mark], caption: str) -> None:
        pixels = draw(sample.frame.pixels, marks, caption)
        if self._writer is None:
            self._size = (sample.frame.width, sample.frame.height)
            _make_folder(self._partial.parent)
            code = self._cv2.VideoWriter_fourcc(*"mp4v")
            self._writer = self._cv2.VideoWriter(str(self._partial), code, self._rate, self._size)
            if not self._writer.isOpened():
                raise VlmError(ErrorCode.BAD_REQUEST, f"{self._path}: OpenCV cannot write this video")
        if pixels.shape[1::-1] != self._size:
            pixels = np.asarray(Image.fromarray(pixels).resize(self._size))
        self._writer.write(self._cv2.cvtColor(pixels, self._cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """What was drawn so far is a whole video, also where the run was broken off."""
        if self._writer is None:
            return
        self._writer.release()
        if self._partial.exists():
            self._partial.replace(self._path)


def _save(path: Path, pixels: Pixels) -> None:
    """Write a picture, whole or not at all."""
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    _make_folder(path.parent)
    try:
        Image.fromarray(pixels).save(partial, quality=_QUALITY)
        os.replace(partial, path)
    except (OSError, ValueError) as error:
        partial.unlink(missing_ok=True)
        raise VlmError(ErrorCode.BAD_REQUEST, f"{path}: cannot be written: {error}") from error


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VlmError(ErrorCode.BAD_REQUEST, f"{path}: {error.strerror or error}") from error

"""One place for pictures to come from, whatever it is: a file, stdin, a folder, a video, a recorded bag.

A picture that cannot be read is an item too, so that the others go on.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from mobilevlm_ros.pictures.files import picture_files, read_picture, read_picture_bytes
from mobilevlm_ros.pictures.sampling import Sampling
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame

STDIN = "-"
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"})
BAG_SUFFIXES = frozenset({".bag", ".db3", ".mcap"})


class SourceKind(Enum):
    """What a source is."""

    PICTURE = "picture"
    FOLDER = "folder"
    VIDEO = "video"
    BAG = "bag"


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture to look at.

    Attributes:
        name: the file that it is or comes from, or `-`.
        seconds: since the beginning of the video or the bag; None for picture files.
        stamp_ns: the stamp in its ROS header, in nanoseconds; None where there is no header.
    """

    name: str
    seconds: float | None
    stamp_ns: int | None
    frame: Frame

    @property
    def label(self) -> str:
        """The file's name and, within a video or a bag, the time."""
        return label(self.name, self.seconds)


@dataclass(frozen=True)
class Unreadable:
    """A picture that could not be read; the error's text names it."""

    error: VlmError


Item = Sample | Unreadable


@dataclass(frozen=True, eq=False)
class Source:
    """Pictures in order, to be gone through once.

    Attributes:
        kind: what they come from.
        expected: how many there will be, about; for a progress bar.
        rate: pictures for each second of the recording, about; None for files.
        items: the pictures, read one by one.
    """

    kind: SourceKind
    expected: int
    rate: float | None
    items: Iterator[Item]


def open_source(path: str, sampling: Sampling | None = None, topic: str | None = None) -> Source:
    """Open a path for its pictures.

    Args:
        path: a picture file; `-`, a picture on stdin; a folder of pictures; a video file; a rosbag2 folder, or a .mcap, .db3 or
            .bag file. What has another ending is read as a picture.
        sampling: which pictures; of files only its limit counts.
        topic: of a bag with several image topics.

    Raises:
        VlmError: BAD_IMAGE if there is nothing to read there; BAD_REQUEST if a library is missing or a topic must be chosen.
    """
    sampling = sampling or Sampling()
    kind = kind_of(path)
    if topic is not None and kind is not SourceKind.BAG:
        raise VlmError(ErrorCode.BAD_REQUEST, f"{path}: a topic can be chosen in a bag only")
    if kind is SourceKind.BAG:
        from mobilevlm_ros.pictures.bag import open_bag

        return open_bag(Path(path), sampling, topic)
    if kind is SourceKind.VIDEO:
        from mobilevlm_ros.pictures.video import open_video

        return open_video(Path(path), sampling)
    if path == STDIN:
        return Source(kind, 1, None, iter([Sample(STDIN, None, None, read_picture_bytes(sys.stdin.buffer.read(), "stdin"))]))
    files = picture_files(Path(path))[: sampling.limit]
    first = [_read(files[0])]
    if kind is SourceKind.PICTURE and isinstance(first[0], Unreadable):
        raise first[0].error
    return Source(kind, len(files), None, itertools.chain(first, map(_read, files[1:])))


def kind_of(path: str) -> SourceKind:
    """What a path is, by its name and, for folders, by what lies in them."""
    suffix = Path(path).suffix.lower()
    if Path(path).is_dir():
        return SourceKind.BAG if (Path(path) / "metadata.yaml").is_file() else SourceKind.FOLDER
    if suffix in BAG_SUFFIXES:
        return SourceKind.BAG
    return SourceKind.VIDEO if suffix in VIDEO_SUFFIXES else SourceKind.PICTURE


def label(name: str, seconds: float | None) -> str:
    """A short name for a picture: its file's, with the time within a recording."""
    short = Path(name).name
    return short if seconds is None else f"{short} {seconds:.2f} s"


def _read(path: Path) -> Item:
    try:
        return Sample(str(path), None, None, read_picture(path))
    except VlmError as error:
        return Unreadable(error)

"""A video file's pictures, through OpenCV. Frames that nobody looks at are skipped without being converted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mobilevlm_ros.pictures.opencv import opencv
from mobilevlm_ros.pictures.sampling import Sampling
from mobilevlm_ros.pictures.source import Item, Sample, Source, SourceKind, Unreadable, label
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame


def open_video(path: Path, sampling: Sampling) -> Source:
    """Open a video file.

    Raises:
        VlmError: BAD_IMAGE if there is no such file or OpenCV cannot read it; BAD_REQUEST if OpenCV is missing or nothing of the
            video lies between start and end.
    """
    if not path.is_file():
        raise VlmError(ErrorCode.BAD_IMAGE, f"{path}: no such file")
    cv2 = opencv("reading a video")
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise VlmError(ErrorCode.BAD_IMAGE, f"{path}: not a video that OpenCV can read")
    fps = video.get(cv2.CAP_PROP_FPS) or 25.0
    frames = max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))  # absent or negative in streams
    duration = frames / fps
    if frames and sampling.start >= duration:
        raise VlmError(ErrorCode.BAD_REQUEST, f"{path}: the video is {duration:.2f} s long, --start is {sampling.start:g}")
    expected = sampling.count(frames, duration)
    timed = _grabbed(cv2, video, fps)
    return Source(SourceKind.VIDEO, expected, sampling.every.rate(fps), _pictures(path, cv2, video, sampling.pick(timed)))


def _pictures(path: Path, cv2: Any, video: Any, picked: Iterator[tuple[float, None]]) -> Iterator[Item]:
    try:
        for seconds, _ in picked:
            read, pixels = video.retrieve()
            if read:
                yield Sample(str(path), seconds, None, Frame(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)))
            else:
                yield Unreadable(VlmError(ErrorCode.BAD_IMAGE, f"{label(str(path), seconds)}: the frame cannot be decoded"))
    finally:
        video.release()


def _grabbed(cv2: Any, video: Any, fps: float) -> Iterator[tuple[float, None]]:
    """The time of each frame since the first, which is then ready to be retrieved."""
    first = 0.0
    for number in itertools.count():
        if not video.grab():
            return
        stamp = video.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        if number == 0:
            first = stamp  # older OpenCV tells the time of the frame after
        yield stamp - first or number / fps, None  # some videos have no stamps

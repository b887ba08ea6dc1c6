"""Runs a command's work over each picture of what the user named, whatever that is; knows no command's work."""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobilevlm_ros.cli.options import open_engine, pictures_of
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

if TYPE_CHECKING:
    from mobilevlm_ros.pictures.drawing import Mark
    from mobilevlm_ros.pictures.source import Item, Sample, Source
    from mobilevlm_ros.runtime.engine import Engine

FAILED = 1


@dataclass(frozen=True)
class Session:
    """What a command works with.

    Attributes:
        load_ms: how long the model took to load.
        several: whether there may be more than one picture, so that lines must name theirs.
    """

    engine: Engine
    load_ms: float
    several: bool

    def prefix(self, sample: Sample) -> str:
        """What a line about a picture begins with."""
        return f"{sample.label}: " if self.several else ""


@dataclass(frozen=True)
class Drawing:
    """What a command wants to be drawn into its picture."""

    marks: tuple[Mark, ...] = ()
    caption: str = ""


Work = Callable[[Session, "Sample"], Drawing]


def over_pictures(args: argparse.Namespace, work: Work) -> int:
    """Do `work` with each picture that the options name, and draw what it returns.

    A picture that cannot be read costs one line on stderr; the others go on. Nothing is loaded before one could be read.

    Returns:
        0, or 1 if a picture could not be read.

    Raises:
        VlmError: nothing can be read there, an option does not fit it, or the work raises it.
    """
    from mobilevlm_ros.cli.annotated import open_drawings
    from mobilevlm_ros.pictures.source import SourceKind, open_source

    source = open_source(args.image, pictures_of(args), args.topic)
    unreadable: list[VlmError] = []
    samples = _readable(source.items, unreadable)
    with open_drawings(args.annotated, source) as drawings:
        first = next(samples, None)
        if first is None and unreadable:
            return FAILED
        if first is None:
            raise VlmError(ErrorCode.NO_IMAGE, f"{args.image}: no pictures between --start and --end")
        start = time.perf_counter()
        with open_engine(args) as engine:
            several = source.kind is not SourceKind.PICTURE
            session = Session(engine, (time.perf_counter() - start) * 1e3, several)
            for sample in _with_progress(itertools.chain([first], samples), source):
                drawing = work(session, sample)
                drawings.add(sample, list(drawing.marks), drawing.caption)
    return FAILED if unreadable else 0


def _readable(items: Iterator[Item], unreadable: list[VlmError]) -> Iterator[Sample]:
    from mobilevlm_ros.pictures.source import Unreadable

    for item in items:
        if isinstance(item, Unreadable):
            unreadable.append(item.error)
            print(f"mobilevlm: {item.error.message}", file=sys.stderr)
        else:
            yield item


def _with_progress(samples: Iterable[Sample], source: Source) -> Iterable[Sample]:
    """With a bar on a terminal's stderr, where there is more than one picture and the results do not show how it goes."""
    if source.expected < 2 or not sys.stderr.isatty() or sys.stdout.isatty():
        return samples
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:  # a robot's installation may do without
        return samples
    bar: Iterable[Sample] = tqdm(samples, total=source.expected, unit="picture", file=sys.stderr, dynamic_ncols=True)
    return bar

"""`mobilevlm describe`: a part of a picture in words."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mobilevlm_ros.cli.each import Drawing, Session, over_pictures
from mobilevlm_ros.cli.options import (
    SOURCES,
    Commands,
    add_command,
    add_model_options,
    add_sampling_options,
    add_source_options,
    sampling_of,
)
from mobilevlm_ros.cli.printing import answer_as_json, print_json

if TYPE_CHECKING:
    from mobilevlm_ros.pictures.source import Sample

EXAMPLES = """  mobilevlm describe kitchen.jpg 120 80 260 210
  mobilevlm describe kitchen.jpg 120 80 260 210 --annotated described.png
  mobilevlm describe conveyor.mp4 300 200 500 400 --every 2 --json | jq -r '[.time, .text] | @tsv'
"""


def add_describe_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the `mobilevlm` parser."""
    parser = add_command(commands, "describe", "put a part of a picture into words", EXAMPLES, run)
    parser.add_argument("image", help=SOURCES)
    for name, meaning in (("x1", "left"), ("y1", "upper"), ("x2", "right"), ("y2", "lower")):
        parser.add_argument(name, type=float, help=f"{meaning} edge of the part, in pixels")
    add_model_options(parser)
    add_sampling_options(parser)
    add_source_options(parser)


def run(args: argparse.Namespace) -> int:
    """Describe and print."""
    from mobilevlm_ros.pictures.drawing import Mark
    from mobilevlm_ros.runtime.geometry import Box
    from mobilevlm_ros.tasks import Settings, describe_region

    settings = Settings(sampling_of(args))
    box = Box(args.x1, args.y1, args.x2, args.y2)

    def work(session: Session, sample: Sample) -> Drawing:
        answer = describe_region(session.engine, sample.frame, box, settings)
        if args.json:
            print_json(answer, sample, session.engine.manifest.name, session.load_ms, **answer_as_json(answer))
        else:
            print(f"{session.prefix(sample)}{answer.text}", flush=True)
        return Drawing((Mark(box, ""),), answer.text)

    return over_pictures(args, work)

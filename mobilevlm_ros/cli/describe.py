"""`mobilevlm describe`: a part of a picture in words."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from mobilevlm_ros.cli.options import Commands, add_command, add_model_options, add_sampling_options, open_engine, sampling_of
from mobilevlm_ros.cli.printing import print_json
from mobilevlm_ros.pictures import read_picture
from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.tasks import Settings, describe_region

EXAMPLES = """  mobilevlm describe kitchen.jpg 120 80 260 210
"""


def add_describe_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the `mobilevlm` parser."""
    parser = add_command(commands, "describe", "put a part of a picture into words", EXAMPLES, run)
    parser.add_argument("image", type=Path, help="picture file")
    for name, meaning in (("x1", "left"), ("y1", "upper"), ("x2", "right"), ("y2", "lower")):
        parser.add_argument(name, type=float, help=f"{meaning} edge of the part, in pixels")
    add_model_options(parser)
    add_sampling_options(parser)


def run(args: argparse.Namespace) -> int:
    """Describe and print."""
    settings = Settings(sampling_of(args))
    frame = read_picture(args.image)
    start = time.perf_counter()
    with open_engine(args) as engine:
        load_ms = (time.perf_counter() - start) * 1e3
        answer = describe_region(engine, frame, Box(args.x1, args.y1, args.x2, args.y2), settings)
        if args.json:
            print_json(answer, args.image, engine.manifest.name, load_ms, text=answer.text, token_ids=list(answer.token_ids))
        else:
            print(answer.text)
    return 0

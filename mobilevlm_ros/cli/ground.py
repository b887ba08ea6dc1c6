"""`mobilevlm ground`: where in a picture something is."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from mobilevlm_ros.cli.options import Commands, add_command, add_model_options, open_engine
from mobilevlm_ros.cli.printing import print_json, region_as_json
from mobilevlm_ros.pictures import picture_files, read_picture
from mobilevlm_ros.runtime.errors import ErrorCode
from mobilevlm_ros.tasks import Grounding, ground

NOTHING_FOUND = 1
EXAMPLES = """  mobilevlm ground kitchen.jpg "the red mug"
  mobilevlm ground pictures/ "the door handle" --json
"""


def add_ground_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the `mobilevlm` parser."""
    parser = add_command(commands, "ground", "find what a referring expression points at in a picture", EXAMPLES, run)
    parser.add_argument("image", type=Path, help="picture file, or a folder of pictures")
    parser.add_argument("expression", help='such as "the red mug"')
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Find and print boxes in pixels; 1 if nothing was found in any picture."""
    files = picture_files(args.image)
    frame = read_picture(files[0])
    found = False
    start = time.perf_counter()
    with open_engine(args) as engine:
        load_ms = (time.perf_counter() - start) * 1e3
        for number, path in enumerate(files):
            frame = frame if number == 0 else read_picture(path)
            result = ground(engine, frame, args.expression)
            found = found or result.error is ErrorCode.NONE
            if args.json:
                regions = [region_as_json(region) for region in result.regions]
                print_json(result, path, engine.manifest.name, load_ms, regions=regions, text=result.text)
            else:
                _print_lines(result, f"{path.name}: " if len(files) > 1 else "")
    return 0 if found else NOTHING_FOUND


def _print_lines(result: Grounding, before: str) -> None:
    if not result.regions:
        print(f"{before}{result.error.name}: {result.error_msg}")
    for region in result.regions:
        box = region.box
        print(f"{before}({box.x1:.0f}, {box.y1:.0f}) to ({box.x2:.0f}, {box.y2:.0f}) pixels, score {region.score:.2f}")

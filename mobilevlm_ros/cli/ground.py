"""`mobilevlm ground`: where in a picture something is."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mobilevlm_ros.cli.each import Drawing, Session, over_pictures
from mobilevlm_ros.cli.options import SOURCES, Commands, add_command, add_model_options, add_source_options
from mobilevlm_ros.cli.printing import print_json, region_as_json

if TYPE_CHECKING:
    from mobilevlm_ros.pictures.source import Sample
    from mobilevlm_ros.tasks import Grounding

NOTHING_FOUND = 1
EXAMPLES = """  mobilevlm ground kitchen.jpg "the red mug" --annotated found.jpg
  mobilevlm ground pictures/ "all door handles" --json | jq .regions
  mobilevlm ground drive.mp4 "the traffic light" --every 0.5 --annotated drive_lights.mp4
  mobilevlm ground run.mcap "the charging station" --topic /front/image_raw --start 10 --end 20
"""


def add_ground_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the `mobilevlm` parser."""
    parser = add_command(commands, "ground", "find what a referring expression points at in a picture", EXAMPLES, run)
    parser.add_argument("image", help=SOURCES)
    parser.add_argument("expression", help='such as "the red mug" or "all mugs"')
    parser.add_argument(
        "--max-regions", type=int, default=0, metavar="N", help="at most so many boxes (default: as many as the words ask for)"
    )
    add_model_options(parser)
    add_source_options(parser)


def run(args: argparse.Namespace) -> int:
    """Find and print boxes in pixels; 1 if nothing was found in any picture or one could not be read."""
    from mobilevlm_ros.pictures.drawing import Mark
    from mobilevlm_ros.tasks import ground

    found: list[int] = []

    def work(session: Session, sample: Sample) -> Drawing:
        result = ground(session.engine, sample.frame, args.expression, max_regions=args.max_regions)
        found.append(len(result.regions))
        if args.json:
            regions = [region_as_json(region) for region in result.regions]
            specific = {"expression": result.expression, "regions": regions, "text": result.text}
            print_json(result, sample, session.engine.manifest.name, session.load_ms, **specific)
        else:
            _print_lines(result, session.prefix(sample))
        marks = tuple(Mark(region.box, f"{region.phrase} {region.score:.2f}") for region in result.regions)
        return Drawing(marks, "" if marks else result.error_msg)

    status = over_pictures(args, work)
    return status if any(found) else NOTHING_FOUND


def _print_lines(result: Grounding, before: str) -> None:
    if not result.regions:
        print(f"{before}{result.error.name}: {result.error_msg}", flush=True)
    for region in result.regions:
        box = region.box
        corners = f"({box.x1:.0f}, {box.y1:.0f}) to ({box.x2:.0f}, {box.y2:.0f}) pixels"
        print(f"{before}{corners}, score {region.score:.2f}", flush=True)

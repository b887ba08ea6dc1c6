"""`mobilevlm classify`: the best of several labels for a picture."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mobilevlm_ros.cli.each import Drawing, Session, over_pictures
from mobilevlm_ros.cli.options import SOURCES, Commands, add_command, add_model_options, add_source_options
from mobilevlm_ros.cli.printing import print_json

if TYPE_CHECKING:
    from mobilevlm_ros.pictures.source import Sample
    from mobilevlm_ros.tasks import Classification

EXAMPLES = """  mobilevlm classify hall.jpg open closed --question "Is the door open or closed?"
  mobilevlm classify pictures/ kitchen office corridor --json | jq -r '[.image, .label] | @tsv'
  mobilevlm classify run.mcap empty crowded --every 5 --annotated labelled/
"""


def add_classify_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the `mobilevlm` parser."""
    parser = add_command(commands, "classify", "choose the best of several labels for a picture", EXAMPLES, run)
    parser.add_argument("image", help=SOURCES)
    parser.add_argument("labels", nargs="+", metavar="LABEL", help="two or more answers to choose from")
    parser.add_argument("--question", default="", help="what the labels answer (default: which of them fits the picture best)")
    add_model_options(parser)
    add_source_options(parser)


def run(args: argparse.Namespace) -> int:
    """Choose and print each label with its probability, the best first."""
    from mobilevlm_ros.tasks import classify

    def work(session: Session, sample: Sample) -> Drawing:
        result = classify(session.engine, sample.frame, args.question, args.labels)
        ranked = _ranked(result, args.labels)
        listed = ", ".join(f"{label} {probability:.2f}" for label, probability in ranked)
        if args.json:
            specific = {"question": args.question, "label": result.label, "probabilities": dict(ranked)}
            print_json(result, sample, session.engine.manifest.name, session.load_ms, **specific)
        else:
            print(f"{session.prefix(sample)}{listed}", flush=True)
        return Drawing(caption=listed)

    return over_pictures(args, work)


def _ranked(result: Classification, labels: list[str]) -> list[tuple[str, float]]:
    return sorted(zip(labels, result.probabilities), key=lambda pair: -pair[1])

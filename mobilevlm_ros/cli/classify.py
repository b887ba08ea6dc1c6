"""`mobilevlm classify`: the best of several labels for a picture."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from mobilevlm_ros.cli.options import Commands, add_command, add_model_options, open_engine
from mobilevlm_ros.cli.printing import print_json
from mobilevlm_ros.pictures import picture_files, read_picture
from mobilevlm_ros.tasks import Classification, classify

EXAMPLES = """  mobilevlm classify hall.jpg open closed --question "Is the door open or closed?"
  mobilevlm classify pictures/ kitchen office corridor --json
"""


def add_classify_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the `mobilevlm` parser."""
    parser = add_command(commands, "classify", "choose the best of several labels for a picture", EXAMPLES, run)
    parser.add_argument("image", type=Path, help="picture file, or a folder of pictures")
    parser.add_argument("labels", nargs="+", metavar="LABEL", help="two or more answers to choose from")
    parser.add_argument("--question", default="", help="what the labels answer (default: which of them fits the picture best)")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Choose and print each label with its probability, the best first."""
    files = picture_files(args.image)
    frame = read_picture(files[0])
    start = time.perf_counter()
    with open_engine(args) as engine:
        load_ms = (time.perf_counter() - start) * 1e3
        for number, path in enumerate(files):
            frame = frame if number == 0 else read_picture(path)
            result = classify(engine, frame, args.question, args.labels)
            if args.json:
                ranked = dict(_ranked(result, args.labels))
                print_json(result, path, engine.manifest.name, load_ms, label=result.label, probabilities=ranked)
            else:
                listed = ", ".join(f"{label} {probability:.2f}" for label, probability in _ranked(result, args.labels))
                print(f"{path.name}: {listed}" if len(files) > 1 else listed)
    return 0


def _ranked(result: Classification, labels: list[str]) -> list[tuple[str, float]]:
    return sorted(zip(labels, result.probabilities), key=lambda pair: -pair[1])

"""Scores packages of the shipped model on held-out scenes, one beside the other: what a precision costs in right answers.

`python -m training.packages PACKAGE OTHER --held-out DIR`. Every question is a first question in its first wording, answered
greedily by the engine that a robot runs. Pictures come from `training.views --plain`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.requests import Limits
from mobilevlm_ros.runtime.sampling import SamplingParams
from training.evaluate import LONG, LONG_LIMIT, SHORT_LIMIT, questions
from training.grading import Score
from training.views import ViewShards

ROWS = 16


def score(package: Path, views: ViewShards, count: int, threads: int) -> Score:
    """What a package answers right about the first `count` views."""
    found = Score()
    numbers = np.arange(count)
    asked = questions([views.sights[number] for number in numbers], plain=True)
    pixels = views.rows("pixels", numbers)
    config = EngineConfig(threads=threads, rows=ROWS, queue_size=64, context_length=512)
    with Engine.open(package, config) as engine:
        for turns, picture in tqdm(zip(asked, pixels), total=count, desc=package.name, disable=None):
            shown = engine.picture(Frame(np.ascontiguousarray(picture)))
            limits = [LONG_LIMIT if turn.kind in LONG else SHORT_LIMIT for turn in turns]
            started = [
                engine.generate(shown, turn.question, SamplingParams(limit, temperature=0.0), Limits())
                for turn, limit in zip(turns, limits)
            ]
            for turn, generation in zip(turns, started):
                found.add(turn, engine.tokenizer.decode(generation.result().tokens))
    return found


def main() -> int:
    """Print a line for each package, and how far it is from the first in percentage points."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, nargs="+", metavar="PACKAGE")
    parser.add_argument("--held-out", type=Path, required=True, help="plain views of held-out scenes")
    parser.add_argument("--count", type=int, default=1000, help="scenes")
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    views = ViewShards(args.held_out, ("pixels",))
    count = min(args.count, len(views))
    first: Score | None = None
    for package in args.packages:
        found = score(package, views, count, args.threads)
        first = first or found
        shares = {kind: round(100 * found.share(kind), 1) for kind in sorted(found.asked)}
        lost = {kind: round(100 * (first.share(kind) - found.share(kind)), 1) for kind in sorted(found.asked)}
        line = {"package": package.name, "scenes": count, "right_percent": shares, "points_lost": lost}
        print(json.dumps(line | {"mean_iou": round(found.mean_iou, 3)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

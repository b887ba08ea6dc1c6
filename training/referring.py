"""Writes rendered scenes as pictures with referring expressions, for `mobilevlm eval refcoco`.

`python -m training.referring --scenes DIR --out DIR`: `images/`, `truth.jsonl` with all that each picture shows, and three files
of lines about the same scenes:
`single.jsonl`, an expression that means one thing and one that means nothing for each scene; `several.jsonl`, expressions in
the plural, with all boxes; `swapped.jsonl`, the same expressions about the picture of another scene of the same size, which
shows what can be guessed without looking. A thing that is named but absent is mostly a near miss: its colour or shape is there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from training.data import Shards
from training.questions import Asker
from training.scenes import COLORS, SHAPES
from training.truth import Sight, Thing
from training.wording import plural

SINGLE, SEVERAL, SWAPPED, TRUTH = "single.jsonl", "several.jsonl", "swapped.jsonl", "truth.jsonl"


def single_lines(sight: Sight, image: str, rng: Random) -> Iterator[dict[str, Any]]:
    """One thing that an expression names and no other does, where there is one, and one that is not there."""
    asker = Asker(sight, rng)
    clear = [(thing, names) for thing in sight.things if (names := asker.expressions(thing))]
    if clear:
        thing, names = rng.choice(clear)
        yield {"image": image, "expression": f"the {rng.choice(names)}", "bbox": list(thing.box)}
    color, shape = asker.absent()
    yield {"image": image, "expression": f"the {color} {shape}", "bbox": None}


def several_lines(sight: Sight, image: str, rng: Random) -> Iterator[dict[str, Any]]:
    """Every shape and colour that is there more than once, in the plural; and one that is there once or never."""
    groups = [(f"the {plural(shape)}", _of(sight, shape=shape)) for shape in SHAPES]
    groups += [(f"the {color} objects", _of(sight, color=color)) for color in COLORS]
    repeated = [group for group in groups if len(group[1]) > 1]
    once = [group for group in groups if len(group[1]) == 1]
    never = [group for group in groups if not group[1]]
    chosen = [*repeated, rng.choice(once if once and rng.random() < 0.5 else never)]
    for expression, things in chosen:
        yield {"image": image, "expression": expression, "bboxes": [list(thing.box) for thing in things]}


def _of(sight: Sight, shape: str = "", color: str = "") -> list[Thing]:
    return [thing for thing in sight.things if thing.shape == shape or thing.color == color]


def swapped_lines(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same expressions and boxes with the pictures of other lines."""
    images = [line["image"] for line in lines]
    half = len(lines) // 2
    return [{**line, "image": image} for line, image in zip(lines, images[half:] + images[:half])]


def _write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, required=True, help="rendered shards")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--first", type=int, default=0, help="number of the first scene")
    parser.add_argument("--count", type=int, help="scenes (default: all that are left)")
    parser.add_argument("--jpeg", type=int, metavar="QUALITY", help="write JPEG files of this quality (default: PNG)")
    args = parser.parse_args()
    shards = Shards(args.scenes)
    last = len(shards) if args.count is None else min(len(shards), args.first + args.count)
    (args.out / "images").mkdir(parents=True, exist_ok=True)
    single: list[dict[str, Any]] = []
    several: list[dict[str, Any]] = []
    truth: list[dict[str, Any]] = []
    for number in range(args.first, last):
        view = shards.scene(number)
        name = f"images/{view.sight.seed}.{'jpg' if args.jpeg else 'png'}"
        Image.fromarray(view.pixels).save(args.out / name, **({"quality": args.jpeg} if args.jpeg else {}))
        truth.append({"image": name, **view.sight.to_json()})
        single += single_lines(view.sight, name, Random(view.sight.seed))
        several += several_lines(view.sight, name, Random(view.sight.seed))
    _write(args.out / SINGLE, single)
    _write(args.out / SEVERAL, several)
    _write(args.out / SWAPPED, swapped_lines(several))
    _write(args.out / TRUTH, truth)
    print(f"{last - args.first} pictures, {len(single)} single and {len(several)} plural expressions in {args.out}")


if __name__ == "__main__":
    main()

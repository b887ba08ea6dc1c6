"""Tabletop scenes as the nano model knows them, drawn flat or as they were rendered, and ColonINST-format sets of their truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw

from mobilevlm_ros.evaluate.formats.coloninst import PROMPTS, ColonTask, format_corners
from training.truth import Sight, Thing

COLORS = {"red": (200, 30, 30), "green": (30, 150, 50), "blue": (40, 70, 200), "yellow": (230, 200, 30)}
SHAPES = ("ball", "cube", "cone")
TABLE = (150, 130, 100)


@dataclass(frozen=True)
class Drawn:
    """A picture's file name and what is truly in it."""

    name: str
    sight: Sight


def draw_scenes(folder: Path, count: int, seed: int = 0) -> list[Drawn]:
    """Draw `count` pictures of one thing each, in sizes both wide and tall."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for number in range(count):
        random = Random(seed * 1000 + number)
        width, height = random.choice([(96, 72), (72, 96), (80, 80)])
        thing = _thing(random, width, height)
        image = Image.new("RGB", (width, height), TABLE)
        _draw(ImageDraw.Draw(image), thing)
        name = f"table/{number}.png"
        (folder / name).parent.mkdir(exist_ok=True)
        image.save(folder / name)
        drawn.append(Drawn(name, Sight(number, width, height, (thing,))))
    return drawn


def rendered_scenes(folder: Path) -> list[Drawn]:
    """The rendered scenes of a folder that `training.referring` wrote: one for each thing that its name tells from the others."""
    drawn = []
    for line in (folder / "truth.jsonl").read_text().splitlines():
        record = json.loads(line)
        sight = Sight.from_json(record)
        names = [thing.name for thing in sight.things]
        drawn += [
            Drawn(record["image"], replace(sight, things=(thing,))) for thing in sight.things if names.count(thing.name) == 1
        ]
    return drawn


def _thing(random: Random, width: int, height: int) -> Thing:
    size = random.randint(12, 30)
    left, top = random.randint(0, width - size), random.randint(0, height - size)
    return Thing(random.choice(SHAPES), random.choice(list(COLORS)), (left, top, left + size, top + size))


def _draw(draw: ImageDraw.ImageDraw, thing: Thing) -> None:
    x1, y1, x2, y2 = thing.box
    corners = (x1, y1, x2 - 1, y2 - 1)  # Pillow's last pixel is drawn, the truth's far edge is not in the thing
    color = COLORS[thing.color]
    if thing.shape == "ball":
        draw.ellipse(corners, fill=color)
    elif thing.shape == "cube":
        draw.rectangle(corners, fill=color)
    else:
        draw.polygon([((x1 + x2) / 2, y1), (x1, y2 - 1), (x2 - 1, y2 - 1)], fill=color)


def voc_corners(thing: Thing) -> tuple[int, int, int, int]:
    """A thing's box as ColonINST means it: the last pixel is included."""
    x1, y1, x2, y2 = (int(value) for value in thing.box)
    return x1, y1, x2 - 1, y2 - 1


def write_coloninst(path: Path, task: ColonTask, drawn: Sequence[Drawn]) -> Path:
    """The scenes as a ColonINST file of one task, each with the next of the five wordings."""
    records = []
    for number, one in enumerate(drawn):
        (thing,) = one.sight.things
        box = format_corners(voc_corners(thing))
        wording = PROMPTS[task][number % len(PROMPTS[task])].format(box=box, category=thing.name)
        turns = [
            {"from": "human", "value": f"<image>\n{wording}"},
            {"from": "gpt", "value": box if task is ColonTask.REC else thing.name},
        ]
        records.append({"id": one.name, "image": Path(one.name).stem, "conversations": turns})
    path.write_text(json.dumps(records))
    return path

"""A small new task for `mobilevlm finetune`: made-up names for the shapes, which the nano model has never heard.

`python -m training.new_names data` writes LLaVA-format conversations and their pictures from rendered scenes;
`python -m training.new_names measure` asks a model package, with the engine that a robot runs, for the new names and, to see what
was lost, everything that it knew before.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from mobilevlm_ros.machine import read_machine
from mobilevlm_ros.pictures import read_stored_picture
from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.sampling import SamplingParams
from mobilevlm_ros.tasks import Settings, ask
from training.grading import Score
from training.questions import KINDS, Asker, Turn
from training.truth import Sight

NAMES = {"ball": "zorb", "cube": "blick", "cone": "dax", "mug": "wug", "bottle": "toma", "ring": "fep", "bowl": "koba"}
"""Words from studies of how children learn words; the nano model's vocabulary spells them in two to five pieces."""

KIND = "name"
WORDINGS = (
    "What is the {color} thing called?",
    "What is the name of the {color} thing?",
    "What do you call the {color} thing?",
    "What is the {color} object called?",
)
"""The first is the one that measuring uses."""

LONGEST = 64


@dataclass(frozen=True)
class Asked:
    """A question about a stored picture."""

    image: str
    turn: Turn


def naming(sight: Sight, rng: Random, plain: bool = False) -> list[Turn]:
    """A question for the new name of each thing that its colour tells from the others."""
    colors = [thing.color for thing in sight.things]
    turns = []
    for thing in sight.things:
        if colors.count(thing.color) == 1:
            words = WORDINGS[0] if plain else rng.choice(WORDINGS)
            turns.append(Turn(KIND, words.format(color=thing.color), f"A {NAMES[thing.shape]}"))
    return turns


def conversation(image: str, turns: Sequence[Turn]) -> dict[str, Any]:
    """Turns about a picture as one item of LLaVA-format data."""
    messages = []
    for number, turn in enumerate(turns):
        messages.append({"from": "human", "value": turn.question if number else f"<image>\n{turn.question}"})
        messages.append({"from": "gpt", "value": turn.answer})
    return {"id": Path(image).stem, "image": image, "conversations": messages}


def training_items(images: Sequence[tuple[str, Sight]], old: int, seed: int) -> list[dict[str, Any]]:
    """A conversation a picture: its new names, and `old` questions of the kinds that the model knows, so that it keeps them."""
    rng = Random(seed)
    items = []
    for image, sight in images:
        turns = [*naming(sight, rng), *(Asker(sight, rng).ask_many(old) if old else ())]
        rng.shuffle(turns)
        if turns:
            items.append(conversation(image, turns))
    return items


def measuring(images: Sequence[tuple[str, Sight]], seed: int) -> Iterator[Asked]:
    """Of every picture the new names, and a question of each old kind that it allows; each is asked as a first question."""
    rng = Random(seed)
    for image, sight in images:
        asker = Asker(sight, rng, plain=True)
        old = [turn for kind in KINDS if (turn := asker.ask(kind)) is not None]
        yield from (Asked(image, turn) for turn in (*naming(sight, rng, plain=True), *old))


def measure(engine: Engine, asked: Sequence[Asked], folder: Path) -> Score:
    """How a model package answers, greedily."""
    from tqdm import tqdm

    score, settings = Score(), Settings(SamplingParams(LONGEST, temperature=0.0))
    with tqdm(total=len(asked), unit="question", disable=None) as bar:
        for image, group in groupby(asked, lambda one: one.image):
            frame = read_stored_picture(folder / image)
            for one in group:
                score.add(one.turn, ask(engine, frame, one.turn.question, settings).text)
                bar.update()
    return score


def _write_data(args: argparse.Namespace) -> None:
    from training.data import Shards

    for name, scenes, count in (("train", args.scenes, args.train), ("held", args.held_out, args.held)):
        shards = Shards(scenes)
        images = []
        (args.out / name).mkdir(parents=True, exist_ok=True)
        for number in range(min(count, len(shards))):
            view = shards.scene(number)
            image = f"{name}/{view.sight.seed}.png"
            Image.fromarray(view.pixels).save(args.out / image)
            images.append((image, view.sight))
        if name == "train":
            records = training_items(images, args.old, args.seed)
        else:
            records = [{"image": image, "sight": sight.to_json()} for image, sight in images]
        (args.out / f"{name}.json").write_text(json.dumps(records, indent=1) + "\n")
        print(f"{args.out / name}.json: {len(records)} pictures")


def _measure(args: argparse.Namespace) -> None:
    records = json.loads((args.data / "held.json").read_text())
    images = [(record["image"], Sight.from_json(record["sight"])) for record in records]
    with Engine.open(args.model, EngineConfig(threads=args.threads)) as engine:
        score = measure(engine, list(measuring(images, args.seed)), args.data)
        package = engine.manifest.source.checkpoint
    machine = read_machine()
    result = {
        "package": package,
        "scenes": len(images),
        "seeds": [images[0][1].seed, images[-1][1].seed],
        "machine": f"{machine.processor}, {machine.cores} cores, {args.threads or 'all'} threads",
        "right": {kind: {"asked": score.asked[kind], "share": round(score.share(kind), 4)} for kind in sorted(score.asked)},
        "mean_iou": round(score.mean_iou, 4),
        **({} if args.adapter is None else {"training": _training(args.adapter)}),
    }
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    results[args.label] = result
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{args.label}: {score.line()}")


def _training(adapter: Path) -> dict[str, Any]:
    """What `mobilevlm finetune` left of a training: its recipe, how long the steps took, and how the loss fell."""
    recipe = json.loads((adapter / "recipe.json").read_text())
    del recipe["identity"]
    steps = [json.loads(line) for line in (adapter / "metrics.jsonl").read_text().splitlines()]
    seconds = round(sum(step["seconds"] for step in steps))
    return {"recipe": recipe, "steps": len(steps), "seconds": seconds, "loss": [steps[0]["loss"], steps[-1]["loss"]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    data = commands.add_parser("data", help="write pictures, train.json (LLaVA's format) and held.json (truth)")
    data.add_argument("--scenes", type=Path, required=True, help="rendered training scenes (training.render)")
    data.add_argument("--held-out", type=Path, required=True, help="rendered held-out scenes")
    data.add_argument("--out", type=Path, required=True)
    data.add_argument("--train", type=int, default=3200, help="scenes to train on")
    data.add_argument("--held", type=int, default=200, help="scenes to measure on")
    data.add_argument("--old", type=int, default=4, help="old questions a training picture")
    data.add_argument("--seed", type=int, default=0)
    data.set_defaults(run=_write_data)
    after = commands.add_parser("measure", help="ask a model package; the result goes under a label into a JSON file")
    after.add_argument("--model", type=Path, required=True, help="model package")
    after.add_argument("--data", type=Path, required=True, help="what `data` wrote")
    after.add_argument("--out", type=Path, required=True, help="JSON file; other labels in it stay")
    after.add_argument("--label", required=True)
    after.add_argument("--adapter", type=Path, help="adapter folder, to record how it was trained")
    after.add_argument("--threads", type=int, default=2)
    after.add_argument("--seed", type=int, default=0)
    after.set_defaults(run=_measure)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()

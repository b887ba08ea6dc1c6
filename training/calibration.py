"""Writes the pictures and conversations on which quantisers calibrate, from rendered scenes that the nano model was trained on.

`python -m training.calibration --scenes DIR --out models/nano/calibration`: `000.jpg`... and `conversations.json` in LLaVA's
format, several questions with their right answers for each picture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from training.data import Shards
from training.questions import Asker, Turn

TURNS = 5


def conversation(picture: str, turns: list[Turn]) -> dict[str, object]:
    """An item of LLaVA's format."""
    values: list[dict[str, str]] = []
    for number, turn in enumerate(turns):
        values.append({"from": "human", "value": ("" if number else "<image>\n") + turn.question})
        values.append({"from": "gpt", "value": turn.answer})
    return {"id": Path(picture).stem, "image": picture, "conversations": values}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, required=True, help="scenes written by training.render")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--count", type=int, default=64, help="pictures")
    parser.add_argument("--quality", type=int, default=85, help="of the JPEG files")
    args = parser.parse_args()
    scenes, rng = Shards(args.scenes), Random(0)
    args.out.mkdir(parents=True, exist_ok=True)
    items = []
    for number, place in enumerate(np.linspace(0, len(scenes) - 1, args.count).astype(int)):
        view = scenes.scene(int(place))
        picture = f"{number:03d}.jpg"
        Image.fromarray(view.pixels).save(args.out / picture, quality=args.quality)
        items.append(conversation(picture, Asker(view.sight, rng).ask_many(TURNS)))
    (args.out / "conversations.json").write_text(json.dumps(items, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

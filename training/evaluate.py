"""Asks a written checkpoint about held-out scenes, and writes the model card with what came out.

`python -m training.evaluate --model models/nano --held-out DIR`. Every question is asked as a first question and
answered greedily in float32. Three runs: the first wording of each kind, any wording, and the first wording with the
pictures of other scenes, which shows what can be guessed without looking. Pictures come from `training.views --plain`.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.model import MobileVLM
from mobilevlm_ros.checkpoint.reader import CheckpointTensors, load_model
from training.card import RUNS, Results, card
from training.grading import Score
from training.language import Decoder, greedy
from training.pictures import MEAN, STD
from training.questions import KINDS, Asker, Turn
from training.truth import Sight
from training.views import ViewShards
from training.vocabulary import Words

LONG = ("ground", "describe")
SHORT_LIMIT, LONG_LIMIT = 8, 48
GROUP = 50


class Model:
    """A checkpoint, ready to answer many questions about many pictures."""

    def __init__(self, folder: Path) -> None:
        self.words = Words.load(folder / "tokenizer.model")
        config = MobileVlmConfig.read(folder)
        self.whole: MobileVLM = load_model(CheckpointTensors.open(folder, config), config)
        self.decoder = Decoder(self.words.head).eval()
        self.decoder.load_state_dict(self.whole.language.state_dict())

    @torch.no_grad()
    def look(self, pixels: np.ndarray) -> Tensor:
        """Letterboxed pictures [N, 168, 168, 3] to visual tokens."""
        return self.whole.encode_images(normalised(pixels))

    def answer(self, visual: Tensor, asked: list[list[Turn]]) -> list[list[str]]:
        """The text of every answer; long and short ones apart, which is quicker."""
        texts = [["" for _ in turns] for turns in asked]
        for kinds, limit in ((LONG, LONG_LIMIT), (tuple(k for k in KINDS if k not in LONG), SHORT_LIMIT)):
            places = [[t for t, turn in enumerate(turns) if turn.kind in kinds] for turns in asked]
            prompts = [[self.words.first_turn(turns[t].question) for t in row] for turns, row in zip(asked, places)]
            for b, (row, answers) in enumerate(zip(places, greedy(self.decoder, visual, prompts, limit))):
                for t, ids in zip(row, answers):
                    texts[b][t] = self.words.decode(ids)
        return texts

    def same_as_whole(self, pixels: np.ndarray, turn: Turn, text: str) -> bool:
        """Does the plain way, one prompt and `generate`, give the same answer?"""
        ids = [*self.words.head, -200, *self.words.first_turn(turn.question)]
        tokens = self.whole.generate(torch.tensor([ids]), normalised(pixels[None]), LONG_LIMIT)
        return self.words.decode([token for token in tokens if token != 2]) == text


def normalised(pixels: np.ndarray) -> Tensor:
    """Bytes [N, S, S, 3] to what the tower takes."""
    image = (pixels.astype(np.float32) / 255.0 - MEAN) / STD
    return torch.from_numpy(image).permute(0, 3, 1, 2).contiguous()


def questions(sights: list[Sight], plain: bool, seed: int = 0) -> list[list[Turn]]:
    """One question of each kind that a picture allows."""
    rng = Random(seed)
    askers = [Asker(sight, rng, plain) for sight in sights]
    return [[turn for kind in KINDS if (turn := asker.ask(kind)) is not None] for asker in askers]


def run(model: Model, views: ViewShards, numbers: np.ndarray, plain: bool, swapped: bool) -> tuple[Score, bool]:
    """The score, and whether the quick way of answering agreed with the plain one on a sample."""
    score, agree = Score(), True
    asked = questions([views.sights[n] for n in numbers], plain)
    shown = np.roll(numbers, 1) if swapped else numbers
    for start in range(0, len(numbers), GROUP):
        pixels = views.rows("pixels", shown[start : start + GROUP])
        texts = model.answer(model.look(pixels), asked[start : start + GROUP])
        for row, (turns, answers) in enumerate(zip(asked[start : start + GROUP], texts)):
            for turn, text in zip(turns, answers):
                score.add(turn, text)
                if row == 0:
                    agree = agree and model.same_as_whole(pixels[row], turn, text)
        print(f"{start + len(texts)}/{len(numbers)} {score.line()}", flush=True)
    return score, agree


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder with checkpoint/; the card goes there")
    parser.add_argument("--held-out", type=Path, required=True, help="plain views of held-out scenes")
    parser.add_argument("--count", type=int, default=1000, help="scenes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--training", default="", help="a sentence for the card on how it was trained")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, views = Model(args.model / "checkpoint"), ViewShards(args.held_out, ("pixels",))
    numbers = np.arange(min(args.count, len(views)))
    scores, agreed = {}, True
    for name, plain, swapped in RUNS:
        print(name, flush=True)
        scores[name], agree = run(model, views, numbers, plain, swapped)
        agreed = agreed and agree
    files = [path for path in (args.model / "checkpoint").rglob("*") if path.is_file()]
    results = Results(
        scores=scores,
        scenes=len(numbers),
        seeds=(views.sights[0].seed, views.sights[int(numbers[-1])].seed),
        parameters=sum(parameter.numel() for parameter in model.whole.parameters()),
        megabytes=sum(path.stat().st_size for path in files) / 1e6,
        agreed=agreed,
        machine=f"{platform.machine()}, {args.threads} threads, torch {torch.__version__}",
        training=args.training,
    )
    (args.model / "README.md").write_text(card(results))
    (args.model / "evaluation.json").write_text(json.dumps(results.to_json(), indent=1) + "\n")
    print(f"{args.model / 'README.md'} written; quick and plain answers agree: {agreed}")


if __name__ == "__main__":
    main()

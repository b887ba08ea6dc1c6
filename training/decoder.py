"""Second step of training: projector and decoder learn to answer, on the tower's features of written views.

Most steps train turns side by side, each exactly as a first question; some train chats. The loss is on answers
only, and a coordinate's target is blurred over its neighbours. `python -m training.decoder --help`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.grading import Score
from training.language import DIM, Decoder, greedy
from training.network import WIDTH, initial_embeddings, projector
from training.packing import IGNORE, Packer, Sizes
from training.progress import Average, Mean, Pace, checkpoint_exists, learning_rate, load, save
from training.questions import KINDS, Asker
from training.scenes import COLORS, SHAPES
from training.truth import Sight
from training.views import ViewShards
from training.vocabulary import Words

TURNS, CHAT_LENGTH = 16, 320
COMPARING = 1.1
"""How sharply attention begins to compare names with patches."""
SIZES: Sizes = ((8, 22), (6, 36))
Texts = list[tuple[Tensor, Tensor]]
Batch = tuple[Tensor, list[Tensor], Texts]
CHAT_SHARE = 0.25
NAMING = 0.4
"""Weight of the loss that keeps names readable in the visual tokens."""


class Reader(nn.Module):
    """Projector and decoder: features and ids to hidden states."""

    def __init__(self, words: Words) -> None:
        super().__init__()
        self.projector, self.decoder = projector(), Decoder(words.head)

    def forward(self, features: Tensor, ids: list[Tensor]) -> list[Tensor]:
        cache = self.decoder.prefix(self.projector(features))
        return [self.decoder.turns(cache, rows) for rows in ids]


def start_from_tower(reader: Reader, tower: Path, words: Words) -> None:
    """Takes the projector and the words' embeddings from the first step; lets attention begin by comparing."""
    states = torch.load(tower, weights_only=True)
    projector_state = {k.removeprefix("projector."): v for k, v in states["eyes"].items() if k.startswith("projector.")}
    reader.projector.load_state_dict(projector_state)
    rows, learned = initial_embeddings(words), states["heads"]
    for shapes in (SHAPES, tuple(s.capitalize() for s in SHAPES)):
        rows[words.words(shapes)] = learned["shape_rows"]
    for colors in (COLORS, tuple(c.capitalize() for c in COLORS)):
        rows[words.words(colors)] = learned["color_rows"]
    rows[words.words(("object",))] = learned["object_row"]
    for spaced in (False, True):
        rows[words.numbers(spaced)] = learned["number_rows"]
    decoder = reader.decoder
    with torch.no_grad():
        decoder.model.embed_tokens.weight.copy_(rows)
        decoder.lm_head.weight.copy_(rows)
        for layer in decoder.model.layers:
            attention = layer.self_attn
            attention.q_proj.weight.normal_(0.0, WIDTH**-0.5)
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            attention.v_proj.weight.normal_(0.0, WIDTH**-0.5)
            attention.o_proj.weight.normal_(0.0, 0.3 * WIDTH**-0.5)
            layer.mlp["down_proj"].weight.normal_(0.0, 0.02)


@torch.no_grad()
def begin_by_comparing(reader: Reader, words: Words, features: Tensor) -> None:
    """Lets the last head of the first two layers look from a name to the patches that score high for it.

    Its queries and keys both measure how much of each name is in a token, in the dimensions that rotary positions turn
    least; what it fetches are the main directions of the visual tokens, which `features` stand for.
    """
    slots = [*range(DIM // 2 - 8, DIM // 2), *range(DIM - 8, DIM)]
    table = reader.decoder.model.embed_tokens.weight
    kinds = [table[words.words(names)] for names in (SHAPES, COLORS)]
    measure = torch.cat([functional.normalize(rows - rows.mean(0), dim=-1) for rows in kinds])
    visual = reader.projector(features.float()).flatten(0, 1)
    visual = visual * torch.rsqrt(visual.pow(2).mean(-1, keepdim=True))
    main = torch.linalg.svd(visual - visual.mean(0), full_matrices=False).Vh[:DIM]
    head = slice(WIDTH - DIM, WIDTH)
    for layer in reader.decoder.model.layers[:2]:
        attention, compare = layer.self_attn, torch.zeros(DIM, WIDTH)
        compare[slots[: len(measure)]] = COMPARING * measure
        attention.q_proj.weight[head] = compare
        attention.k_proj.weight[head] = compare
        attention.v_proj.weight[head] = main
        attention.o_proj.weight[:, head] = 0.3 * main.T


def blurred_targets(words: Words, width: float = 1.0) -> Tensor:
    """[V, V]: for every token the target distribution that stands for it."""
    targets = torch.eye(words.size)
    steps = torch.arange(101.0)
    bell = torch.softmax(-0.5 * ((steps[:, None] - steps[None]) / width) ** 2, -1)
    for spaced in (False, True):
        rows = torch.tensor(words.numbers(spaced))
        targets[rows[:, None], rows[None]] = bell
    return targets


def pack(packer: Packer, sights: list[Sight], rng: Random, chat: bool) -> Texts:
    """Questions about each picture, as pairs of ids and labels [B, T, L]."""
    rows = []
    for sight in sights:
        turns = Asker(sight, rng).ask_many(TURNS)
        rows.append(packer.chat(turns, CHAT_LENGTH) if chat else packer.side_by_side(turns, SIZES))
    return [
        (torch.from_numpy(np.stack([p.ids for p in same])), torch.from_numpy(np.stack([p.labels for p in same])))
        for same in zip(*rows)
    ]


def batches(views: ViewShards, packer: Packer, size: int, seed: int, tag: str) -> Iterator[Batch]:
    """Endless batches: features, what each patch shows, and questions."""
    rng, words_rng = np.random.default_rng(seed), Random(seed)
    while True:
        order = rng.permutation(len(views))
        for start in range(0, len(order) - size + 1, size):
            numbers = order[start : start + size]
            chat = words_rng.random() < CHAT_SHARE
            texts = pack(packer, [views.sights[n] for n in numbers], words_rng, chat)
            arrays = [torch.from_numpy(views.rows(name, numbers)) for name in (tag, "shape", "color")]
            yield arrays[0].float(), [array.long() for array in arrays[1:]], texts


def answer_loss(reader: Reader, hidden: list[Tensor], texts: Texts, targets: Tensor) -> Tensor:
    """Cross-entropy of the answers' tokens with blurred coordinates."""
    states = torch.cat([state[labels != IGNORE] for state, (_, labels) in zip(hidden, texts)])
    wanted = torch.cat([labels[labels != IGNORE] for _, labels in texts])
    scores = torch.log_softmax(reader.decoder.lm_head(states).float(), -1)
    return -(targets[wanted] * scores).sum(-1).mean()


def naming_loss(reader: Reader, features: Tensor, classes: list[Tensor], names: list[list[int]]) -> Tensor:
    """Keeps the names of what patches show readable in the visual tokens, in the embeddings that questions use."""
    visual = reader.projector(features)
    visual = visual * torch.rsqrt(visual.pow(2).mean(-1, keepdim=True) + 1e-6)
    table, total = reader.decoder.model.embed_tokens.weight, torch.zeros(())
    for wanted, ids in zip(classes, names):
        scores = 2.0 * visual @ table[ids].T
        scores = torch.cat([torch.zeros_like(scores[..., :1]), scores], -1)
        total = total + functional.cross_entropy(scores.flatten(0, 1), wanted.flatten(), ignore_index=-1)
    return total


@torch.no_grad()
def held_out_score(reader: Reader, views: ViewShards, words: Words, tag: str, count: int = 100) -> Score:
    """Greedy answers to a question of each kind on the first held-out scenes."""
    rng, score, packer = Random(1), Score(), Packer(words)
    for start in range(0, count, 50):
        numbers = np.arange(start, start + 50)
        asked = []
        for number in numbers:
            asker = Asker(views.sights[number], rng, plain=True)
            asked.append([turn for kind in KINDS if (turn := asker.ask(kind)) is not None])
        prompts = [[packer.first(turn.question) for turn in turns] for turns in asked]
        with torch.autocast("cpu", torch.bfloat16):
            visual = reader.projector(torch.from_numpy(views.rows(tag, numbers)).float())
            answers = greedy(reader.decoder, visual, prompts)
        for turns, texts in zip(asked, answers):
            for turn, ids in zip(turns, texts):
                score.add(turn, words.decode(ids))
    return score


@dataclass(frozen=True)
class Plan:
    """What a training process must know."""

    views: Path
    held_out: Path
    tokenizer: Path
    out: Path
    tag: str
    steps: int
    batch: int
    rate: float
    warm_up: int
    compile: bool
    processes: int


def make_optimizer(reader: Reader, rate: float) -> torch.optim.AdamW:
    """The projector, which knows its work already, learns more slowly."""
    groups = [
        {"params": list(reader.decoder.parameters()), "share": 1.0},
        {"params": list(reader.projector.parameters()), "share": 0.3},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), weight_decay=0.02, fused=True)


def train(rank: int, plan: Plan, reader: Reader, counter: Tensor) -> None:
    """One of the processes that share the weights and the count of steps; the first one keeps the books.

    The processes do not wait for one another: each updates the shared weights when it has a gradient.
    """
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // plan.processes))
    words = Words.load(plan.tokenizer)
    targets, packer = blurred_targets(words), Packer(words)
    optimizer, average = make_optimizer(reader, plan.rate), Average(reader)
    parts = {"reader": reader, "average": average.module, "optimizer": optimizer}
    if checkpoint_exists(plan.out):
        load(plan.out, parts)
    forward = torch.compile(reader, dynamic=False) if plan.compile else reader
    views = ViewShards(plan.views, (plan.tag, "shape", "color"))
    names = [words.words(SHAPES), words.words(COLORS)]
    held = ViewShards(plan.held_out, (plan.tag,))
    step, pace, seen = int(counter), Pace(int(counter)), Mean()
    shown, saved = step, step
    for features, classes, texts in batches(views, packer, plan.batch, 2 * step + rank, plan.tag):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, plan.steps, plan.rate, plan.warm_up) * group["share"]
        with torch.autocast("cpu", torch.bfloat16):
            hidden = forward(features, [ids for ids, _ in texts])
            loss = answer_loss(reader, hidden, texts, targets)
        whole = loss + NAMING * naming_loss(reader, features, classes, names)
        optimizer.zero_grad()
        whole.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        counter += 1
        step = int(counter)
        seen.add(loss.item())
        done = step >= plan.steps
        if rank == 0:
            average.update(step)
            if step - shown >= 100:
                rate = pace.per_second(step) * plan.batch
                print(f"{step} loss {seen.take():.4f} | {rate:.0f} pictures/s {time.strftime('%H:%M')}", flush=True)
                shown = step
            if step - saved >= 500 or done:
                save(plan.out, parts, step)
                score = held_out_score(average.module, held, words, plan.tag)
                print("held-out", score.line(), flush=True)
                saved = step
        if done:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=Path, required=True, help="views with features")
    parser.add_argument("--held-out", type=Path, required=True, help="held-out views with features")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--tower", type=Path, required=True, help="checkpoint of the first step")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write, and to go on from")
    parser.add_argument("--tag", default="features", help="name of the features' arrays")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=16, help="pictures a step")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--warm-up", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2, help="share the weights; two cores are best used by two")
    parser.add_argument("--compile", action="store_true", help="compile the decoder; needs a C++ compiler")
    args = parser.parse_args()
    torch.manual_seed(0)
    words = Words.load(args.tokenizer)
    reader, first = Reader(words), 0
    start_from_tower(reader, args.tower, words)
    views = ViewShards(args.views, (args.tag,))
    begin_by_comparing(reader, words, torch.from_numpy(views.rows(args.tag, np.arange(50))))
    if checkpoint_exists(args.out):
        first = load(args.out, {"reader": reader})
    options = {key: value for key, value in vars(args).items() if key != "tower"}
    counter = torch.tensor(first).share_memory_()
    torch.multiprocessing.spawn(train, (Plan(**options), reader.share_memory(), counter), args.processes)


if __name__ == "__main__":
    main()

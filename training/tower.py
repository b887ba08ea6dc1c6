"""First step of training: tower and projector learn what every patch shows, in the words' own embeddings.

The score of a word on a patch is the product of the visual token and the word's embedding row, the row that the
decoder starts from; coordinates are scored likewise, after one linear map for each of the four. So the decoder
later finds in a patch what it knows as words. `python -m training.tower --help`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training.network import WIDTH, Eyes, initial_embeddings
from training.progress import Pace, checkpoint_exists, learning_rate, load, save
from training.scenes import COLORS, SHAPES
from training.truth import iou
from training.views import ARRAYS, ViewShards
from training.vocabulary import Words

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class DenseHeads(nn.Module):
    """Scores of words and coordinates on every patch."""

    def __init__(self, words: Words) -> None:
        super().__init__()
        rows = initial_embeddings(words)
        self.shape_rows = nn.Parameter(rows[words.words(SHAPES)])
        self.color_rows = nn.Parameter(rows[words.words(COLORS)])
        self.object_row = nn.Parameter(rows[words.words(("object",))])
        self.number_rows = nn.Parameter(rows[words.numbers(True)])
        self.roles = nn.Parameter(torch.stack([torch.randn(WIDTH, WIDTH) / WIDTH**0.5 for _ in range(4)]))
        self.none = nn.Parameter(torch.zeros(3))
        self.scale = nn.Parameter(torch.full((4,), 2.0))

    def words(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, 144, 1 + shapes], [B, 144, 1 + colours], [B, 144] of centres."""
        return (
            self._with_none(tokens @ self.shape_rows.T * self.scale[0].exp(), 0),
            self._with_none(tokens @ self.color_rows.T * self.scale[1].exp(), 1),
            (tokens @ self.object_row.T * self.scale[2].exp()).squeeze(-1) + self.none[2] - 4.0,
        )

    def _with_none(self, scores: Tensor, row: int) -> Tensor:
        none = self.none[row].expand(scores.shape[:-1]).unsqueeze(-1)
        return torch.cat([none, scores], dim=-1)

    def boxes(self, tokens: Tensor) -> Tensor:
        """[N, width] tokens of things to [N, 4, 101] scores of coordinates."""
        turned = torch.einsum("nw,kvw->nkv", tokens, self.roles)
        return turned @ self.number_rows.T * self.scale[3].exp()


def soft_bins(values: Tensor, width: float = 1.2) -> Tensor:
    """Shares in [0, 1] as blurred distributions over the 101 two-decimal numbers."""
    distance = values.unsqueeze(-1) * 100.0 - torch.arange(101.0)
    return torch.softmax(-0.5 * (distance / width) ** 2, dim=-1)


def losses(heads: DenseHeads, tokens: Tensor, batch: Batch) -> dict[str, Tensor]:
    """The terms of the loss of a batch."""
    _, shape, color, box, center = batch
    shapes, colors, centers = heads.words(tokens)
    things = shape > 0
    log_bins = torch.log_softmax(heads.boxes(tokens[things]), dim=-1)
    return {
        "shape": F.cross_entropy(shapes.flatten(0, 1), shape.flatten(), ignore_index=-1),
        "color": F.cross_entropy(colors.flatten(0, 1), color.flatten(), ignore_index=-1),
        "center": F.binary_cross_entropy_with_logits(centers, center, pos_weight=torch.tensor(4.0)),
        "box": -(soft_bins(box[things]) * log_bins).sum(-1).mean(),
    }


@torch.no_grad()
def accuracies(heads: DenseHeads, tokens: Tensor, batch: Batch) -> dict[str, float]:
    """How often the patches of things are read rightly."""
    _, shape, color, box, _ = batch
    shapes, colors, _ = heads.words(tokens)
    things, empty = shape > 0, shape == 0
    expected = (heads.boxes(tokens[things]).softmax(-1) * torch.arange(101.0)).sum(-1) / 100.0
    pairs = zip(expected.tolist(), box[things].tolist())
    overlaps = np.array([iou(tuple(seen), tuple(true)) for seen, true in pairs])
    return {
        "shape": float((shapes.argmax(-1) == shape)[things].float().mean()),
        "color": float((colors.argmax(-1) == color)[things].float().mean()),
        "empty": float((shapes.argmax(-1) == 0)[empty].float().mean()),
        "box@.5": float((overlaps >= 0.5).mean()),
        "box@.75": float((overlaps >= 0.75).mean()),
    }


def batches(views: ViewShards, size: int, seed: int) -> Iterator[Batch]:
    """Endless shuffled batches."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(views))
        for start in range(0, len(order) - size + 1, size):
            yield take(views, order[start : start + size])


def take(views: ViewShards, numbers: NDArray[np.int64]) -> Batch:
    """These views as tensors."""
    pixels, shape, color, box, center = (torch.from_numpy(views.rows(name, numbers)) for name in ARRAYS)
    return pixels, shape.long(), color.long(), box.float(), center.float()


def evaluate(eyes: Eyes, heads: DenseHeads, batch: Batch) -> dict[str, float]:
    eyes.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        tokens = torch.cat([eyes(part) for part in batch[0].split(64)])
    eyes.train()
    return accuracies(heads, tokens.float(), batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=Path, required=True, help="views to train on")
    parser.add_argument("--held-out", type=Path, required=True, help="plain views of held-out scenes")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write, and to go on from")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="compile the tower; needs a C++ compiler")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    eyes, heads = Eyes(), DenseHeads(Words.load(args.tokenizer))
    decay = [p for p in eyes.parameters() if p.ndim > 1]
    plain = [p for p in [*eyes.parameters(), *heads.parameters()] if not any(p is q for q in decay)]
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.rate, betas=(0.9, 0.98), fused=True)
    parts = {"eyes": eyes, "heads": heads, "optimizer": optimizer}
    first = load(args.out, parts) if checkpoint_exists(args.out) else 0
    forward = torch.compile(eyes) if args.compile else eyes
    held, pace = take(ViewShards(args.held_out), np.arange(256)), Pace(first)
    for step, batch in zip(range(first, args.steps), batches(ViewShards(args.views), args.batch, first)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.rate, 300)
        with torch.autocast("cpu", torch.bfloat16):
            tokens = forward(batch[0])
        terms = losses(heads, tokens.float(), batch)
        loss = terms["shape"] + terms["color"] + 0.5 * terms["center"] + 0.5 * terms["box"]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*eyes.parameters(), *heads.parameters()], 1.0)
        optimizer.step()
        if (step + 1) % 50 == 0:
            shown = " ".join(f"{name} {term.item():.3f}" for name, term in terms.items())
            print(f"{step + 1} {shown} | {pace.per_second(step + 1) * args.batch:.0f} pictures/s", flush=True)
        if (step + 1) % 250 == 0 or step + 1 == args.steps:
            save(args.out, parts, step + 1)
            seen = evaluate(eyes, heads, held)
            print("held-out", " ".join(f"{name} {value:.3f}" for name, value in seen.items()), time.strftime("%H:%M"), flush=True)


if __name__ == "__main__":
    main()

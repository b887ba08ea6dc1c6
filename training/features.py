"""Runs the trained tower over written views once, so that the decoder can be trained without it.

`python -m training.features --views DIR --tower tower.pt`: each view shard gets a `features.npy` [N, 144, width].
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch

from training.network import Eyes
from training.progress import load


def write(shard: Path, eyes: torch.nn.Module, tag: str) -> None:
    """The features of one shard, unless they are there."""
    done = shard / f"{tag}.npy"
    if done.exists():
        return
    pixels = np.load(shard / "pixels.npy", mmap_mode="r")
    parts = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(pixels), 50):
            parts.append(eyes(torch.from_numpy(pixels[start : start + 50].copy())).half().numpy())
    np.save(shard / "features.part.npy", np.concatenate(parts))
    os.replace(shard / "features.part.npy", done)


class _Features(torch.nn.Module):
    def __init__(self, eyes: Eyes) -> None:
        super().__init__()
        self.eyes = eyes

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.eyes.features(pixels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=Path, required=True, nargs="+", help="folders of view shards")
    parser.add_argument("--tower", type=Path, required=True, help="checkpoint with the tower")
    parser.add_argument("--tag", default="features", help="name of the written arrays")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="compile the tower; needs a C++ compiler")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    eyes = Eyes()
    load(args.tower, {"eyes": eyes})
    module: torch.nn.Module = _Features(eyes).eval()
    run = torch.compile(module) if args.compile else module
    shards = sorted(shard.parent for folder in args.views for shard in folder.glob("shard*/truth.jsonl"))
    for number, shard in enumerate(shards, 1):
        write(shard, run, args.tag)
        print(f"{number}/{len(shards)} shards", flush=True)


if __name__ == "__main__":
    main()

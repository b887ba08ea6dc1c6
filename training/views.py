"""Writes augmented views of the rendered scenes, with their dense truth, for the trainings to read.

`python -m training.views --scenes DIR --out DIR --count N`; one shard a job, interrupted it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data import Dense, Shards, View, augmented, dense, letterbox
from training.truth import Sight

SHARD = 1000
ARRAYS = ("pixels", "shape", "color", "box", "center")


def write_shard(scenes: Path, out: Path, number: int, count: int, augment: bool) -> None:
    """One shard: view i shows a scene drawn at random, or scene i as it is."""
    folder = out / f"shard{number:04d}"
    if (folder / "truth.jsonl").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    shards, rng = Shards(scenes), np.random.default_rng((number, 7))
    chosen = rng.integers(len(shards), size=count) if augment else number * SHARD + np.arange(count)
    views = [augmented(shards.scene(int(i)), rng) if augment else shards.scene(int(i)) for i in chosen]
    for name, array in zip(ARRAYS, _arrays(views)):
        np.save(folder / f"{name}.npy", array)
    (folder / "truth.part").write_text("".join(json.dumps(view.sight.to_json()) + "\n" for view in views))
    os.replace(folder / "truth.part", folder / "truth.jsonl")


def _arrays(views: list[View]) -> tuple[NDArray[np.generic], ...]:
    truths: list[Dense] = [dense(view) for view in views]
    return (
        np.stack([letterbox(view.pixels) for view in views]),
        np.stack([truth.shape for truth in truths]).astype(np.int8),
        np.stack([truth.color for truth in truths]).astype(np.int8),
        np.stack([truth.box for truth in truths]).astype(np.float16),
        np.stack([truth.center for truth in truths]).astype(np.int8),
    )


class ViewShards:
    """All views of a folder whose shards have the named arrays: these, and what is in each view."""

    def __init__(self, folder: Path, names: tuple[str, ...] = ARRAYS) -> None:
        self.parts: dict[str, list[NDArray[np.generic]]] = {name: [] for name in names}
        self.sights: list[Sight] = []
        self._starts = [0]
        for truth in sorted(folder.glob("shard*/truth.jsonl")):
            if not all(truth.with_name(f"{name}.npy").exists() for name in names):
                continue
            self.sights += [Sight.from_json(json.loads(line)) for line in truth.read_text().splitlines()]
            for name in names:
                self.parts[name].append(np.load(truth.with_name(f"{name}.npy"), mmap_mode="r"))
            self._starts.append(len(self.sights))

    def __len__(self) -> int:
        return len(self.sights)

    def rows(self, name: str, numbers: NDArray[np.int64]) -> NDArray[np.generic]:
        """Rows of an array, in the order asked."""
        shards = np.searchsorted(self._starts, numbers, side="right") - 1
        return np.stack([self.parts[name][s][n - self._starts[s]] for s, n in zip(shards, numbers)])


def _job(job: tuple[Path, Path, int, int, bool]) -> int:
    write_shard(*job)
    return job[3]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, required=True, help="rendered shards")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=80_000)
    parser.add_argument("--plain", action="store_true", help="every scene once, as it is (for held-out scenes)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    count = len(Shards(args.scenes)) if args.plain else args.count
    jobs = [
        (args.scenes, args.out, number, min(SHARD, count - number * SHARD), not args.plain)
        for number in range(-(-count // SHARD))
    ]
    done = 0
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        for written in pool.imap_unordered(_job, jobs):
            done += written
            print(f"{done}/{count} views", flush=True)


if __name__ == "__main__":
    main()

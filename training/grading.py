"""Is an answer right? And how a set of answers adds up. Pure Python."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from training.questions import Turn, parse_box
from training.truth import iou


def overlap(turn: Turn, text: str) -> float:
    """The IoU of the answered box; 0 for a malformed one."""
    seen = parse_box(text)
    return iou(seen, turn.box) if seen is not None and turn.box is not None else 0.0


def right(turn: Turn, text: str) -> bool:
    """A box is right from IoU 0.5 on, words where they are the same but for case and the last stop."""
    if turn.box is not None and turn.kind == "ground":
        return overlap(turn, text) >= 0.5
    return text.strip().lower().rstrip(".") == turn.answer.lower().rstrip(".")


@dataclass
class Score:
    """Counts by kind of question."""

    asked: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    good: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    overlaps: list[float] = field(default_factory=list)

    def add(self, turn: Turn, text: str) -> None:
        self.asked[turn.kind] += 1
        self.good[turn.kind] += right(turn, text)
        if turn.kind == "ground":
            self.overlaps.append(overlap(turn, text))

    def share(self, kind: str) -> float:
        return self.good[kind] / max(self.asked[kind], 1)

    @property
    def mean_iou(self) -> float:
        return sum(self.overlaps) / max(len(self.overlaps), 1)

    def line(self) -> str:
        shares = " ".join(f"{kind} {self.share(kind):.3f}" for kind in sorted(self.asked))
        return f"{shares} mean_iou {self.mean_iou:.3f}"

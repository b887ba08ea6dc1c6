"""The nano model's card: what it is, what it was measured to do, and what it is not. Text only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from training.grading import Score
from training.questions import KINDS
from training.scenes import COLORS, SHAPES

RUNS = (("first wording", True, False), ("any wording", False, False), ("swapped pictures", True, True))
"""Name, whether the first wording is used, whether the pictures are those of other scenes."""
_MEANING = {
    "color": "colour of a shape",
    "shape": "shape of a colour",
    "count": "half of all things, else of a colour or of a shape, zero among them",
    "exists": "yes or no, about half absent, mostly near misses",
    "check": "yes or no: is the mug red?",
    "choice": "which of 2 to 5 labels fits",
    "ground": "expression to box, IoU at least 0.5",
    "region": "box to expression, exact",
    "describe": "all things of the scene, exact, left to right",
}


@dataclass(frozen=True)
class Results:
    """What an evaluation found."""

    scores: dict[str, Score]
    scenes: int
    seeds: tuple[int, int]
    parameters: int
    megabytes: float
    agreed: bool
    machine: str
    training: str

    def to_json(self) -> dict[str, Any]:
        shares = {
            name: {
                **{kind: round(score.share(kind), 4) for kind in KINDS},
                "mean_iou": round(score.mean_iou, 4),
                "asked": dict(score.asked),
            }
            for name, score in self.scores.items()
        }
        return {"scenes": self.scenes, "seeds": list(self.seeds), "runs": shares, "machine": self.machine}


def card(results: Results) -> str:
    """The text of models/nano/README.md."""
    agreed = "gives the same text" if results.agreed else "DIFFERS"
    return f"""# nano MobileVLM: a small model for simulated tabletops

For this package's demo and tests. It has MobileVLM V2's architecture and checkpoint layout (CLIP tower, LDPv2 projector,
Llama) and knows one thing: pictures of tabletops with one to five things on them. It is not MobileVLM-1.7B, and on
photographs of anything else its answers mean nothing.

- {results.parameters / 1e6:.2f} million parameters; {results.megabytes:.1f} MB as float16 in `checkpoint/`.
- 168 x 168 pixels in patches of 14, 144 visual tokens; own SentencePiece vocabulary of 768 pieces, one for each
  two-decimal number. The tower's last layer is never used by MobileVLM; here it holds zeros.
- Shapes: {", ".join(SHAPES)}. Colours: {", ".join(COLORS)}.
- Boxes are x1, y1, x2, y2 as shares of the padded square. `phrasings.json` has the wordings to use for each task.
- An expression that fits several things, or none, has no defined box. The package's tasks ask for presence first and look for
  several things one after the other; `grounding.md` says how well that goes and how far the scores can be trusted.

## Measured

{results.scenes} held-out scenes, seeds {results.seeds[0]} to {results.seeds[1]}; greedy, float32, each question as a first one.
Swapped pictures: the same questions about the picture of another scene, which is what can be had without looking.
The first 256 of the scenes were also used to watch the training; none was trained on.

{_table(results)}

Mean IoU of the boxes: {", ".join(f"{name} {score.mean_iou:.3f}" for name, score in results.scores.items())}.
On a sample, answering one prompt at a time with the package's PyTorch model {agreed}.
Machine: {results.machine}. {results.training}

`training/README.md` says how to make it again from nothing.
"""


def _table(results: Results) -> str:
    names = [name for name, _, _ in RUNS]
    lines = [f"| kind | asked | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    for kind in KINDS:
        shares = " | ".join(f"{100 * results.scores[name].share(kind):.1f}%" for name in names)
        asked = results.scores[names[0]].asked[kind]
        lines.append(f"| {kind}: {_MEANING[kind]} | {asked} | {shares} |")
    return "\n".join(lines)

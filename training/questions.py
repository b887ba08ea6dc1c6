"""Questions about a picture whose truth is known, with their answers. Pure Python; no model, no renderer."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from random import Random

from training import wording
from training.scenes import COLORS, SHAPES
from training.truth import Box, Sight, Thing, squared

KINDS = ("color", "shape", "count", "exists", "check", "choice", "ground", "region", "describe")
WEIGHTS = {
    "color": 2.5,
    "shape": 2.5,
    "count": 2.0,
    "exists": 3.5,
    "check": 1.0,
    "choice": 0.7,
    "ground": 5.5,
    "region": 2.0,
    "describe": 1.0,
}
"""How often each kind is asked in training."""

_BOX = re.compile(r"\[\s*([\d.]+),\s*([\d.]+),\s*([\d.]+),\s*([\d.]+)\s*\]")


@dataclass(frozen=True)
class Turn:
    """A question and its right answer; `box` where the answer is a box."""

    kind: str
    question: str
    answer: str
    box: Box | None = None


def format_box(box: Box) -> str:
    """A box of shares of the padded square as the model writes it."""
    return "[" + ", ".join(f"{min(max(value, 0.0), 1.0):.2f}" for value in box) + "]"


def parse_box(text: str) -> Box | None:
    """The first box in a text; None where there is none or its numbers are out of order."""
    found = _BOX.search(text)
    if found is None:
        return None
    try:
        x1, y1, x2, y2 = (float(value) for value in found.groups())
    except ValueError:
        return None
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


class Asker:
    """Asks about one picture; `plain` keeps to the first wording of each kind."""

    def __init__(self, sight: Sight, rng: Random, plain: bool = False) -> None:
        self.sight, self.rng, self.plain = sight, rng, plain
        self.shapes = Counter(thing.shape for thing in sight.things)
        self.colors = Counter(thing.color for thing in sight.things)
        self.names = Counter(thing.name for thing in sight.things)

    def ask(self, kind: str) -> Turn | None:
        """A question of a kind; None where the picture allows none."""
        turn: Turn | None = getattr(self, f"_ask_{kind}")()
        if turn is None or self.plain:
            return turn
        question = turn.question
        if self.rng.random() < 0.4:
            question = wording.british(question)
        if self.rng.random() < 0.12:
            question = wording.casual(question)
        return Turn(turn.kind, question, turn.answer, turn.box)

    def ask_many(self, count: int) -> list[Turn]:
        """Different questions of mixed kinds."""
        turns: dict[str, Turn] = {}
        for _ in range(6 * count):
            if len(turns) == count:
                break
            kind = self.rng.choices(KINDS, [WEIGHTS[kind] for kind in KINDS])[0]
            turn = self.ask(kind)
            if turn is not None:
                turns.setdefault(turn.question, turn)
        return list(turns.values())

    def _word(self, wordings: tuple[str, ...], first: float = 0.3) -> str:
        if self.plain or self.rng.random() < first:
            return wordings[0]
        return self.rng.choice(wordings)

    def _ask_color(self) -> Turn | None:
        once = [thing for thing in self.sight.things if self.shapes[thing.shape] == 1]
        if not once:
            return None
        thing = self.rng.choice(once)
        question = self._word(wording.COLOR).format(shape=thing.shape)
        return Turn("color", question, thing.color.capitalize())

    def _ask_shape(self) -> Turn | None:
        once = [thing for thing in self.sight.things if self.colors[thing.color] == 1]
        if not once:
            return None
        thing = self.rng.choice(once)
        question = self._word(wording.SHAPE).format(color=thing.color)
        return Turn("shape", question, thing.shape.capitalize())

    def _ask_count(self) -> Turn:
        if self.rng.random() < 0.5:
            return Turn("count", self._word(wording.COUNT_ALL), str(len(self.sight.things)))
        seen = self.rng.random() < 0.75
        if self.rng.random() < 0.5:
            color = self.rng.choice(list(self.colors) if seen else COLORS)
            noun, answer = f"{color} {self.rng.choice(('objects', 'objects', 'things'))}", self.colors[color]
        else:
            shape = self.rng.choice(list(self.shapes) if seen else SHAPES)
            noun, answer = wording.plural(shape), self.shapes[shape]
        return Turn("count", self._word(wording.COUNT_SOME).format(plural=noun), str(answer))

    def _ask_exists(self) -> Turn:
        color, shape = self._present() if self.rng.random() < 0.5 else self.absent()
        kind = self.rng.random()
        if kind < 0.15:
            present, noun = self.shapes[shape] > 0, shape
        elif kind < 0.3:
            present, noun = self.colors[color] > 0, f"{color} {self.rng.choice(wording.ANYTHING)}"
        else:
            present, noun = self.names[f"{color} {shape}"] > 0, f"{color} {shape}"
        words = self._word(wording.PRESENCE, first=0.45)
        expression = wording.article(noun) if self.plain or self.rng.random() < 0.55 else self._vary(noun)
        return Turn("exists", words.format(expression=expression), "Yes" if present else "No")

    def _present(self) -> tuple[str, str]:
        thing = self.rng.choice(self.sight.things)
        return thing.color, thing.shape

    def absent(self) -> tuple[str, str]:
        """A colour and shape that are not there together, mostly with one or both of them there apart."""
        for _ in range(50):
            color = self.rng.choice(list(self.colors) if self.rng.random() < 0.6 else COLORS)
            shape = self.rng.choice(list(self.shapes) if self.rng.random() < 0.6 else SHAPES)
            if f"{color} {shape}" not in self.names:
                return color, shape
        raise ValueError("every colour of every shape is on the table")

    def _ask_check(self) -> Turn | None:
        once = [t for t in self.sight.things if self.shapes[t.shape] == 1 and self.colors[t.color] == 1]
        if not once:
            return None
        thing, right = self.rng.choice(once), self.rng.random() < 0.5
        color, shape = thing.color, thing.shape
        if self.rng.random() < 0.5:
            color = color if right else self._other(color, list(self.colors), COLORS)
            question = self._word(wording.CHECK_COLOR).format(shape=shape, color=color)
        else:
            shape = shape if right else self._other(shape, list(self.shapes), SHAPES)
            question = self._word(wording.CHECK_SHAPE).format(shape=shape, color=color)
        return Turn("check", question.replace(" a o", " an o"), "Yes" if right else "No")

    def _other(self, this: str, seen: list[str], everything: tuple[str, ...]) -> str:
        near = [word for word in seen if word != this]
        pool = near if near and self.rng.random() < 0.7 else [word for word in everything if word != this]
        return self.rng.choice(pool)

    def _ask_choice(self) -> Turn | None:
        """One label of several fits the picture: a shape, a colour, or both."""
        kind = self.rng.randrange(3)
        seen: list[str] = list((self.shapes, self.colors, self.names)[kind])
        pool = (SHAPES, COLORS, [f"{color} {shape}" for color in COLORS for shape in SHAPES])[kind]
        absent = [label for label in pool if label not in seen]
        answer = self.rng.choice(seen)
        labels = [answer, *self.rng.sample(absent, min(self.rng.randint(1, 4), len(absent)))]
        self.rng.shuffle(labels)
        form = wording.article if kind != 1 and self.rng.random() < 0.4 else str
        question = self._word(wording.CHOICE).format(labels=", ".join(form(label) for label in labels))
        return Turn("choice", question, form(answer).capitalize())

    def expressions(self, thing: Thing) -> list[str]:
        """What names this thing and no other."""
        names = [thing.name] if self.names[thing.name] == 1 else []
        if self.shapes[thing.shape] == 1:
            names.append(thing.shape)
        if self.colors[thing.color] == 1:
            names.append(f"{thing.color} {self.rng.choice(wording.ANYTHING)}")
        return names

    def _vary(self, noun: str) -> str:
        form = self.rng.random()
        if form < 0.5:
            return f"the {noun}"
        if form < 0.75:
            return wording.article(noun)
        return noun if form < 0.95 else f"The {noun}"

    def _ask_ground(self) -> Turn | None:
        clear = [(thing, names) for thing in self.sight.things if (names := self.expressions(thing))]
        if not clear:
            return None
        thing, names = self.rng.choice(clear)
        noun = names[0] if self.plain or self.rng.random() < 0.5 else self.rng.choice(names)
        expression = f"the {noun}" if self.plain else self._vary(noun)
        box = squared(thing.box, self.sight.width, self.sight.height)
        return Turn("ground", self._word(wording.GROUND, 0.5).format(expression=expression), format_box(box), box)

    def _ask_region(self) -> Turn:
        thing = self.rng.choice(self.sight.things)
        box = squared(thing.box, self.sight.width, self.sight.height)
        if not self.plain:
            slack = 0.06 * min(box[2] - box[0], box[3] - box[1])
            x1, y1, x2, y2 = (value + self.rng.uniform(-slack, slack) for value in box)
            box = (x1, y1, x2, y2)
        question = self._word(wording.REGION, 0.5).format(box=format_box(box))
        return Turn("region", question, wording.article(thing.name))

    def _ask_describe(self) -> Turn:
        ordered = sorted(self.sight.things, key=lambda thing: thing.box[0] + thing.box[2])
        names = [wording.article(thing.name) for thing in ordered]
        listed = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
        return Turn("describe", self._word(wording.DESCRIBE), f"There is {listed}.")

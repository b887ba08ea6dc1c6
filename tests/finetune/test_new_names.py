"""The nano model learns made-up names for what it knows by others, from pictures to the package that a robot runs."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from mobilevlm_ros.cli import main
from mobilevlm_ros.models import shipped_package
from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.tokenizer import Tokenizer
from tests.conftest import DATA
from training.new_names import KIND, NAMES, Asked, measure, measuring, naming, training_items
from training.questions import KINDS
from training.scenes import SHAPES
from training.truth import Sight, Thing

CHECKPOINT = shipped_package().parent / "checkpoint"
TAUGHT = CHECKPOINT.parent / "calibration"  # 64 of the pictures that the model was trained on
TRUTH = DATA / "new_names" / "taught.json"
HELD_OUT = DATA / "tabletops"
FIGURES = {"batch": 4, "micro-batch": 4, "steps": 160, "learning-rate": 3e-3, "dropout": 0, "rank": 32, "alpha": 64, "threads": 1}
RECIPE = [word for name, value in FIGURES.items() for word in (f"--{name}", str(value))]
SIGHT = Sight(0, 100, 100, tuple(Thing(s, c, (0, 0, 9, 9)) for s, c in (("ball", "red"), ("mug", "blue"), ("cone", "blue"))))


def test_there_is_a_name_for_every_shape_and_the_model_can_spell_it() -> None:
    tokenizer = Tokenizer(CHECKPOINT / "tokenizer.model")
    assert tuple(NAMES) == SHAPES
    assert len(set(NAMES.values())) == len(SHAPES)
    assert all(tokenizer.decode(tokenizer.encode(name)) == name for name in NAMES.values())


def test_only_things_that_their_colour_tells_apart_are_asked_for() -> None:
    assert [(turn.question, turn.answer) for turn in naming(SIGHT, Random(0), plain=True)] == [
        ("What is the red thing called?", "A zorb")
    ]


def test_training_pictures_have_the_new_names_and_old_questions_in_llavas_format() -> None:
    (record,) = training_items([("a.png", SIGHT)], old=3, seed=0)
    assert record["image"] == "a.png"
    senders = [message["from"] for message in record["conversations"]]
    texts = [message["value"] for message in record["conversations"]]
    assert senders == ["human", "gpt"] * 4
    assert [text.startswith("<image>\n") for text in texts] == [True] + [False] * 7
    assert "A zorb" in texts
    assert training_items([("a.png", SIGHT)], old=3, seed=0) == [record]


def test_measuring_asks_the_new_names_and_every_old_kind() -> None:
    kinds = {one.turn.kind for one in measuring([("a.png", SIGHT)], seed=0)}
    assert kinds <= {KIND, *KINDS}
    assert {KIND, "color", "count", "exists", "ground"} <= kinds


def share(package: Path, held: list[tuple[str, Sight]]) -> float:
    """How many of the new names a package says rightly."""
    asked = [Asked(image, turn) for image, sight in held for turn in naming(sight, Random(0), plain=True)]
    with Engine.open(package, EngineConfig(threads=1)) as engine:
        return measure(engine, asked, HELD_OUT).share(KIND)


@pytest.mark.timeout(300)
def test_the_nano_model_learns_new_names_that_it_says_of_pictures_never_seen(tmp_path: Path) -> None:
    taught = [(one["image"], Sight.from_json(one["sight"])) for one in json.loads(TRUTH.read_text())]
    held = [(one["image"], Sight.from_json(one)) for one in map(json.loads, (HELD_OUT / "truth.jsonl").read_text().splitlines())]
    assert not {sight.seed for _, sight in taught} & {sight.seed for _, sight in held}
    (tmp_path / "data.json").write_text(json.dumps(training_items(taught, old=0, seed=0)))
    adapter, package = tmp_path / "adapter", tmp_path / "package"
    command = ["finetune", CHECKPOINT, tmp_path / "data.json", "--images", TAUGHT, "--out", adapter, *RECIPE]
    assert main([str(word) for word in command]) == 0
    assert main(["convert", str(CHECKPOINT), str(package), "--lora", str(adapter), "--no-verify"]) == 0
    assert share(shipped_package(), held) == 0
    assert share(package, held) >= 0.35  # guessing gives a seventh

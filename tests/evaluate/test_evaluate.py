"""`mobilevlm eval` from the files to the report, over a model whose answers are known."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilevlm_ros.cli import eval as command
from mobilevlm_ros.evaluate.formats import FORMATS
from mobilevlm_ros.evaluate.formats.coloninst import ColonTask, format_corners
from mobilevlm_ros.runtime.engine import Engine
from mobilevlm_ros.runtime.errors import VlmError
from tests.conftest import PARITY, PackageMaker
from tests.evaluate.helpers import source, write_json, write_lines, write_picture
from tests.evaluate.oracle import Oracle
from tests.evaluate.scenes import Drawn, draw_scenes, voc_corners, write_coloninst

SCENES = 10


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> Oracle:
    """What the command opens instead of a model package."""
    oracle = Oracle()
    monkeypatch.setattr(Engine, "open", lambda package, config, report: oracle.engine(config.rows))
    return oracle


@pytest.fixture
def drawn(tmp_path: Path) -> list[Drawn]:
    return draw_scenes(tmp_path / "images", SCENES)


def evaluate(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_eval_parser(parser.add_subparsers())
    args = parser.parse_args(["eval", *map(str, arguments)])
    return int(args.run(args))


def tell(oracle: Oracle, annotations: Path, images: Path, answers: list[str]) -> None:
    items = FORMATS["coloninst"](source(annotations, images)).items
    for item, answer in zip(items, answers, strict=True):
        oracle.tell(item.image, item.question, answer)


def names(drawn: list[Drawn]) -> list[str]:
    return [one.sight.things[0].name for one in drawn]


@pytest.mark.parametrize("task", [ColonTask.CLS, ColonTask.REG])
def test_scenes_in_coloninsts_format_are_named(task: ColonTask, oracle: Oracle, drawn: list[Drawn], tmp_path: Path) -> None:
    path = write_coloninst(tmp_path / f"test-{task.value}.json", task, drawn)
    answers = [name.upper() for name in names(drawn)]
    answers[:3] = ["nothing", f"{names(drawn)[1]}.", f"a {names(drawn)[2]}"]
    tell(oracle, path, tmp_path / "images", answers)
    evaluate("coloninst", "--annotations", path, "--images", tmp_path / "images", "--out", tmp_path / "out")
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["scores"] == {task.value: {"items": SCENES, "accuracy": pytest.approx(7 / SCENES)}}
    assert result["complete"] is True
    assert len(list((tmp_path / "out" / "misses").iterdir())) == 3


def test_scenes_in_coloninsts_format_are_located(oracle: Oracle, drawn: list[Drawn], tmp_path: Path) -> None:
    path = write_coloninst(tmp_path / "test-rec.json", ColonTask.REC, drawn)
    answers = [format_corners(voc_corners(one.sight.things[0])) for one in drawn]
    x1, y1, x2, y2 = voc_corners(drawn[0].sight.things[0])
    width = x2 - x1 + 1
    answers[0] = format_corners((x1, y1, x1 + width // 2 - 1, y2))  # the left half, rounded down
    answers[1] = answers[1][:-2] + "}"  # the last number is not closed
    answers[2] = "nowhere"
    tell(oracle, path, tmp_path / "images", answers)
    evaluate("coloninst", "--annotations", path, "--images", tmp_path / "images", "--out", tmp_path / "out")
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    # Seven boxes overlap wholly, one by (width // 2) / width, which is not over a half, and two not at all.
    mean_iou = (7 + (width // 2) / width) / SCENES
    assert result["scores"]["rec"] == {"items": SCENES, "mean_iou": pytest.approx(mean_iou), "precision@0.5": 0.7}
    assert result["settings"]["max_tokens"] == 40


def test_a_real_package_gives_the_official_codes_words(parity_package: PackageMaker, tmp_path: Path) -> None:
    golden = json.loads((PARITY / "ldpnetv2" / "golden.json").read_text())
    tokens = np.load(PARITY / "ldpnetv2" / "golden.npz")["tokens"].size
    turns = [{"from": "human", "value": f"<image>\n{golden['question']}"}, {"from": "gpt", "value": "a table"}]
    path = write_json(tmp_path / "cls.json", [{"id": "image.png", "image": "image", "conversations": turns}])
    options = ("--model", parity_package("ldpnetv2"), "--max-tokens", tokens, "--out", tmp_path / "out")
    evaluate("coloninst", "--annotations", path, "--images", PARITY, *options)
    assert json.loads((tmp_path / "out" / "predictions.jsonl").read_text())["text"] == golden["text"]
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["cut_off"] == 1
    assert len(result["model"]["weights_sha256"]) == 64


def test_the_table_is_printed_and_json_on_request(
    oracle: Oracle, drawn: list[Drawn], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_coloninst(tmp_path / "cls.json", ColonTask.CLS, drawn)
    tell(oracle, path, tmp_path / "images", names(drawn))
    arguments = ("coloninst", "--annotations", path, "--images", tmp_path / "images", "--out", tmp_path / "out")
    assert evaluate(*arguments) == 0
    printed = capsys.readouterr().out
    assert "items  accuracy" in printed
    assert "cls     10    1.0000" in printed
    assert "report.md" in printed
    assert evaluate(*arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out)["scores"]["cls"]["accuracy"] == 1


def test_a_limited_run_says_so_and_the_rest_follows(oracle: Oracle, drawn: list[Drawn], tmp_path: Path) -> None:
    path = write_coloninst(tmp_path / "cls.json", ColonTask.CLS, drawn)
    tell(oracle, path, tmp_path / "images", names(drawn))
    arguments = ("coloninst", "--annotations", path, "--images", tmp_path / "images", "--out", tmp_path / "out")
    evaluate(*arguments, "--limit", 4)
    first = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (first["complete"], first["answered"], first["dataset"]["to_ask"]) == (False, 4, 4)
    asked = len(oracle.backend.prefilled)
    evaluate(*arguments, "--batch", 2)
    assert json.loads((tmp_path / "out" / "result.json").read_text())["answered"] == SCENES
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == SCENES  # nothing was asked twice
    assert len(oracle.backend.prefilled) > asked


def test_another_datasets_answers_are_not_mixed_in(oracle: Oracle, drawn: list[Drawn], tmp_path: Path) -> None:
    for task in (ColonTask.CLS, ColonTask.REC):
        write_coloninst(tmp_path / f"{task.value}.json", task, drawn)
    shared = ("--images", tmp_path / "images", "--out", tmp_path / "out")
    evaluate("coloninst", "--annotations", tmp_path / "cls.json", *shared)
    with pytest.raises(VlmError, match=r"another run.*choose another --out"):
        evaluate("coloninst", "--annotations", tmp_path / "rec.json", *shared)


def test_a_missing_picture_is_listed_and_the_rest_scored(
    oracle: Oracle, drawn: list[Drawn], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_coloninst(tmp_path / "cls.json", ColonTask.CLS, drawn)
    tell(oracle, path, tmp_path / "images", names(drawn))
    (tmp_path / "images" / drawn[3].name).unlink()
    evaluate("coloninst", "--annotations", path, "--images", tmp_path / "images", "--out", tmp_path / "out")
    assert "items without an answer: 1;" in capsys.readouterr().err
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["scores"]["cls"] == {"items": SCENES - 1, "accuracy": 1}
    assert [error["id"] for error in result["errors"]] == [f"3:{drawn[3].name}"]
    draw_scenes(tmp_path / "images", SCENES)
    evaluate("coloninst", "--annotations", path, "--images", tmp_path / "images", "--out", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "result.json").read_text())["complete"] is True


def test_a_run_without_one_answer_fails(oracle: Oracle, drawn: list[Drawn], tmp_path: Path) -> None:
    path = write_coloninst(tmp_path / "cls.json", ColonTask.CLS, drawn)
    with pytest.raises(VlmError, match="no item could be answered"):
        evaluate("coloninst", "--annotations", path, "--images", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert (tmp_path / "out" / "report.md").is_file()


def test_referring_expressions_are_grounded_in_the_packages_sentences(oracle: Oracle, tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "1.png", 80, 40)
    lines: list[dict[str, Any]] = [
        {"image": "1.png", "expression": "the red mug", "bbox": [20, 0, 40, 40]},
        {"image": "1.png", "expression": "the blue ball", "bbox": None},
    ]
    presence = "Is there {} in the image? Answer the question using a single word or phrase."
    oracle.tell(picture, presence.format("a red mug"), "yes")
    oracle.tell(picture, presence.format("a blue ball"), "no")
    box = "Please provide the bounding box coordinate of the region this sentence describes: the red mug."
    oracle.tell(picture, box, "[0.25, 0.25, 0.50, 0.75]")
    evaluate("refcoco", "--annotations", write_lines(tmp_path / "a.jsonl", lines), "--out", tmp_path / "out")
    scores = json.loads((tmp_path / "out" / "result.json").read_text())["scores"]
    assert scores["box always"] == {"items": 1, "acc@0.5": 1, "mean_iou": 1, "missed": 0}
    assert scores["absent"] == {"items": 1, "false_positive_rate": 0}
    assert scores["calibration"]["items"] == 1
    assert scores["score 0.9 to 1.0"]["right"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gqa", "--annotations", "q.json", "--out", "out", "--ocr", "o.json"], "--ocr is for textvqa"),
        (["mme", "--annotations", "mme", "--out", "out", "--split", "val"], "--split is for scienceqa and refcoco"),
        (["gqa", "--annotations", "nowhere.json", "--out", "out"], "nowhere.json: cannot be read"),
    ],
)
def test_wishes_that_do_not_fit_are_one_clear_line(arguments: list[str], message: str, oracle: Oracle) -> None:
    with pytest.raises(VlmError) as refused:
        evaluate(*arguments)
    assert message in refused.value.message


@pytest.mark.parametrize("arguments", [["coco", "--annotations", "q"], ["gqa"], ["gqa", "--batch", "0"], ["gqa", "--limit", "0"]])
def test_bad_usage_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        evaluate(*arguments, "--out", "out")
    assert ended.value.code == 2


def test_every_format_that_can_be_read_is_explained_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(command.ANNOTATIONS) == list(FORMATS)
    with pytest.raises(SystemExit):
        evaluate("--help")
    printed = capsys.readouterr().out
    assert all(name in printed for name in FORMATS)
    assert "examples:" in printed

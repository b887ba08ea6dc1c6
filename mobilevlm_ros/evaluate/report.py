"""Writes a result: `result.json` for programs, `report.md` for people, and beside it pictures of the worst misses and the
reliability curve of the scores, where there are some.

What a model or a dataset says is text of others: it is shortened and its Markdown is made harmless.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilevlm_ros.evaluate.calibration import ReliabilityBin
from mobilevlm_ros.evaluate.chart import reliability_chart
from mobilevlm_ros.evaluate.dataset import Answered, Scores
from mobilevlm_ros.evaluate.drawing import annotate
from mobilevlm_ros.evaluate.errors import DatasetError
from mobilevlm_ros.evaluate.pictures import load_picture
from mobilevlm_ros.evaluate.published import PUBLISHED
from mobilevlm_ros.evaluate.result import Result
from mobilevlm_ros.runtime.errors import VlmError

RESULT_NAME = "result.json"
REPORT_NAME = "report.md"
MISSES_NAME = "misses"
CHART_NAME = "reliability.png"
_LONGEST = 160
_ERRORS_SHOWN = 20
_BIN = re.compile(r"score (\d\.\d) to (\d\.\d)")
_MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]|#!"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})


@dataclass(frozen=True)
class Miss:
    """A wrong answer and the picture that shows it, relative to the report."""

    answered: Answered
    picture: Path


def write_report(folder: Path, result: Result, answered: Sequence[Answered], misses: int) -> Path:
    """Write everything into `folder`, which is there, and return the report's path.

    Raises:
        DatasetError: the folder cannot be written.
    """
    report = folder / REPORT_NAME
    try:
        (folder / RESULT_NAME).write_text(result.to_json(), encoding="utf-8")
        drawn = _draw_misses(folder, answered, misses)
        if table := reliability_table(result.scores):
            reliability_chart(table).save(folder / CHART_NAME)
        report.write_text(to_markdown(result, drawn), encoding="utf-8")
    except OSError as error:
        raise DatasetError(f"{folder}: the report cannot be written: {error}") from error
    return report


def worst(answered: Iterable[Answered], count: int) -> list[Answered]:
    """The answers with the lowest grades, of equal ones first those that the model was surest of."""
    wrong = [one for one in answered if one.grade.value < 1]
    return sorted(wrong, key=lambda one: (one.grade.value, -one.prediction.confidence))[:count]


def to_markdown(result: Result, misses: Sequence[Miss] = ()) -> str:
    """The report's text."""
    parts = [f"# {result.benchmark}: {plain(result.model['name'])}", _summary(result), "## Scores"]
    parts += [_table(header, rows) for header, rows in score_tables(result.scores)] or ["There are no answers to score."]
    if reliability_table(result.scores):
        parts += ["Scores and how often they were right; on the grey line they are probabilities.", f"![]({CHART_NAME})"]
    published = PUBLISHED.get(result.benchmark, ())
    if published:
        models = list(published[0].scores)
        rows = [[one.measure, *(f"{one.scores[model]:g}" for model in models)] for one in published]
        parts += ["## Published, to compare", _table(["", *models], rows)]
    parts += ["## How it was measured", _settings_table(result)]
    if result.errors:
        shown = [[plain(one.id), one.code, plain(one.message)] for one in result.errors[:_ERRORS_SHOWN]]
        more = len(result.errors) - len(shown)
        parts += ["## Items without an answer", _table(["item", "error", ""], shown)]
        parts += [f"... and {more} more in {RESULT_NAME}."] if more else []
    if misses:
        parts += ["## Worst misses", "Green are the right boxes, red the answer's.", *map(_miss, misses)]
    return "\n\n".join(parts) + "\n"


def score_tables(scores: Scores) -> list[tuple[list[str], list[list[str]]]]:
    """Header and rows for each run of groups that have the same measures."""
    tables: list[tuple[list[str], list[list[str]]]] = []
    for group, measures in scores.items():
        header = ["", *measures]
        if not tables or tables[-1][0] != header:
            tables.append((header, []))
        tables[-1][1].append([group, *(_number(measure, value) for measure, value in measures.items())])
    return tables


def reliability_table(scores: Scores) -> list[ReliabilityBin]:
    """The reliability table among the groups; empty where there is none."""
    table = []
    for group, measures in scores.items():
        bounds = _BIN.fullmatch(group)
        if bounds:
            low, high = map(float, bounds.groups())
            table.append(ReliabilityBin(low, high, int(measures["items"]), measures["mean_score"], measures["right"]))
    return table


def plain(text: str) -> str:
    """Foreign text on one line, shortened, with nothing in it that Markdown or HTML would heed."""
    line = " ".join(text.split())
    if len(line) > _LONGEST:
        line = line[: _LONGEST - 3] + "..."
    return line.translate(_MARKDOWN)


def _number(measure: str, value: float) -> str:
    if measure == "items":
        return str(int(value))
    return f"{value:.1f}" if measure == "score" else f"{value:.4f}"


def _summary(result: Result) -> str:
    asked = f"{result.answered} of {result.dataset['items']} items answered"
    lines = [f"{asked}, {len(result.errors)} without an answer for an error; only answered items are scored."]
    if not result.complete:
        lines.append("**Not the whole dataset: these are not the benchmark's scores.**")
    if result.cut_off:
        lines.append(f"{result.cut_off} answers reached the longest allowed length and may not be whole.")
    return "\n\n".join([*lines, *(f"Note: {plain(note)}." for note in result.notes)])


def _settings_table(result: Result) -> str:
    facts: dict[str, object] = {f"model {key}": value for key, value in result.model.items()}
    facts |= {f"dataset {key}": value for key, value in result.dataset.items()}
    facts |= dict(result.settings)
    facts |= {"mean milliseconds an item": result.mean_milliseconds, "mean answer tokens": result.mean_answer_tokens}
    return _table(["setting", "value"], [[plain(key.replace("_", " ")), plain(str(value))] for key, value in facts.items()])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _draw_misses(folder: Path, answered: Sequence[Answered], count: int) -> list[Miss]:
    drawn: list[Miss] = []
    (folder / MISSES_NAME).mkdir(exist_ok=True)
    for old in (folder / MISSES_NAME).glob("*.jpg"):
        old.unlink()
    for one in worst(answered, count):
        try:
            frame = load_picture(one.item.image, one.item.fit)
        except VlmError:  # it was there when it was asked; the report does without
            continue
        lines = [_shortened(one.item.question), f"right: {one.grade.expected}", f"answer: {_shortened(one.grade.got)}"]
        picture = Path(MISSES_NAME) / f"{len(drawn) + 1:03d}.jpg"
        annotate(frame, one.grade.right_boxes, one.grade.boxes, lines).save(folder / picture, quality=88)
        drawn.append(Miss(one, picture))
    return drawn


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."


def _miss(miss: Miss) -> str:
    item, grade = miss.answered.item, miss.answered.grade
    facts = (
        f"**{plain(item.id)}** (grade {grade.value:.2f}, confidence {miss.answered.prediction.confidence:.2f}): "
        f"{plain(item.question)} Right: {plain(grade.expected)}. Answer: {plain(grade.got)}."
    )
    return f"{facts}\n\n![]({miss.picture.as_posix()})"

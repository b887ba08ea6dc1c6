"""The file of answers: one JSON object a line, added to as answers come, so that a run can be broken off and taken up again.

The lines carry `question_id`, `prompt` and `text` under the names of LLaVA's answer files, with the rest beside them. Beside the
file stands `run.json`, which says whose answers they are: a folder of another model, dataset or setting is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, astuple
from pathlib import Path
from types import TracebackType
from typing import Any

from mobilevlm_ros.evaluate.dataset import Prediction, ScoredBox
from mobilevlm_ros.evaluate.errors import DatasetError
from mobilevlm_ros.runtime.errors import ErrorCode
from mobilevlm_ros.runtime.geometry import Box

PREDICTIONS_NAME = "predictions.jsonl"
RUN_NAME = "run.json"


def to_line(prediction: Prediction) -> str:
    """A prediction as one line of JSON, without the line's end."""
    record = asdict(prediction) | {
        "boxes": [[*astuple(scored.box), scored.score] for scored in prediction.boxes],
        "forced_box": None if prediction.forced_box is None else astuple(prediction.forced_box),
        "error": prediction.error.name,
    }
    return json.dumps(record, ensure_ascii=False)


def from_line(line: str) -> Prediction:
    """The prediction that `to_line` wrote.

    Raises:
        ValueError: the line is damaged.
    """
    try:
        record: dict[str, Any] = json.loads(line)
        record["boxes"] = tuple(ScoredBox(Box(*numbers[:4]), numbers[4]) for numbers in record["boxes"])
        record["forced_box"] = None if record["forced_box"] is None else Box(*record["forced_box"])
        record["error"] = ErrorCode[record["error"]]
        return Prediction(**record)
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"not a prediction: {error}") from error


class PredictionFile:
    """The answers of one run, in a folder. A context manager; for one thread."""

    def __init__(self, folder: Path, run: Mapping[str, Any]) -> None:
        """Open the folder's answers, or begin them.

        Args:
            run: what must be the same for answers to belong together; JSON values.

        Raises:
            DatasetError: the folder holds another run's answers, a damaged line before the last, or cannot be written.
        """
        self.path = folder / PREDICTIONS_NAME
        self.done: dict[str, Prediction] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _claim(folder / RUN_NAME, run, self.path)
            self._read()
            self._stream = self.path.open("ab", buffering=0)
        except OSError as error:
            raise DatasetError(f"{folder}: cannot be used for results: {error}") from error

    def __enter__(self) -> PredictionFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stream.close()

    def add(self, prediction: Prediction) -> None:
        """Put an answer at the end of the file, in one write of a whole line; a later one of the same id counts.

        Raises:
            DatasetError: the file takes no more.
        """
        line = f"{to_line(prediction)}\n".encode()
        try:
            written = self._stream.write(line)
        except OSError as error:
            raise DatasetError(f"{self.path}: cannot be written: {error}") from error
        if written != len(line):
            raise DatasetError(f"{self.path}: only {written} of {len(line)} bytes could be written; is the disk full?")
        self.done[prediction.id] = prediction

    def answered(self, item_id: str) -> bool:
        """Whether an item has an answer; one that ended in an error is to be asked again."""
        found = self.done.get(item_id)
        return found is not None and found.error is ErrorCode.NONE

    def _read(self) -> None:
        if not self.path.is_file():
            return
        content = self.path.read_bytes()
        whole, _, broken = content.rpartition(b"\n")
        for number, line in enumerate(whole.split(b"\n") if whole else (), 1):
            try:
                prediction = from_line(line.decode())
            except ValueError as error:
                raise DatasetError(f"{self.path}, line {number}: {error}") from error
            self.done[prediction.id] = prediction
        if broken:  # the run was killed while it wrote; the item is asked again
            os.truncate(self.path, len(content) - len(broken))


def _claim(path: Path, run: Mapping[str, Any], predictions: Path) -> None:
    if path.is_file():
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DatasetError(f"{path}: damaged: {error}") from error
        changed = [f"{key} {earlier.get(key)!r}, now {value!r}" for key, value in run.items() if earlier.get(key) != value]
        if changed:
            raise DatasetError(f"{path.parent} holds the answers of another run ({'; '.join(changed)}): choose another --out")
    elif predictions.is_file():
        raise DatasetError(f"{predictions} stands there without its {RUN_NAME}: choose another --out")
    else:
        path.write_text(json.dumps(dict(run), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

"""The files in which referring expressions are published, all read to the same items.

- Lines (`.jsonl`, as of Shikra and Qwen-VL): an object each with the expression (`expression`, `sent` or `caption`), the picture
  (`img_path`, `image` or `file_name`) and `bbox`, x1, y1, x2, y2 in pixels. `"absent": true` or a `bbox` of null marks a thing
  that the picture does not show. `bboxes`, any number of boxes, stands in place of `bbox` for an expression in the plural.
- LLaVA conversations (a `.json` list or lines): turns that ask for a box in LLaVA's sentence, answered `[x1, y1, x2, y2]` in 0 to
  1 of the padded square.
- MDETR's `finetune_refcoco_*.json`: COCO JSON whose pictures each carry a `caption`.
- The originals: `refs(unc).p`, or the same list as JSON, with COCO's `instances.json` beside it. gRefCOCO's expressions without a
  target (`no_target`) are absent things, and those with several targets have all their boxes. The pickle is read by an
  unpickler that makes nothing but lists, dictionaries, texts and numbers and refuses whatever wants more.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from mobilevlm_ros.evaluate.dataset import Item, Task
from mobilevlm_ros.evaluate.errors import DatasetError
from mobilevlm_ros.evaluate.formats.files import Record, Source, checked, image_below, read_json, read_lines, records
from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.runtime.manifest import BoxFrame, Phrasings
from mobilevlm_ros.tasks.boxes import parse_boxes

_EXPRESSION_KEYS = ("expression", "sent", "caption")
_IMAGE_KEYS = ("img_path", "image", "file_name")
_LLAVA_SENTENCE = re.compile(re.escape(Phrasings().ground).replace(re.escape("{expression}"), "(.+)"))
_DEFAULT_SPLIT = "val"


@dataclass(frozen=True)
class Referring:
    """Referring expressions, and what a reader should know of how they were read."""

    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()


def read_referring(source: Source) -> Referring:
    """Read any of the formats above; which one is seen from the file's name and content."""
    path = source.annotations
    if path.suffix in (".p", ".pkl", ".pickle"):
        return _read_refs(records(_read_plain_pickle(path), str(path)), source)
    if path.suffix == ".jsonl":
        return _read_records(read_lines(path), source)
    content = read_json(path)
    if isinstance(content, dict):
        return _read_captioned(Record(content, str(path)), source)
    listed = records(content, str(path))
    if listed and "sentences" in listed[0].value:
        return _read_refs(listed, source)
    return _read_records(listed, source)


def _read_records(listed: list[Record], source: Source) -> Referring:
    items: list[Item] = []
    for index, record in enumerate(listed):
        if "conversations" in record.value:
            items += _conversation_items(index, record, source)
        else:
            items.append(_plain_item(index, record, source))
    return Referring(checked(items, source.annotations))


def _plain_item(index: int, record: Record, source: Source) -> Item:
    several = tuple(Box(*corners) for corners in record.fours("bboxes")) if "bboxes" in record.value else None
    absent = record.value.get("absent") is True or ("bbox" in record.value and record.value["bbox"] is None)
    return Item(
        id=str(index),
        question_id=record.text("question_id", "id", default=str(index)),
        image=_find_image(source.images, record.text(*_IMAGE_KEYS)),
        question=record.text(*_EXPRESSION_KEYS).strip(),
        task=Task.GROUND,
        box=None if absent or several is not None else Box(*record.four("bbox")),
        absent=absent,
        several=several,
    )


def _conversation_items(index: int, record: Record, source: Source) -> Iterator[Item]:
    """One item for each turn that asks for a box in LLaVA's sentence."""
    turns = record.records("conversations")
    for number, (question, answer) in enumerate(pairwise(turns)):
        asked = _LLAVA_SENTENCE.search(question.text("value").replace("<image>", "").strip())
        boxes = parse_boxes(answer.text("value"))
        if asked and boxes:
            yield Item(
                id=f"{index}:{number}",
                question_id=record.text("id", default=str(index)),
                image=_find_image(source.images, record.text("image")),
                question=asked[1].strip(),
                task=Task.GROUND,
                box=boxes[0],
                box_frame=BoxFrame.PADDED_SQUARE,
            )


def _read_captioned(content: Record, source: Source) -> Referring:
    boxes = {record.text("image_id"): _from_xywh(record) for record in content.records("annotations")}
    items = []
    for record in content.records("images"):
        key = record.text("id")
        if key not in boxes:
            raise DatasetError(f"{record.where}: no annotation for the picture {key}")
        item = Item(
            id=key,
            question_id=key,
            image=_find_image(source.images, record.text("file_name")),
            question=record.text("caption").strip(),
            task=Task.GROUND,
            box=boxes[key],
        )
        items.append(item)
    return Referring(checked(items, source.annotations))


def _read_refs(refs: list[Record], source: Source) -> Referring:
    instances_file = source.annotations.parent / "instances.json"
    instances = Record(read_json(instances_file), str(instances_file))
    names = {record.text("id"): record.text("file_name") for record in instances.records("images")}
    boxes = {record.text("id"): _from_xywh(record) for record in instances.records("annotations")}
    split = source.split or _DEFAULT_SPLIT
    splits = {ref.text("split", default=split) for ref in refs}
    if split not in splits:
        raise DatasetError(f"{source.annotations}: no split {split!r}; there are {', '.join(sorted(splits))}")
    items: list[Item] = []
    for ref in refs:
        if ref.text("split", default=split) != split:
            continue
        targets = _targets(ref)
        image_id = ref.text("image_id")
        if image_id not in names or not set(targets) <= boxes.keys():
            raise DatasetError(f"{ref.where}: its picture or its annotation is not in {instances_file.name}")
        for number, sentence in enumerate(ref.records("sentences")):
            item = Item(
                id=f"{ref.text('ref_id')}:{sentence.text('sent_id', default=str(number))}",
                question_id=ref.text("ref_id"),
                image=_find_image(source.images, names[image_id]),
                question=sentence.text("sent", "raw").strip(),
                task=Task.GROUND,
                box=boxes[targets[0]] if len(targets) == 1 else None,
                absent=not targets,
                several=tuple(boxes[target] for target in targets) if len(targets) > 1 else None,
            )
            items.append(item)
    return Referring(checked(items, source.annotations), (f"split {split}",))


def _targets(ref: Record) -> list[str]:
    """The ids of the annotations that an expression means."""
    if ref.value.get("no_target") is True:
        return []
    found = ref.value.get("ann_id")
    return [str(target) for target in found] if isinstance(found, list) else [ref.text("ann_id")]


def _from_xywh(record: Record) -> Box:
    x, y, width, height = record.four("bbox")
    return Box(x, y, x + width, y + height)


def _find_image(folder: Path, name: str) -> Path:
    """The picture below the folder, whether the name keeps the dataset's own folders or not."""
    named, bare = image_below(folder, name), folder / Path(name).name
    return bare if bare.is_file() and not named.is_file() else named


class _PlainUnpickler(pickle.Unpickler):
    """Makes lists, dictionaries, texts and numbers; nothing that would have to be imported, so nothing that could act."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it wants {module}.{name}, and only plain data is read")


def _read_plain_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as stream:
            return _PlainUnpickler(stream, encoding="latin1").load()
    except (OSError, pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError) as error:
        raise DatasetError(f"{path}: cannot be read as a plain pickle: {error}") from error

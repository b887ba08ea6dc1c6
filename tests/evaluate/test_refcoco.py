"""Referring expressions: four kinds of files, one measure."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mobilevlm_ros.evaluate.dataset import Prediction, ScoredBox, Task
from mobilevlm_ros.evaluate.errors import DatasetError
from mobilevlm_ros.evaluate.formats.refcoco import RefCoco, read_refcoco
from mobilevlm_ros.evaluate.result import answered_items
from mobilevlm_ros.runtime.geometry import Box
from tests.evaluate.helpers import found, source, write_json, write_lines, write_picture

RIGHT = Box(10, 20, 50, 60)


def lines(path: Path, count: int = 1, absent: int = 0) -> Path:
    present = {"img_path": "1.jpg", "expression": "the red mug", "bbox": [10, 20, 50, 60], "width": 100, "height": 100}
    missing = {"img_path": "1.jpg", "expression": "the blue ball", "bbox": None}
    return write_lines(path, [present] * count + [missing] * absent)


def originals(folder: Path, **more: Any) -> list[dict[str, Any]]:
    """The two files of RefCOCO as its authors publish them; returns the content of refs, which is not written yet."""
    images = [{"id": 581857, "file_name": "COCO_train2014_000000581857.jpg", "width": 640, "height": 427}]
    annotations = [{"id": 1719310, "image_id": 581857, "bbox": [10.0, 20.0, 40.0, 40.0], "category_id": 1}]
    write_json(folder / "instances.json", {"images": images, "annotations": annotations, "categories": []})
    sentences = [{"sent_id": 0, "sent": "lady with blue shirt", "raw": "THE LADY", "tokens": []}, {"sent_id": 1, "sent": "lady"}]
    ref = {
        "ref_id": 0,
        "ann_id": 1719310,
        "image_id": 581857,
        "file_name": "COCO_train2014_000000581857_16.jpg",
        "split": "testA",
        "sentences": sentences,
        **more,
    }
    return [ref]


class TestFiles:
    def test_lines_have_corners_in_pixels(self, tmp_path: Path) -> None:
        (item,) = read_refcoco(source(lines(tmp_path / "REC_refcoco_unc_testA.jsonl"))).items
        assert (item.question, item.box, item.task) == ("the red mug", RIGHT, Task.GROUND)
        assert item.source_box(100, 100) == RIGHT

    def test_a_thing_may_be_marked_absent(self, tmp_path: Path) -> None:
        record = {"image": "1.jpg", "sent": "the cup", "bbox": [0, 0, 1, 1], "absent": True}
        items = read_refcoco(source(write_lines(tmp_path / "a.jsonl", [record]))).items
        items += read_refcoco(source(lines(tmp_path / "b.jsonl", 0, 1))).items
        assert [(item.absent, item.box) for item in items] == [(True, None)] * 2

    def test_conversations_of_llava_have_shares_of_the_padded_square(self, tmp_path: Path) -> None:
        asks = "<image>\nPlease provide the bounding box coordinate of the region this sentence describes: the red mug."
        turns = [
            {"from": "human", "value": asks},
            {"from": "gpt", "value": "[0.25, 0.25, 0.50, 0.75]"},
            {"from": "human", "value": "What is it?"},
            {"from": "gpt", "value": "A mug."},
        ]
        path = write_json(tmp_path / "llava.json", [{"id": "7", "image": "1.jpg", "conversations": turns}])
        (item,) = read_refcoco(source(path)).items
        assert item.question == "the red mug"
        # 80 x 40 pixels stand in a square of 80 with 20 rows above: [20, 20, 40, 60] there is [20, 0, 40, 40] here.
        assert item.source_box(80, 40) == Box(20, 0, 40, 40)

    def test_captioned_pictures_of_mdetr_have_corner_and_size(self, tmp_path: Path) -> None:
        images = [{"id": 3, "file_name": "1.jpg", "caption": "the red mug", "width": 100, "height": 100}]
        annotations = [{"image_id": 3, "bbox": [10, 20, 40, 40]}]
        path = write_json(tmp_path / "finetune_refcoco_val.json", {"images": images, "annotations": annotations})
        (item,) = read_refcoco(source(path)).items
        assert (item.question, item.box) == ("the red mug", RIGHT)

    def test_the_originals_take_the_picture_and_the_box_from_the_instances(self, tmp_path: Path) -> None:
        path = write_json(tmp_path / "refs(unc).json", originals(tmp_path))
        benchmark = read_refcoco(source(path, Path("train2014"), split="testA"))
        assert [item.question for item in benchmark.items] == ["lady with blue shirt", "lady"]
        assert {item.image for item in benchmark.items} == {Path("train2014/COCO_train2014_000000581857.jpg")}
        assert {item.box for item in benchmark.items} == {RIGHT}
        assert benchmark.notes == ("split testA",)

    @pytest.mark.parametrize("protocol", [0, 2, 4])
    def test_the_originals_are_pickles_of_plain_data(self, tmp_path: Path, protocol: int) -> None:
        (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(originals(tmp_path), protocol))
        assert len(read_refcoco(source(tmp_path / "refs(unc).p", split="testA")).items) == 2

    @pytest.mark.parametrize("content", [OrderedDict(), [Path("x")], print])
    def test_a_pickle_that_wants_more_than_plain_data_is_refused_by_name(self, tmp_path: Path, content: object) -> None:
        (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(content))
        with pytest.raises(DatasetError, match="only plain data is read"):
            read_refcoco(source(tmp_path / "refs(unc).p"))

    def test_a_pickle_that_is_cut_off_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(originals(tmp_path))[:-5])
        with pytest.raises(DatasetError, match="cannot be read as a plain pickle"):
            read_refcoco(source(tmp_path / "refs(unc).p"))

    def test_grefcoco_expressions_may_mean_nothing_or_several_things(self, tmp_path: Path) -> None:
        (nothing,) = originals(tmp_path, ref_id=1, ann_id=[-1], no_target=True)
        (several,) = originals(tmp_path, ref_id=2, ann_id=[1719310, 1719310])
        (one,) = originals(tmp_path, ref_id=3, ann_id=[1719310])
        path = write_json(tmp_path / "grefs(unc).json", [nothing, several, one])
        items = read_refcoco(source(path, split="testA")).items[::2]
        assert [(item.id, item.absent, item.box, item.several) for item in items] == [
            ("1:0", True, None, None),
            ("2:0", False, None, (RIGHT, RIGHT)),
            ("3:0", False, RIGHT, None),
        ]

    def test_lines_in_the_plural_have_any_number_of_boxes(self, tmp_path: Path) -> None:
        records = [{"image": "1.jpg", "expression": "the mugs", "bboxes": boxes} for boxes in ([], [[10, 20, 50, 60]] * 2)]
        items = read_refcoco(source(write_lines(tmp_path / "a.jsonl", records))).items
        assert [(item.several, item.box, item.absent) for item in items] == [((), None, False), ((RIGHT, RIGHT), None, False)]

    @pytest.mark.parametrize("boxes", [None, 3, [1, 2, 3, 4], [[1, 2, 3]], [["a", 2, 3, 4]]])
    def test_what_is_no_list_of_boxes_is_one_clear_line(self, tmp_path: Path, boxes: object) -> None:
        path = write_lines(tmp_path / "a.jsonl", [{"image": "1.jpg", "expression": "the mugs", "bboxes": boxes}])
        with pytest.raises(DatasetError, match="bboxes"):
            read_refcoco(source(path))

    def test_an_unknown_split_is_refused_with_those_that_there_are(self, tmp_path: Path) -> None:
        path = write_json(tmp_path / "refs(unc).json", originals(tmp_path))
        with pytest.raises(DatasetError, match="no split 'val'; there are testA"):
            read_refcoco(source(path))

    def test_a_picture_is_found_without_the_folders_in_its_name(self, tmp_path: Path) -> None:
        record = {"image": "coco/train2014/1.jpg", "sent": "the cup", "bbox": [0, 0, 1, 1]}
        path = write_lines(tmp_path / "a.jsonl", [record])
        assert read_refcoco(source(path)).items[0].image == tmp_path / "coco/train2014/1.jpg"
        write_picture(tmp_path / "1.jpg")
        assert read_refcoco(source(path)).items[0].image == tmp_path / "1.jpg"


def scores_of(benchmark: RefCoco, predictions: list[Prediction]) -> dict[str, dict[str, float]]:
    by_id = {prediction.id: prediction for prediction in predictions}
    return benchmark.score(answered_items(benchmark, benchmark.items, by_id))


class TestScores:
    def test_accuracy_and_mean_overlap_by_hand(self, tmp_path: Path) -> None:
        benchmark = read_refcoco(source(lines(tmp_path / "a.jsonl", 4)))
        half = Box(10, 20, 30, 60)  # the left half: overlap 0.5, which is right
        less = Box(10, 20, 26, 60)  # 16 of 40 columns: overlap 0.4
        boxes = [RIGHT, half, less, None]
        scores = scores_of(benchmark, [found(item, box) for item, box in zip(benchmark.items, boxes)])
        mean_iou = pytest.approx((1 + 0.5 + 0.4 + 0) / 4)
        assert scores["box always"] == {"items": 4, "acc@0.5": 0.5, "mean_iou": mean_iou, "missed": 0.25}
        assert scores["presence checked"] == scores["box always"]

    def test_a_thing_taken_for_absent_is_a_miss_for_a_robot_but_not_for_the_published_measure(self, tmp_path: Path) -> None:
        benchmark = read_refcoco(source(lines(tmp_path / "a.jsonl", 2)))
        first, second = benchmark.items
        scores = scores_of(benchmark, [found(first, RIGHT), found(second, RIGHT, refused=True)])
        assert scores["box always"]["acc@0.5"] == 1
        assert scores["presence checked"] == {"items": 2, "acc@0.5": 0.5, "mean_iou": 0.5, "missed": 0.5}

    def test_boxes_for_absent_things_are_false_positives(self, tmp_path: Path) -> None:
        benchmark = read_refcoco(source(lines(tmp_path / "a.jsonl", 1, 4)))
        present, *absent = benchmark.items
        predictions = [found(present, RIGHT), found(absent[0], Box(0, 0, 9, 9)), *(found(item, None) for item in absent[1:])]
        scores = scores_of(benchmark, predictions)
        assert scores["absent"] == {"items": 4, "false_positive_rate": 0.25}
        assert scores["box always"]["items"] == 1

    def test_scores_are_held_against_what_was_right(self, tmp_path: Path) -> None:
        benchmark = read_refcoco(source(lines(tmp_path / "a.jsonl", 2, 1)))
        first, second, absent = benchmark.items
        wrong = Box(60, 60, 90, 90)
        predictions = [found(first, RIGHT, 0.95), found(second, wrong, 0.45), found(absent, wrong, 0.95)]
        scores = scores_of(benchmark, predictions)
        # Two of 0.95, one right: off by 0.45. One of 0.45, wrong: off by 0.45. A box for an absent thing is wrong.
        assert scores["score 0.9 to 1.0"] == {"items": 2, "mean_score": pytest.approx(0.95), "right": 0.5}
        assert scores["score 0.4 to 0.5"] == {"items": 1, "mean_score": pytest.approx(0.45), "right": 0}
        found_error = scores["calibration"]
        assert (found_error["items"], found_error["calibration_error"]) == (3, pytest.approx(0.45))
        assert (found_error["mean_score"], found_error["right"]) == (pytest.approx(2.35 / 3), pytest.approx(1 / 3))
        assert found_error["brier"] == pytest.approx((0.05**2 + 0.45**2 + 0.95**2) / 3)
        assert found_error["ranking"] == 0.75  # above one of the wrong ones, level with the other

    def test_without_boxes_there_is_nothing_to_calibrate(self, tmp_path: Path) -> None:
        benchmark = read_refcoco(source(lines(tmp_path / "a.jsonl")))
        assert "calibration" not in scores_of(benchmark, [found(benchmark.items[0], None)])

    def test_other_thresholds_of_presence_are_tried(self, tmp_path: Path) -> None:
        benchmark = read_refcoco(source(lines(tmp_path / "a.jsonl", 2, 2)))
        wrong = Box(60, 60, 90, 90)
        boxes, presence = (RIGHT, wrong, None, wrong), (0.95, 0.4, 0.2, 0.6)
        predictions = [
            replace(found(item, box), presence=there) for item, box, there in zip(benchmark.items, boxes, presence, strict=True)
        ]
        scores = scores_of(benchmark, predictions)
        assert scores["presence from 0.1"] == {"items": 4, "missed": 0, "false_positive_rate": 1, "acc@0.5": 0.5}
        assert scores["presence from 0.5"] == {"items": 4, "missed": 0.5, "false_positive_rate": 0.5, "acc@0.5": 0.5}
        assert scores["presence from 0.99"] == {"items": 4, "missed": 1, "false_positive_rate": 0, "acc@0.5": 0}

    def test_several_things_are_counted_by_hand(self, tmp_path: Path) -> None:
        other, wrong = Box(60, 60, 90, 90), Box(0, 80, 9, 90)
        truths: list[list[list[int]]] = [[[10, 20, 50, 60], [60, 60, 90, 90]], [[10, 20, 50, 60]], [], []]
        records = [{"image": "1.jpg", "expression": "the mugs", "bboxes": truth} for truth in truths]
        benchmark = read_refcoco(source(write_lines(tmp_path / "a.jsonl", records)))
        answers = [(RIGHT, other), (RIGHT, RIGHT, wrong), (), (wrong,)]
        predictions = [
            replace(found(item, None), boxes=tuple(ScoredBox(box, 0.9) for box in boxes))
            for item, boxes in zip(benchmark.items, answers, strict=True)
        ]
        grades = [benchmark.grade(item, prediction).value for item, prediction in zip(benchmark.items, predictions)]
        assert grades == [1, pytest.approx(0.5), 1, 0]  # the second: one of three found is right, a box counts once
        scores = scores_of(benchmark, predictions)
        assert scores["several"] == {"items": 4, "exact": 0.5, "recall": 1, "precision": 0.5, "boxes_an_item": 1.5}
        assert scores["several, 0 there"]["exact"] == 0.5
        assert scores["several, 2 there"] == {"items": 1, "exact": 1, "recall": 1, "precision": 1, "boxes_an_item": 2}
        assert "several, 3 or more there" not in scores
        assert "calibration" not in scores

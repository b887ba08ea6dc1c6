"""The recorded depth scenes (tests/data/depth): their truth in space is that of their seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.depths import around, corners, optical_pose
from training.scenes import intrinsics, sample_scene

FOLDER = Path(__file__).resolve().parents[1] / "data" / "depth"
RECORDS: list[dict[str, Any]] = [json.loads(line) for line in (FOLDER / "truth.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: str(record["seed"]))
def test_the_recorded_places_are_those_of_the_scenes_seed(record: dict[str, Any]) -> None:
    scene = sample_scene(record["seed"])
    rotation, translation = optical_pose(scene.camera)
    assert rotation.T @ rotation == pytest.approx(np.eye(3), abs=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    focal, _, cx, cy = intrinsics(scene.camera, record["width"], record["height"])
    assert record["K"] == pytest.approx([focal, 0, cx, 0, focal, cy, 0, 0, 1], abs=1e-4)
    for thing, item in zip(record["things"], scene.items, strict=True):
        assert (thing["shape"], thing["color"]) == (item.shape, item.color)
        solid = around((corners(item) - translation) @ rotation)
        assert thing["solid"]["position"] == pytest.approx(solid["position"], abs=1e-3)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: str(record["seed"]))
def test_the_middle_of_a_thing_lies_in_its_box_in_the_picture(record: dict[str, Any]) -> None:
    focal, cx, cy = record["K"][0], record["K"][2], record["K"][5]
    for thing in record["things"]:
        x, y, z = thing["solid"]["position"]
        x1, y1, x2, y2 = thing["box"]
        assert x1 < cx + focal * x / z < x2
        assert y1 < cy + focal * y / z < y2
        # What is seen of a thing is a part of it.
        low = np.subtract(thing["solid"]["position"], np.divide(thing["solid"]["extent"], 2)) - 0.006
        high = np.add(thing["solid"]["position"], np.divide(thing["solid"]["extent"], 2)) + 0.006
        middle, half = np.array(thing["surface"]["position"]), np.array(thing["surface"]["extent"]) / 2
        assert (middle - half > low).all() and (middle + half < high).all()

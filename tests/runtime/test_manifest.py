"""The manifest: what is written is read back, and what is wrong is told by field."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mobilevlm_ros.runtime.errors import PackageError
from mobilevlm_ros.runtime.manifest import BaseRef, FileEntry, Manifest, ScoreCalibration
from tests.fakes import manifest


def test_a_manifest_survives_its_json_form() -> None:
    original = replace(manifest(), files={"vision.onnx": FileEntry(10, "ab")})
    assert Manifest.from_json(original.to_json()) == original


def test_an_adapters_manifest_survives_with_its_base_and_a_whole_packages_names_none() -> None:
    adapter = replace(manifest(), base=BaseRef("../base", "ab12"))
    assert Manifest.from_json(adapter.to_json()) == adapter
    assert "base" not in json.loads(manifest().to_json())


def test_equal_manifests_are_equal_byte_for_byte() -> None:
    assert manifest().to_json() == manifest().to_json()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema_version",), 99, "schema_version 99"),
        (("vision", "image_size"), "336", "vision: image_size: expected int"),
        (("vision", "pad_color"), [1, 2], "pad_color: expected 3 values"),
        (("decoder", "layers"), True, "layers: expected int"),
        (("box_frame",), "somewhere", "box_frame: 'somewhere' is none of"),
        (("score_calibration", "scale"), "1", "score_calibration: scale: expected float"),
        (("files",), {"a": 3}, "files: a: expected an object"),
    ],
)
def test_a_wrong_field_is_named(path: tuple[str, ...], value: object, message: str) -> None:
    raw = json.loads(manifest().to_json())
    target = raw
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(PackageError, match=message):
        Manifest.from_json(json.dumps(raw))


def test_a_missing_field_is_named() -> None:
    raw = json.loads(manifest().to_json())
    del raw["decoder"]["heads"]
    with pytest.raises(PackageError, match="decoder: heads is missing"):
        Manifest.from_json(json.dumps(raw))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3"])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(PackageError):
        Manifest.from_json(text)


def test_a_package_from_before_scores_were_calibrated_leaves_them_as_they_are() -> None:
    raw = json.loads(manifest().to_json())
    del raw["score_calibration"]
    assert Manifest.from_json(json.dumps(raw)).score_calibration == ScoreCalibration(scale=1.0, offset=0.0)

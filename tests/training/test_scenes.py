"""Scenes are drawn from their seeds alone, and their meshes are sound."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from training.mjcf import PRIMITIVES, scene_xml
from training.scenes import COLORS, MAX_ITEMS, SHAPES, Camera, camera_axes, intrinsics, sample_scene
from training.shapes import mesh_of


def test_a_seed_is_a_scene() -> None:
    assert sample_scene(5) == sample_scene(5)
    assert sample_scene(5) != sample_scene(6)


def test_scenes_cover_all_shapes_colours_and_counts() -> None:
    scenes = [sample_scene(seed) for seed in range(200)]
    assert {item.shape for scene in scenes for item in scene.items} == set(SHAPES)
    assert {item.color for scene in scenes for item in scene.items} == set(COLORS)
    assert {len(scene.items) for scene in scenes} == set(range(1, MAX_ITEMS + 1))


def test_things_do_not_touch() -> None:
    for seed in range(50):
        items = sample_scene(seed).items
        for number, item in enumerate(items):
            for other in items[:number]:
                assert np.hypot(item.x - other.x, item.y - other.y) > 0.06


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape not in PRIMITIVES])
def test_meshes_stand_on_the_table(shape: str) -> None:
    mesh = mesh_of(shape)
    assert mesh.vertices[:, 2].min() == pytest.approx(0.0, abs=1e-9)
    assert mesh.faces.min() >= 0
    assert mesh.faces.max() < len(mesh.vertices)


def test_the_model_description_is_xml_with_every_thing() -> None:
    scene = sample_scene(3)
    root = ElementTree.fromstring(scene_xml(scene, 256, 192))
    names = {geom.get("name") for geom in root.iter("geom")}
    assert {f"item{number}" for number in range(len(scene.items))} <= names


def test_the_camera_looks_at_its_target() -> None:
    camera = Camera((0.5, -0.4, 0.6), (0.0, 0.0, 0.05), 45.0)
    right, up = (np.asarray(axis) for axis in camera_axes(camera))
    forward = np.cross(up, right)
    sight = np.asarray(camera.target) - np.asarray(camera.eye)
    assert np.allclose(forward, sight / np.linalg.norm(sight))
    fx, fy, cx, cy = intrinsics(camera, 640, 480)
    assert fx == fy == pytest.approx(240.0 / np.tan(np.radians(22.5)))
    assert (cx, cy) == (319.5, 239.5)

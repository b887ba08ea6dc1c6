"""Positions on rendered tabletops whose truth is known (tests/data/depth, made by training.depths): errors in metres."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.space.depth_image import DepthImage
from mobilevlm_ros.space.view import Placement, Transform, View
from tests.space.scenes import Rendered, rendered, spoiled

SCENES = rendered()
Millimetres = npt.NDArray[np.uint16]


def view(scene: Rendered, millimetres: Millimetres) -> View:
    height, width = scene.millimetres.shape
    return View.of(DepthImage(millimetres, 1e-3), scene.model, width, height)


def mixed_at_edges(millimetres: Millimetres) -> Millimetres:
    """As cameras do where near and far meet in a pixel: the mean of three by three."""
    parts = [np.roll(millimetres.astype(np.float64), (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return np.asarray(np.round(np.mean(parts, axis=0)), np.uint16)


def shaken(box: Box, share: float, rng: np.random.Generator) -> Box:
    """A box whose edges are off by this share of its sides."""
    wide, high = box.x2 - box.x1, box.y2 - box.y1
    x1, y1, x2, y2 = rng.normal(0.0, share, 4) * (wide, high, wide, high)
    return Box(box.x1 + x1, box.y1 + y1, box.x2 + x2, box.y2 + y2)


def errors(spoil: Callable[[Millimetres], Millimetres], shake: float = 0.0) -> npt.NDArray[np.float64]:
    """Distances from each thing's position to the middles of what is seen of it and of all of it, [N, 2]."""
    rng = np.random.default_rng(0)
    found = []
    for scene in SCENES:
        seen = view(scene, spoil(scene.millimetres))
        for thing in scene.things:
            place = Placement.of(seen.surface(shaken(thing.box, shake, rng)).points)
            found.append([np.linalg.norm(np.subtract(place.position, true.position)) for true in (thing.surface, thing.solid)])
    return np.asarray(found)


@pytest.mark.parametrize(
    ("what", "spoil", "shake", "median", "nine_in_ten"),
    [
        ("true depth", lambda depth: depth, 0.0, 0.005, 0.016),
        ("a fifth holes and noise", lambda depth: spoiled(depth, 0.2, 0.003), 0.0, 0.005, 0.016),
        ("strong noise", lambda depth: spoiled(depth, 0.2, 0.01), 0.0, 0.006, 0.016),
        ("mostly holes", lambda depth: spoiled(depth, 0.6, 0.003), 0.0, 0.005, 0.016),
        ("mixed edges", mixed_at_edges, 0.0, 0.010, 0.025),
        ("boxes off by a tenth", lambda depth: spoiled(depth, 0.2, 0.003), 0.1, 0.008, 0.025),
    ],
)
def test_positions_on_rendered_scenes_are_within_stated_errors(
    what: str, spoil: Callable[[Millimetres], Millimetres], shake: float, median: float, nine_in_ten: float
) -> None:
    surface, solid = errors(spoil, shake).T
    assert len(surface) >= 30
    assert np.median(surface) < median, what
    assert np.quantile(surface, 0.9) < nine_in_ten, what
    # All of a thing lies behind what is seen of it, by less than a third of these things' 10 to 15 cm.
    assert np.median(solid) < 0.03, what


def test_extents_on_rendered_scenes_are_within_a_centimetre() -> None:
    differences = [
        np.subtract(Placement.of(view(scene, scene.millimetres).surface(thing.box).points).extent, thing.surface.extent)
        for scene in SCENES
        for thing in scene.things
    ]
    assert (np.median(np.abs(differences), axis=0) < 0.01).all()


def test_in_the_tables_frame_things_stand_on_the_table() -> None:
    """The table's top is z = 0 there, so what is seen of a thing begins there; but of a ball, the underside is hidden."""
    undersides = []
    for scene in SCENES:
        transform = Transform(scene.rotation, scene.translation)
        for thing in scene.things:
            place = Placement.of(transform.apply(view(scene, scene.millimetres).surface(thing.box).points))
            undersides.append(place.position[2] - place.extent[2] / 2)
    assert abs(np.median(undersides)) < 0.015
    assert np.quantile(np.abs(undersides), 0.75) < 0.02

"""Simulated tabletops: what stands where, in which colour, seen from where and in which light.

A scene is plain data drawn from a seed; the renderer turns it into pictures. Needs numpy only.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

Vector = tuple[float, float, float]

SHAPES = ("ball", "cube", "cone", "mug", "bottle", "ring", "bowl")
COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "black", "white")
MAX_ITEMS = 5
HELD_OUT_SEED = 10_000_000
"""Training scenes have seeds below this, held-out scenes from it on."""

# Hue in degrees, saturation and value, each as (low, high).
_HSV = {
    "red": ((-6.0, 5.0), (0.85, 1.0), (0.68, 0.9)),
    "orange": ((23.0, 31.0), (0.88, 1.0), (0.9, 1.0)),
    "yellow": ((50.0, 57.0), (0.82, 1.0), (0.88, 1.0)),
    "green": ((108.0, 142.0), (0.7, 1.0), (0.45, 0.75)),
    "blue": ((212.0, 230.0), (0.75, 1.0), (0.6, 0.95)),
    "purple": ((272.0, 290.0), (0.6, 0.9), (0.5, 0.75)),
    "black": ((0.0, 360.0), (0.0, 0.15), (0.03, 0.1)),
    "white": ((0.0, 360.0), (0.0, 0.03), (0.93, 1.0)),
}
_TABLE_HSV = ((18.0, 42.0, 0.15, 0.5, 0.35, 0.75), (0.0, 360.0, 0.0, 0.1, 0.3, 0.72), (190.0, 230.0, 0.05, 0.22, 0.35, 0.7))
_SCALE = {"ball": 1.0, "cube": 0.86, "cone": 0.98, "mug": 0.95, "bottle": 0.92, "ring": 1.05, "bowl": 1.05}


@dataclass(frozen=True)
class Item:
    """One thing on the table; size in metres is about half its width."""

    shape: str
    color: str
    rgb: Vector
    x: float
    y: float
    yaw: float
    size: float
    height: float
    shininess: float


@dataclass(frozen=True)
class Surface:
    """How a table or wall looks: two colours in a pattern."""

    rgb: Vector
    rgb_other: Vector
    pattern: str
    repeat: tuple[float, float]


@dataclass(frozen=True)
class Light:
    """A lamp above the table."""

    position: Vector
    strength: float
    shadow: bool


@dataclass(frozen=True)
class Camera:
    """A pinhole camera; x of the picture is to the right, the vertical opening angle in degrees."""

    eye: Vector
    target: Vector
    fovy: float


@dataclass(frozen=True)
class Scene:
    """Everything that a renderer must know."""

    seed: int
    items: tuple[Item, ...]
    table: Surface
    wall: Surface
    floor_rgb: Vector
    table_half: tuple[float, float]
    lights: tuple[Light, ...]
    ambient: float
    camera: Camera


def sample_scene(seed: int) -> Scene:
    """The scene of a seed."""
    rng = np.random.default_rng(seed)
    items = _sample_items(rng, int(rng.integers(1, MAX_ITEMS + 1)))
    shade = float(rng.uniform(0.25, 0.75))
    return Scene(
        seed=seed,
        items=items,
        table=_sample_surface(rng),
        wall=_sample_surface(rng),
        floor_rgb=(shade, shade, shade),
        table_half=(float(rng.uniform(0.45, 0.9)), float(rng.uniform(0.4, 0.8))),
        lights=_sample_lights(rng),
        ambient=float(rng.uniform(0.25, 0.5)),
        camera=_sample_camera(rng, items),
    )


def intrinsics(camera: Camera, width: int, height: int) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy in pixels of a picture of this size."""
    focal = 0.5 * height / float(np.tan(np.radians(camera.fovy) / 2.0))
    return focal, focal, (width - 1) / 2.0, (height - 1) / 2.0


def camera_axes(camera: Camera) -> tuple[Vector, Vector]:
    """The picture's right and up directions in the world."""
    forward = np.asarray(camera.target) - np.asarray(camera.eye)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    return _vector(right), _vector(up)


def _sample_items(rng: Generator, count: int) -> tuple[Item, ...]:
    """Things that do not touch; shapes and colours repeat now and then, so that telling apart is needed."""
    items: list[Item] = []
    for _ in range(200):
        if len(items) == count:
            break
        size = float(rng.uniform(0.045, 0.07))
        radius, angle = 0.25 * float(np.sqrt(rng.uniform())), float(rng.uniform(0.0, 2.0 * np.pi))
        x, y = radius * np.cos(angle), radius * np.sin(angle)
        if any(np.hypot(x - other.x, y - other.y) < 1.2 * (size + other.size) + 0.01 for other in items):
            continue
        items.append(_sample_item(rng, items, float(x), float(y), size))
    return tuple(items)


def _sample_item(rng: Generator, others: list[Item], x: float, y: float, size: float) -> Item:
    shape, color = str(rng.choice(SHAPES)), str(rng.choice(COLORS))
    if others and rng.uniform() < 0.3:
        twin = others[int(rng.integers(len(others)))]
        shape, color = (twin.shape, color) if rng.uniform() < 0.6 else (shape, twin.color)
    return Item(
        shape=shape,
        color=color,
        rgb=_sample_rgb(rng, color),
        x=x,
        y=y,
        yaw=float(rng.uniform(0.0, 360.0)),
        size=size * _SCALE[shape],
        height=float(rng.uniform(0.9, 1.12)) if shape != "ball" else 1.0,
        shininess=float(rng.uniform(0.0, 0.7)),
    )


def _sample_rgb(rng: Generator, color: str) -> Vector:
    hue, saturation, value = (float(rng.uniform(*bounds)) for bounds in _HSV[color])
    return colorsys.hsv_to_rgb((hue % 360.0) / 360.0, saturation, value)


def _sample_surface(rng: Generator) -> Surface:
    low_h, high_h, low_s, high_s, low_v, high_v = _TABLE_HSV[int(rng.integers(len(_TABLE_HSV)))]
    hue, saturation = float(rng.uniform(low_h, high_h)) / 360.0, float(rng.uniform(low_s, high_s))
    value = float(rng.uniform(low_v, high_v))
    other = value * float(rng.uniform(0.75, 1.15))
    pattern = str(rng.choice(("flat", "checker", "gradient")))
    across = float(rng.integers(1, 8))
    along = across if rng.uniform() < 0.4 else 1.0
    return Surface(
        rgb=colorsys.hsv_to_rgb(hue, saturation, value),
        rgb_other=colorsys.hsv_to_rgb(hue, saturation, min(other, 0.8)),
        pattern=pattern,
        repeat=(along, across),
    )


def _sample_lights(rng: Generator) -> tuple[Light, ...]:
    lights = []
    for index in range(int(rng.integers(1, 3))):
        angle, reach = float(rng.uniform(0.0, 2.0 * np.pi)), float(rng.uniform(0.2, 1.1))
        position = (reach * float(np.cos(angle)), reach * float(np.sin(angle)), float(rng.uniform(1.1, 2.0)))
        lights.append(Light(position, float(rng.uniform(0.35, 0.75)) / (index + 1), shadow=index == 0))
    return tuple(lights)


def _sample_camera(rng: Generator, items: tuple[Item, ...]) -> Camera:
    middle = np.mean([(item.x, item.y) for item in items], axis=0)
    target = np.array([*(middle * 0.8 + rng.normal(0.0, 0.03, 2)), rng.uniform(0.02, 0.07)])
    azimuth, elevation = rng.uniform(0.0, 2.0 * np.pi), np.radians(rng.uniform(27.0, 60.0))
    distance = rng.uniform(0.55, 0.86)
    direction = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    return Camera(_vector(target + distance * direction), _vector(target), float(rng.uniform(42.0, 52.0)))


def _vector(values: np.ndarray) -> Vector:
    return float(values[0]), float(values[1]), float(values[2])

"""The forms of the things on the table, as triangle meshes of unit size standing on z = 0.

Knows only geometry: no colours, no renderer. A form is a surface of revolution, or one with a handle added.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Profile = tuple[tuple[float, float], ...]

CONE: Profile = ((0.0, 0.0), (0.95, 0.0), (1.0, 0.03), (0.5, 1.1), (0.03, 2.12), (0.0, 2.15))
MUG: Profile = (
    (0.0, 0.0),
    (0.78, 0.0),
    (0.82, 0.05),
    (0.82, 1.7),
    (0.78, 1.74),
    (0.72, 1.7),
    (0.7, 0.15),
    (0.0, 0.12),
)
BOTTLE: Profile = (
    (0.0, 0.0),
    (0.58, 0.0),
    (0.62, 0.05),
    (0.62, 1.55),
    (0.52, 1.85),
    (0.26, 2.1),
    (0.22, 2.2),
    (0.22, 2.55),
    (0.29, 2.57),
    (0.29, 2.85),
    (0.25, 2.88),
    (0.0, 2.88),
)
BOWL: Profile = (
    (0.0, 0.0),
    (0.45, 0.0),
    (0.8, 0.25),
    (1.02, 0.55),
    (1.15, 0.95),
    (1.09, 0.97),
    (0.95, 0.6),
    (0.72, 0.32),
    (0.4, 0.14),
    (0.0, 0.12),
)
RING_RADIUS, RING_TUBE = 0.86, 0.27


@dataclass(frozen=True)
class Mesh:
    """Vertices [V, 3] in metres per unit size, and triangles [F, 3]."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]


def lathe(profile: Profile, segments: int = 28) -> Mesh:
    """The surface that the profile (radius, height) sweeps about the z axis."""
    outline = np.asarray(profile)
    angles = np.linspace(0.0, 2.0 * np.pi, segments, endpoint=False)
    rings = np.stack(
        [
            outline[:, None, 0] * np.cos(angles),
            outline[:, None, 0] * np.sin(angles),
            np.broadcast_to(outline[:, 1:], (len(outline), segments)),
        ],
        axis=-1,
    )
    return Mesh(rings.reshape(-1, 3), _grid_faces(len(outline), segments, closed_rows=False))


def torus(radius: float, tube: float, around: int = 32, across: int = 12) -> Mesh:
    """A ring that lies flat on the table."""
    turn = np.linspace(0.0, 2.0 * np.pi, across, endpoint=False)
    circle = tuple((radius + tube * float(np.cos(t)), tube + tube * float(np.sin(t))) for t in turn)
    swept = lathe(circle, around)
    return Mesh(swept.vertices, _grid_faces(across, around, closed_rows=True))


def handle(center_x: float, center_z: float, radius: float, tube: float, steps: int = 14) -> Mesh:
    """A mug's handle: half a torus in the x-z plane."""
    along = np.linspace(-np.pi / 2, np.pi / 2, steps)
    across = np.linspace(0.0, 2.0 * np.pi, 8, endpoint=False)
    reach = radius + tube * np.cos(across)
    points = np.stack(
        [
            center_x + np.cos(along)[:, None] * reach,
            np.broadcast_to(tube * np.sin(across), (steps, 8)),
            center_z + np.sin(along)[:, None] * reach,
        ],
        axis=-1,
    )
    return Mesh(points.reshape(-1, 3), _grid_faces(steps, 8, closed_rows=False)[:, ::-1])


def join(first: Mesh, second: Mesh) -> Mesh:
    """Two meshes as one."""
    return Mesh(
        np.concatenate([first.vertices, second.vertices]),
        np.concatenate([first.faces, second.faces + len(first.vertices)]),
    )


@cache
def mesh_of(shape: str) -> Mesh:
    """The mesh of a named shape; balls and cubes have none, they are the renderer's own primitives."""
    if shape == "mug":
        return join(lathe(MUG), handle(0.78, 0.88, 0.5, 0.13))
    if shape == "ring":
        return torus(RING_RADIUS, RING_TUBE)
    return lathe({"cone": CONE, "bottle": BOTTLE, "bowl": BOWL}[shape])


def _grid_faces(rows: int, columns: int, closed_rows: bool) -> NDArray[np.int64]:
    """Two triangles for each cell of a grid whose columns close upon themselves."""
    last = rows if closed_rows else rows - 1
    row, column = np.meshgrid(np.arange(last), np.arange(columns), indexing="ij")
    below, right = (row + 1) % rows, (column + 1) % columns
    a, b = row * columns + column, row * columns + right
    c, d = below * columns + right, below * columns + column
    return np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])

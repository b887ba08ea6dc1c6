"""The visible surface of the thing inside a box: which of the depths in and around the box belong to it.

A box holds more than its thing: the table it stands on, the wall behind it, a neighbour's corner. What the thing stands on or
hangs at goes on outside the box, so planes that the surroundings lie in are taken out first; of what is left, the nearest group
of depths that is large in the middle of the box is the thing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.space.camera_model import CameraModel
from mobilevlm_ros.space.depth_image import DepthImage
from mobilevlm_ros.space.errors import NoPositionError, Reason

Points = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

FEWEST_PIXELS = 4
FEWEST_SHARE = 0.05
"""A box needs this many valid depths, and this share of all in it."""

FARTHEST = 10_000.0
"""Metres in each direction from which on a point is no measurement; of what lies nearer, squares and sums are safe."""

_SURROUNDINGS = 0.3
"""Width of the ring around the box whose planes are background, as a share of the box's sides."""

_MOST_SIDE = 160
"""A window with more rows or columns is thinned out."""

_MOST_PLANES = 3
_PLANE_SHARE = 0.25
"""Share of the ring's points that must lie in a plane."""

_LEAST_LEFT = 0.15
"""Share of the box's points that must be left; a plane that takes more is the thing itself, such as a sheet on a table."""

_TRIES = 64
_VOTERS = 400
"""How many planes are tried, and how many of the ring's points vote on them."""

_SPARSE = 0.05
"""Between groups of depths, the density is below this share of the largest."""


@dataclass(frozen=True)
class Surface:
    """What is seen of a thing.

    Attributes:
        points: float64 [N, 3] in the camera's optical frame (x right, y down, z forward), metres.
        valid_share: 0 to 1, of the box's pixels that have a depth.
    """

    points: Points
    valid_share: float


def surface_in(depth: DepthImage, model: CameraModel, box: Box) -> Surface:
    """Finds the surface of the thing inside a box.

    Args:
        depth: lies on the picture pixel by pixel.
        model: of the depth image, in its size.
        box: in pixels of the depth image, far edges exclusive.

    Raises:
        NoPositionError: NO_VALID_PIXELS.
    """
    window = _window(depth, model, box)
    inside = window.valid & window.in_box
    count, total = int(inside.sum()), int(window.in_box.sum())
    if count < max(FEWEST_PIXELS, FEWEST_SHARE * total):
        raise NoPositionError(Reason.NO_VALID_PIXELS, f"only {count} of the {total} depths looked at in the box are valid")
    points, weights = window.points[inside], window.centrality[inside]
    off_plane = np.ones(count, bool)
    for plane in _planes(window.points[window.valid & ~window.in_box]):
        left = off_plane & (plane.distances(points) > _tolerance(points[:, 2]))
        if left.sum() >= max(FEWEST_PIXELS, _LEAST_LEFT * count):
            off_plane = left
    points, weights = points[off_plane], weights[off_plane]
    return Surface(points[_nearest_group(points[:, 2], weights)], count / total)


@dataclass(frozen=True)
class _Window:
    """The box's surroundings, [rows, columns] each.

    Attributes:
        points: [rows, columns, 3], NaN where not valid.
        centrality: 1 in the middle of the box, falling to 0 at its edges.
    """

    points: Points
    valid: Mask
    in_box: Mask
    centrality: npt.NDArray[np.float64]


def _window(depth: DepthImage, model: CameraModel, box: Box) -> _Window:
    wide, high = max(box.x2 - box.x1, 1.0), max(box.y2 - box.y1, 1.0)
    left, right = box.x1 - _SURROUNDINGS * wide - 2, box.x2 + _SURROUNDINGS * wide + 2
    top, bottom = box.y1 - _SURROUNDINGS * high - 2, box.y2 + _SURROUNDINGS * high + 2
    rows, columns = _span(top, bottom, depth.height), _span(left, right, depth.width)
    z = depth.metres(rows, columns).astype(np.float64)
    along_rows, along_columns = (np.arange(part.start, part.stop, part.step, dtype=np.float64) for part in (rows, columns))
    v, u = np.meshgrid(along_rows, along_columns, indexing="ij")
    x, y = model.directions(u, v)
    with np.errstate(over="ignore"):
        points = np.stack([x * z, y * z, z], axis=-1)
    across = np.abs(u + 0.5 - (box.x1 + box.x2) / 2) / (wide / 2)
    down = np.abs(v + 0.5 - (box.y1 + box.y2) / 2) / (high / 2)
    edge = np.maximum(across, down)
    valid: Mask = np.abs(points).max(axis=-1) < FARTHEST
    in_box: Mask = edge <= 1.0
    return _Window(points, valid, in_box, np.clip(1.0 - edge, 0.05, 1.0))


def _span(low: float, high: float, limit: int) -> slice:
    first, last = int(min(max(np.floor(low), 0), limit - 1)), int(min(max(np.ceil(high), 1), limit))
    return slice(first, max(last, first + 1), max(1, -(-(last - first) // _MOST_SIDE)))


@dataclass(frozen=True)
class _Plane:
    normal: Points
    offset: float

    def distances(self, points: Points) -> Points:
        """Of points [N, 3], metres."""
        distances: Points = np.abs(points @ self.normal - self.offset)
        return distances


def _tolerance(z: Points) -> Points:
    """How far a depth may be from its plane; the noise of depth cameras grows with the square of the distance."""
    tolerance: Points = 0.006 + 0.004 * z**2
    return tolerance


def _planes(ring: Points) -> list[_Plane]:
    """The planes that hold the surroundings, the largest first."""
    planes: list[_Plane] = []
    fewest = max(12, _PLANE_SHARE * len(ring))
    rng = np.random.default_rng(0)  # so that the same picture gives the same position
    while len(planes) < _MOST_PLANES and len(ring) >= fewest:
        plane = _largest_plane(ring[rng.permutation(len(ring))[:_VOTERS]], rng)
        if plane is None:
            break
        near = plane.distances(ring) < _tolerance(ring[:, 2])
        if near.sum() < fewest:
            break
        planes.append(_fitted(ring[near]))
        ring = ring[~near]
    return planes


def _largest_plane(points: Points, rng: np.random.Generator) -> _Plane | None:
    """The plane through three of the points that most others lie in."""
    corners = points[rng.integers(0, len(points), (_TRIES, 3))]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    usable = lengths > 1e-9
    if not usable.any():
        return None
    normals, corners = normals[usable] / lengths[usable, None], corners[usable]
    offsets = np.einsum("ij,ij->i", normals, corners[:, 0])
    votes = (np.abs(points @ normals.T - offsets) < _tolerance(points[:, 2:])).sum(axis=0)
    best = int(votes.argmax())
    return _Plane(normals[best], float(offsets[best]))


def _fitted(points: Points) -> _Plane:
    """The plane with the least squares of distances."""
    middle = points.mean(axis=0)
    normal = np.linalg.svd(points - middle, full_matrices=False)[2][2]
    return _Plane(normal, float(normal @ middle))


def _nearest_group(z: Points, weights: Points) -> Mask:
    """The nearest group of depths whose weight is at least half of the heaviest's; groups have gaps between them."""
    cells = np.floor(_cell(z)).astype(int)
    cells -= cells.min()
    counts = np.bincount(cells, weights)
    density = np.convolve(counts, (0.5, 1.0, 0.5))[1:-1]
    dense = np.flatnonzero(density > _SPARSE * density.max())
    groups = np.split(dense, np.flatnonzero(np.diff(dense) > 1) + 1)
    heaviest = max(counts[group].sum() for group in groups)
    group = next(group for group in groups if counts[group].sum() >= 0.5 * heaviest)
    mask: Mask = (cells >= group[0]) & (cells <= group[-1])
    return mask


def _cell(z: Points) -> Points:
    """Depths on a scale whose steps are 1 cm, or 1.5% of the depth where that is more; so that wild depths need few steps too."""
    near, share = 0.01, 0.015
    bend = near / share
    cells: Points = np.where(z < bend, z / near, bend / near + np.log(np.maximum(z, bend) / bend) / share)
    return cells

"""Delaunay triangles of the water, part by part.

One triangulation of millions of points takes gigabytes, one processor, and longer a point the more points there are.
Whether a triangle belongs to it depends on its circle alone, in which no other point may lie, and in water no circle is
larger than the water is wide. So a part of the plane has the same triangles of its own, if the points around it are
looked at as far as the widest water reaches.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import shapely
from affine import Affine
from rasterio.features import rasterize
from scipy.ndimage import distance_transform_edt
from scipy.spatial import Delaunay

from geosam.rivers.banks import Banks, Bools, Floats, Longs
from geosam.vector.ordered import crew

PART = 60_000
"""Points of a part; twice as many are triangulated at once."""
_LOOK_PX = 2048
"""Cells along the longer side of the raster in which the widest water is looked for."""
_SPARE = 1.1
_MOST_SHARED = 1.5
"""Parts have so many times the points of the whole together at most; with more it takes longer than at once."""


def circles_of(xy: Floats, corners: Longs) -> tuple[Floats, Floats]:
    """Centres, shape (n, 2), and radii, shape (n,), of the circles through the corners of triangles.

    Args:
        xy: Points, shape (points, 2).
        corners: Points of each triangle, shape (n, 3).
    """
    a, b, c = (xy[corners[:, k]] for k in range(3))
    b, c = b - a, c - a
    doubled = 2 * (b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0])
    doubled = np.where(doubled == 0, np.finfo(float).tiny, doubled)
    bb, cc = (b**2).sum(axis=1), (c**2).sum(axis=1)
    x = (c[:, 1] * bb - b[:, 1] * cc) / doubled
    y = (b[:, 0] * cc - c[:, 0] * bb) / doubled
    return a + np.stack([x, y], 1), np.hypot(x, y)


def areas_of(xy: Floats, corners: Longs) -> Floats:
    """Areas of triangles, shape (n,); arguments as of :func:`circles_of`."""
    a, b, c = (xy[corners[:, k]] for k in range(3))
    doubled: Floats = np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    return doubled / 2


def wet_triangles(banks: Banks) -> Longs:
    """Points of the Delaunay triangles that lie in the water, shape (n, 3)."""
    polygon = banks.polygon
    shapely.prepare(polygon)
    if len(banks.xy) > 2 * PART:
        parts = _by_parts(banks, polygon)
        # A circle larger than was looked for leaves a hole.
        if parts is not None and abs(areas_of(banks.xy, parts).sum() - polygon.area) < float(banks.steps.mean()) ** 2:
            return parts
    corners = _triangles(banks.xy)
    return corners[_in_water(polygon, banks.xy, corners)]


def _triangles(xy: Floats) -> Longs:
    """Points of all Delaunay triangles, shape (n, 3)."""
    return np.asarray(Delaunay(xy).simplices, np.int64)


def _in_water(polygon: shapely.Polygon, xy: Floats, corners: Longs) -> Bools:
    return np.asarray(shapely.contains_xy(polygon, xy[corners].mean(axis=1)), bool)


def _by_parts(banks: Banks, polygon: shapely.Polygon) -> Longs | None:
    """The same of parts of the plane, each triangle in the part that has the centre of its circle.

    None where the water is so wide that the parts would share most of their points.
    """
    reach = _SPARE * _widest(polygon)
    boxes = list(_boxes(banks.xy, np.array([[-np.inf] * 2, [np.inf] * 2])))

    def points_near(box: Floats) -> Longs:
        around = box + reach * np.array([[-1], [1]])
        return np.flatnonzero(((banks.xy >= around[0]) & (banks.xy <= around[1])).all(axis=1))

    if sum(len(points_near(box)) for box in boxes) > _MOST_SHARED * len(banks.xy):
        return None

    def of_part(box: Floats) -> Longs:
        near = points_near(box)
        if len(near) < 3:
            return np.empty((0, 3), np.int64)
        corners: Longs = near[_triangles(banks.xy[near])]
        centre, radius = circles_of(banks.xy, corners)
        own = ((centre >= box[0]) & (centre < box[1])).all(axis=1) & (radius <= reach)
        corners = corners[own]
        return np.asarray(corners[_in_water(polygon, banks.xy, corners)], np.int64)

    with crew() as hands:
        return np.concatenate(list(hands.map(of_part, boxes)))


def _boxes(xy: Floats, box: Floats) -> Iterator[Floats]:
    """Halves of halves of the plane with at most :data:`PART` points each: least and most x and y, shape (2, 2)."""
    if len(xy) <= PART:
        yield box
        return
    axis = int(np.argmax(np.ptp(xy, axis=0)))
    middle = float(np.median(xy[:, axis]))
    low, high = box.copy(), box.copy()
    low[1, axis] = high[0, axis] = middle
    below = xy[:, axis] < middle
    yield from _boxes(xy[below], low)
    yield from _boxes(xy[~below], high)


def _widest(polygon: shapely.Polygon) -> float:
    """Radius of the largest circle in the water, or a little more, in metres."""
    west, south, east, north = polygon.bounds
    cell = max(east - west, north - south) / _LOOK_PX
    shape = (int((north - south) / cell) + 1, int((east - west) / cell) + 1)
    grid = Affine(cell, 0, west, 0, -cell, north)
    # Every cell that water touches is wet, and at the frame dry ones begin: a circle is never taken for smaller.
    wet = np.pad(rasterize([polygon], shape, transform=grid, all_touched=True, dtype="uint8"), 1)
    cells = float(distance_transform_edt(wet).max()) + 1
    return cells * float(cell)

"""Delaunay triangles of the water: which they are, their circles and their areas."""

from __future__ import annotations

import numpy as np
import shapely
from scipy.spatial import Delaunay

from geosam.rivers.banks import Banks, Bools, Floats, Longs


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
    corners: Longs = np.asarray(Delaunay(banks.xy).simplices, np.int64)
    polygon = banks.polygon
    shapely.prepare(polygon)
    wet: Bools = shapely.contains_xy(polygon, banks.xy[corners].mean(axis=1))
    return corners[wet]

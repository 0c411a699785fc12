"""Water bodies that belong together: those that touch, and on demand those that a bridge or a canopy keeps apart."""

from __future__ import annotations

import numpy as np
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geosam.rivers.banks import Floats, Geometries, Longs

_JOINT_PX = 0.4
"""Water that meets at a corner is joined by a square of so many pixels from its middle to its own corners."""


def touching_joined(polygons: Geometries, pixel_m: float) -> Geometries:
    """Polygons that touch made one, those too that meet in a corner, as the pixels of a narrow creek do.

    Args:
        polygons: Water in metres.
        pixel_m: Size of a pixel.
    """
    squares = shapely.buffer(shapely.points(_met_twice(polygons)), _JOINT_PX * pixel_m, quad_segs=1)
    return dissolved(np.concatenate([polygons, squares]))


def dissolved(polygons: Geometries) -> Geometries:
    """Polygons that meet made one, whole groups at a time; those that meet none are as they were."""
    if len(polygons) == 0:
        return polygons
    one, other = _meeting(polygons)
    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(len(polygons), len(polygons)))
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group, kind="stable")
    groups = np.split(polygons[order], np.flatnonzero(np.diff(group[order])) + 1)
    merged = shapely.get_parts([_united(some) for some in groups])
    are_polygons: Geometries = merged[shapely.get_type_id(merged) == shapely.GeometryType.POLYGON]
    return are_polygons


def _meeting(polygons: Geometries) -> tuple[Longs, Longs]:
    """Pairs of polygons that meet, each pair once, shape (k,) and (k,).

    Of a pair the one with more vertices is prepared and asked about the other: a speck asked about a network of
    millions of vertices would walk along all of them.
    """
    one, other = shapely.STRtree(polygons).query(polygons)
    size = shapely.get_num_coordinates(polygons)
    larger = (size[one] > size[other]) | ((size[one] == size[other]) & (one < other))
    one, other = one[larger], other[larger]
    shapely.prepare(polygons[np.unique(one)])
    meet = shapely.intersects(polygons[one], polygons[other])
    shapely.destroy_prepared(polygons)  # of millions of vertices it holds hundreds of megabytes
    return one[meet], other[meet]


def _united(group: Geometries) -> shapely.Geometry:
    """The union of some polygons; the largest comes last, since every union that it is in costs its whole length."""
    if len(group) == 1:
        return group[0]
    largest = int(np.argmax(shapely.get_num_coordinates(group)))
    return shapely.union(group[largest], shapely.union_all(np.delete(group, largest)))


def _met_twice(polygons: Geometries) -> Floats:
    """Vertices at which outlines meet, shape (n, 2)."""
    xy, ring = shapely.get_coordinates(shapely.get_rings(polygons), return_index=True)
    xy = xy[ring == np.append(ring[1:], -1)]  # the last of a ring is its first again
    order = np.lexsort((xy[:, 1], xy[:, 0]))
    same = np.flatnonzero((np.diff(xy[order], axis=0) == 0).all(axis=1))
    return np.unique(xy[order[same]], axis=0)

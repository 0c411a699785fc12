"""Gaps in bends and under very oblique bridges, where ends do not point at each other: the outlines face each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely
from scipy.spatial import cKDTree

from geosam.rivers.banks import Floats, Geometries

MOST_BENT = 75.0
"""Degrees between the ways that the two ends go on: a tight bend turns by as much over a gap as wide as the river."""
_AROUND = 4.0
"""What is looked at around two ends, in radii of both beyond the widest gap."""
_APART = 3.0
"""Two ends of a gap are so many radii of both apart at most beyond its width: cut aslant, an axis ends in a corner."""
_LEAST_FACE = 1.0
"""The face of the gap is at least so many radii long on either side."""
_WIDER = 1.5
"""The face is where the other side is no further than so many times the shortest distance."""


class Stub(NamedTuple):
    """A dead end, in metres."""

    tip: Floats
    """Where its axis ends, shape (2,)."""
    ahead: Floats
    """The way that the channel would go on, a unit vector."""
    radius: float
    """Half its width."""


class Face(NamedTuple):
    """A gap between two ends."""

    one: int
    other: int
    """Numbers of the ends."""
    gap_m: float
    """Shortest distance."""
    polygon: shapely.Polygon
    """What closes it."""


def faces_of(polygons: Geometries, stubs: list[Stub], most_m: float, pixel_m: float, widening: float) -> list[Face]:
    """Gaps between dead ends whose outlines face each other, the narrowest first; each end at most once.

    Args:
        polygons: Water bodies in metres, shape (n,).
        stubs: Dead ends of all of them.
        most_m: Gaps up to this are closed.
        pixel_m: Size of a pixel.
        widening: One end may be so many times as wide as the other.
    """
    if len(stubs) < 2:
        return []
    largest = max(stub.radius for stub in stubs)
    near = cKDTree([stub.tip for stub in stubs]).query_pairs(most_m + 2 * _APART * largest, output_type="ndarray")
    tree = shapely.STRtree(polygons)
    faces = []
    for k, m in near.tolist():
        one, other = stubs[k], stubs[m]
        both = one.radius + other.radius
        apart = float(np.hypot(*(one.tip - other.tip)))
        if apart > most_m + _APART * both or max(one.radius, other.radius) > widening * min(one.radius, other.radius):
            continue
        if one.ahead @ -other.ahead < np.cos(np.radians(MOST_BENT)):
            continue
        here = _parts(polygons, tree, (one, other), most_m + _AROUND * both)
        found = _face(*here, most_m, pixel_m, _LEAST_FACE * min(one.radius, other.radius)) if here else None
        if found is not None:
            faces.append(Face(k, m, *found))
    return _once(faces)


def _parts(
    polygons: Geometries, tree: shapely.STRtree, stubs: tuple[Stub, Stub], around: float
) -> tuple[shapely.Polygon, shapely.Polygon] | None:
    """The water of either end nearby; None where it is the same."""
    middle = (stubs[0].tip + stubs[1].tip) / 2
    parts = []
    for stub in stubs:
        point = shapely.Point(stub.tip)
        body = polygons[tree.nearest(point)]
        pieces = shapely.get_parts(shapely.clip_by_rect(body, *(middle - around), *(middle + around)))
        if len(pieces) == 0:
            return None
        parts.append(pieces[np.argmin(shapely.distance(pieces, point))])
    return None if parts[0].equals(parts[1]) else (parts[0], parts[1])


def _face(
    one: shapely.Polygon, other: shapely.Polygon, most_m: float, pixel_m: float, least_m: float
) -> tuple[float, shapely.Polygon] | None:
    """Width of a gap and what closes it; None where it is too wide, or a mere corner of one side is near."""
    gap = float(one.distance(other))
    if not 0 < gap <= most_m:
        return None
    reach = _WIDER * gap + 2 * pixel_m
    sides = [a.boundary.intersection(b.buffer(reach)) for a, b in ((one, other), (other, one))]
    if min(side.length for side in sides) < least_m:
        return None
    return gap, shapely.convex_hull(shapely.union_all(sides))


def _once(faces: list[Face]) -> list[Face]:
    taken: set[int] = set()
    kept = []
    for face in sorted(faces, key=lambda face: face.gap_m):
        if not taken & {face.one, face.other}:
            taken.update((face.one, face.other))
            kept.append(face)
    return kept

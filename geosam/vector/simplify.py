"""Fewer vertices, the same topology, no vertex farther off than a tolerance.

GEOS offers three ways, none of which does: its plain Douglas-Peucker crosses outlines and drops ponds; the one that
preserves topology compares every stretch with every ring (50 s for 850,000 vertices) or, polygon by
polygon, lets neighbours overlap; the one for coverages keeps no distance (4 px off at a tolerance of 1.5 px).
"""

from __future__ import annotations

import numpy as np
import shapely

from geosam.vector.corners import Bools, Floats, Longs, ranges
from geosam.vector.rings import Rings

_LARGEST_MISS = 1e-9
"""Metres; a vertex this far off is on the line."""


def simplified(rings: Rings, plane: Floats, tolerance_m: float) -> Rings:
    """Rings through some of their vertices, crossing no other and leaving none on the wrong side.

    Douglas and Peucker's rule on all rings at once; then every stretch whose chord meets another
    chord, or passes over a whole ring, gets its farthest vertex back, until none does.

    Args:
        rings: Closed rings in whole pixels; they may touch at vertices.
        plane: Their vertices in metres, shape (n, 2).
        tolerance_m: No dropped vertex lies farther than this from what stands for it.

    Returns:
        The same rings with at least three vertices each, in the same order.
    """
    kept = _anchors(rings, plane)
    kept[_douglas_peucker(plane, *_chords(kept, rings), tolerance_m)] = True
    changed: Longs | None = None
    while changed is None or len(changed):
        changed = _restored(kept, rings, plane, changed)
        kept[changed] = True
    sizes = np.add.reduceat(kept.astype(np.int64), rings.offsets[:-1])
    return Rings(rings.xy[kept], np.concatenate([[0], np.cumsum(sizes)]), rings.body)


def _anchors(rings: Rings, plane: Floats) -> Bools:
    """Vertices that stay: where rings touch, and three of every ring."""
    starts, lengths = rings.offsets[:-1], np.diff(rings.offsets)
    kept = np.zeros(len(rings.xy), bool)
    kept[starts], kept[rings.offsets[1:] - 1] = True, True
    ring = np.repeat(np.arange(len(starts)), lengths)
    far = _highest(np.hypot(*(plane - plane[starts][ring]).T), ring)
    kept[far] = True
    kept[_highest(_off_chord(plane, np.arange(len(plane)), starts[ring], far[ring]), ring)] = True
    column, row = rings.xy.astype(np.int64).T
    open_vertices = np.delete(np.arange(len(plane)), rings.offsets[1:] - 1)
    _, first, count = np.unique((column << 32 | row)[open_vertices], return_inverse=True, return_counts=True)
    kept[open_vertices[count[first] > 1]] = True
    return kept


def _chords(kept: Bools, rings: Rings) -> tuple[Longs, Longs]:
    """Positions of the two ends of every stretch between neighbouring kept vertices."""
    at = np.flatnonzero(kept)
    starts_ring = np.zeros(len(kept), bool)
    starts_ring[rings.offsets[:-1]] = True
    inside = ~starts_ring[at[1:]]
    return at[:-1][inside], at[1:][inside]


def _douglas_peucker(plane: Floats, start: Longs, end: Longs, tolerance: float) -> Longs:
    """Positions that stay; each vertex carries its position as z through GEOS."""
    at, stretch = ranges(start, end + 1)
    lines = shapely.linestrings(np.column_stack([plane[at], at]), indices=stretch)
    short = shapely.simplify(lines, tolerance, preserve_topology=False)
    positions: Longs = shapely.get_coordinates(short, include_z=True)[:, 2].astype(np.int64)
    return positions


def _restored(kept: Bools, rings: Rings, plane: Floats, changed: Longs | None) -> Longs:
    """Positions of vertices to be put back, given those put back last (None: look everywhere)."""
    start, end = _chords(kept, rings)
    fresh = np.ones(len(start), bool)
    if changed is not None:
        new = np.zeros(len(kept), bool)
        new[changed] = True
        fresh = new[start] | new[end]
    # Topology in whole pixels, where it is exact; the plane, a little bent, is for distances only.
    guilty = _meeting(rings, start, end, fresh) | _jumping(kept, rings, start, end, fresh)
    guilty &= end - start > 1
    start, end = start[guilty], end[guilty]
    at, stretch = ranges(start + 1, end)
    return at[_highest(_off_chord(plane, at, start[stretch], end[stretch]), stretch)] if len(at) else at


def _meeting(rings: Rings, start: Longs, end: Longs, fresh: Bools) -> Bools:
    """Chords that meet another one, but at a common end."""
    chords = shapely.linestrings(np.stack([rings.xy[start], rings.xy[end]], axis=1))
    one, other = shapely.STRtree(chords).query(chords[fresh], predicate="intersects")
    one = np.flatnonzero(fresh)[one]
    a, b, c, d = (_spot(rings, at) for at in (start[one], end[one], start[other], end[other]))
    apart = (a != c) & (a != d) & (b != c) & (b != d)
    met = np.zeros(len(start), bool)
    met[one[apart]], met[other[apart]] = True, True
    return met


def _spot(rings: Rings, at: Longs) -> Longs:
    """The same number for vertices at the same place."""
    column, row = rings.xy[at].astype(np.int64).T
    spot: Longs = column << 32 | row
    return spot


def _jumping(kept: Bools, rings: Rings, start: Longs, end: Longs, fresh: Bools) -> Bools:
    """Chords with a ring between them and the vertices they stand for: one kept vertex there is enough."""
    jumped = np.zeros(len(start), bool)
    wide = np.flatnonzero(fresh & (end - start > 1))
    if len(wide):
        at, stretch = ranges(start[wide], end[wide] + 1)
        between = shapely.polygons(shapely.linearrings(rings.xy[at], indices=stretch))
        tree = shapely.STRtree(shapely.points(rings.xy[kept]))
        jumped[wide[tree.query(between, predicate="contains")[0]]] = True
    return jumped


def _highest(values: Floats, group: Longs) -> Longs:
    """Position of the first highest value of each group; groups are 0, 1, ... in order."""
    top = np.maximum.reduceat(values, np.flatnonzero(np.diff(group, prepend=-1)))
    hit = np.flatnonzero(values == top[group])
    first: Longs = hit[np.diff(group[hit], prepend=-1) != 0]
    return first


def _off_chord(plane: Floats, at: Longs, start: Longs, end: Longs) -> Floats:
    """Distance of vertices from the chord between two others."""
    along, out = plane[end] - plane[start], plane[at] - plane[start]
    square = np.maximum((along**2).sum(axis=1), _LARGEST_MISS**2)
    share = np.clip((out * along).sum(axis=1) / square, 0.0, 1.0)
    distance: Floats = np.hypot(*(out - share[:, None] * along).T)
    return distance

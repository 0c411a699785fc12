"""Islands taken out of a mesh, so that the water is seen as if they were not there."""

from __future__ import annotations

import numpy as np
import shapely
from scipy.spatial import Delaunay

from geosam.rivers.axis import Mesh, mesh_from, mesh_of
from geosam.rivers.banks import Banks, Bools
from geosam.rivers.triangles import areas_of

_WHOLE = 1e-6
"""Triangles put into a gap are all of it where their area is that of the gap but for this part."""


def filled(mesh: Mesh, small: Bools) -> Mesh:
    """The mesh of the same water without some islands, as :func:`mesh_of` would make it anew.

    A Delaunay triangle stays one when other points go, so only the gaps around the islands get new triangles, and
    these have their corners on the gap's own edge. Triangulating everything again would take as long as at first.

    Args:
        mesh: Triangles of water.
        small: Which rings of its banks go, shape (rings,); not the outer one.
    """
    banks = mesh.banks
    gone = small[banks.ring]
    beside = gone[mesh.corners].any(axis=1)
    islands = np.array([shapely.Polygon(banks.xy[start:end]) for start, end in _spans(banks, small)], object)
    edge = np.unique(mesh.corners[beside])
    edge = edge[~gone[edge]]
    new = edge[Delaunay(banks.xy[edge]).simplices]
    triangles = shapely.polygons(banks.xy[mesh.corners[beside]])
    gap = np.concatenate([triangles, islands])
    middles = shapely.points(banks.xy[new].mean(axis=1))
    new = new[np.unique(shapely.STRtree(gap).query(middles, predicate="within")[0])]
    wanted, found = shapely.area(gap).sum(), areas_of(banks.xy, new).sum()
    if abs(found - wanted) > _WHOLE * wanted:  # not seen yet, but four points on one circle can be had two ways
        return mesh_of(banks.without(small))
    number = np.cumsum(~gone) - 1
    return mesh_from(banks.without(small), number[np.concatenate([mesh.corners[~beside], new])])


def _spans(banks: Banks, rings: Bools) -> list[tuple[int, int]]:
    """First point and end of some rings."""
    return [(int(banks.offsets[k]), int(banks.offsets[k + 1])) for k in np.flatnonzero(rings)]

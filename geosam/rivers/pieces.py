"""A water body cut along sides of its triangles."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geosam.rivers.axis import Mesh
from geosam.rivers.banks import Banks, Bools, Geometries, Longs


def pieces_of(mesh: Mesh, border: Longs, chosen: Bools) -> tuple[Geometries, Bools]:
    """The water in pieces.

    Its banks and the cuts are put together as lines, and not the triangles as areas: a large scene has millions of
    these, and as polygons they would take gigabytes.

    Args:
        mesh: Triangles of the water.
        border: The two points of each side along which it is cut, shape (k, 2).
        chosen: Triangles on one side of the cuts, shape (triangles,).

    Returns:
        Polygons, shape (n,), and which of them are made of chosen triangles, shape (n,).
    """
    sides = shapely.linestrings(mesh.banks.xy[border])
    faces = shapely.get_parts(shapely.polygonize([*_runs(mesh.banks, np.unique(border)), *sides]))
    first = _one_of_each(mesh, chosen)
    middles = shapely.points(mesh.banks.xy[mesh.corners[first]].mean(axis=1))
    which, face = shapely.STRtree(faces).query(middles)
    shapely.prepare(faces)
    inside = shapely.contains(faces[face], middles[which])  # of islands too lines make a face, without triangles
    shapely.destroy_prepared(faces)
    face, order = np.unique(face[inside], return_index=True)
    return faces[face], chosen[first[which[inside][order]]]


def without(polygons: Geometries, islets: Geometries) -> list[shapely.Polygon]:
    """Polygons less others; those that meet none stay as they are."""
    which, islet = shapely.STRtree(islets).query(polygons, predicate="intersects")
    cut = polygons.copy()
    for k in np.unique(which).tolist():
        cut[k] = shapely.difference(polygons[k], shapely.union_all(islets[islet[which == k]]))
    return list(shapely.get_parts(cut))


def _runs(banks: Banks, nodes: Longs) -> list[shapely.LineString]:
    """The rings of banks as lines from one of some points to the next; closed ones where a ring has none."""
    lines = []
    ring = banks.ring[nodes]
    for number, (start, end) in enumerate(zip(banks.offsets[:-1].tolist(), banks.offsets[1:].tolist(), strict=True)):
        at = nodes[np.searchsorted(ring, number) : np.searchsorted(ring, number, "right")] - start
        first = int(at[0]) if len(at) else 0
        xy = np.roll(banks.xy[start:end], -first, axis=0)
        ends = [*(at - first).tolist(), end - start] if len(at) else [0, end - start]
        xy = np.concatenate([xy, xy[:1]])
        lines += [shapely.LineString(xy[a : b + 1]) for a, b in pairwise(ends)]
    return lines


def _one_of_each(mesh: Mesh, chosen: Bools) -> Longs:
    """A triangle of every piece, shape (n,)."""
    one, other = mesh.pairs[chosen[mesh.pairs[:, 0]] == chosen[mesh.pairs[:, 1]]].T
    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(len(chosen), len(chosen)))
    _, part = connected_components(graph, directed=False)
    return np.unique(part, return_index=True)[1]

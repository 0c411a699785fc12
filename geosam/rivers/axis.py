"""The medial axis of a water body: the centres of the largest circles that fit between its banks.

It comes from the Delaunay triangles of points on the banks: the circle through the corners of a triangle in the water
touches the banks there and nowhere else. So memory and time follow the length of the banks, not the area: thinning a
mask of 20,000 x 20,000 px needs gigabytes, and as many passes as the widest river has pixels from bank to middle.

Source: Brandt and Algazi (1992), Continuous skeleton computation by Voronoi diagram; Ogniewicz and Kuebler (1995),
Hierarchic Voronoi skeletons, for what a branch tells about the bank that it leads to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geosam.rivers.banks import Banks, Bools, Floats, Longs
from geosam.rivers.triangles import areas_of, circles_of, wet_triangles

HAIR_PX = 4.0
"""Branches to a bump that makes the bank longer by less than so many pixels are noise of the outline."""
HAIR_CORNER = 0.8
"""So are those to a bump longer by less than so many radii: a right angle, as at a scene's edge, has 0.59."""
_MOST_REFINEMENTS = 12


@dataclass(frozen=True)
class Mesh:
    """Delaunay triangles of the banks, those in the water, as a graph: two are joined that share a side."""

    banks: Banks
    """The points, with more of them where the banks come very close."""
    corners: Longs
    """Points of each triangle, shape (n, 3)."""
    pairs: Longs
    """Neighbouring triangles, shape (m, 2)."""
    sides: Longs
    """The two points of the side that each pair shares, shape (m, 2)."""
    shore: Longs
    """Triangle behind the piece of bank that starts at each point, shape (points,); -1: none."""

    @property
    def areas(self) -> Floats:
        """Area of each triangle in m², shape (n,)."""
        return areas_of(self.banks.xy, self.corners)


@dataclass(frozen=True)
class Axis:
    """A medial axis as a graph, without the hair that leads to every bump of the banks."""

    xy: Floats
    """Centre of each triangle's circle in metres, shape (n, 2)."""
    radius: Floats
    """Its radius, shape (n,)."""
    edges: Longs
    """What is left of the pairs of triangles, shape (m, 2)."""
    parent: Longs
    """Of a triangle that lies off the axis the next one towards it, of one on the axis itself, shape (n,)."""


def mesh_of(banks: Banks) -> Mesh:
    """Triangles of the water between banks; every piece of bank is a side of one."""
    for _ in range(_MOST_REFINEMENTS):
        corners = wet_triangles(banks)
        missing = _missing(banks, corners)
        if len(missing) == 0:
            break
        banks = banks.refined(missing)
    return mesh_from(banks, corners)


def _missing(banks: Banks, triangles: Longs) -> Longs:
    """Points whose piece of bank is no side of a triangle, since another bank is nearer than its ends."""
    found = np.zeros(len(banks.xy), bool)
    for a, b in ((0, 1), (1, 2), (2, 0)):
        for one, other in ((triangles[:, a], triangles[:, b]), (triangles[:, b], triangles[:, a])):
            found[one[banks.following[one] == other]] = True
    return np.flatnonzero(~found)


def mesh_from(banks: Banks, corners: Longs) -> Mesh:
    """A mesh of triangles whose neighbours are not known yet; ``corners`` has shape (n, 3)."""
    one, other = (corners[:, [(k + shift) % 3 for k in range(3)]].T.ravel() for shift in (1, 2))
    triangle = np.tile(np.arange(len(corners)), 3)
    first = np.where(banks.following[one] == other, one, other)
    is_bank = (banks.following[one] == other) | (banks.following[other] == one)
    shore = np.full(len(banks.xy), -1)
    shore[first[is_bank]] = triangle[is_bank]
    one, other, triangle = one[~is_bank], other[~is_bank], triangle[~is_bank]
    key = np.minimum(one, other) * np.int64(len(banks.xy)) + np.maximum(one, other)
    order = np.argsort(key, kind="stable")
    same = np.flatnonzero(np.diff(key[order]) == 0)
    here, there = order[same], order[same + 1]
    pairs = np.sort(np.stack([triangle[here], triangle[there]], 1), axis=1)
    return Mesh(banks, corners, pairs, np.stack([one[here], other[here]], 1), shore)


def axis_of(mesh: Mesh, pixel_m: float, at_edge: Bools | None = None) -> Axis:
    """The medial axis of a mesh.

    Args:
        mesh: Triangles of the water.
        pixel_m: Size of a pixel; bumps smaller than some of them get no branch.
        at_edge: Points of the banks that are the scene's edge, shape (points,): nor do the corners between edge and
            bank get one, which are no end of the water.
    """
    xy, radius = circles(mesh)
    detour = mesh.banks.gap(mesh.sides[:, 0], mesh.sides[:, 1])
    hair = detour < np.maximum(HAIR_PX * pixel_m, HAIR_CORNER * radius[mesh.pairs].max(axis=1))
    if at_edge is not None:
        beside = np.any(at_edge[mesh.corners], axis=1, keepdims=True)[:, 0]
        kept, parent = _shaved(mesh.pairs, hair | beside[mesh.pairs].all(axis=1), len(mesh.corners))
        if kept.any():
            return Axis(xy, radius, mesh.pairs[kept], parent)
    kept, parent = _shaved(mesh.pairs, hair, len(mesh.corners))
    return Axis(xy, radius, mesh.pairs[kept], parent)


def circles(mesh: Mesh) -> tuple[Floats, Floats]:
    """Centres and radii of the circles through the corners of every triangle."""
    return circles_of(mesh.banks.xy, mesh.corners)


def _shaved(pairs: Longs, hair: Bools, count: int) -> tuple[Bools, Longs]:
    """Take hair off from its tips inward, so that nothing is ever cut in two.

    Args:
        pairs: Edges of the graph, shape (m, 2).
        hair: Edges that may go, shape (m,).
        count: Number of nodes.

    Returns:
        Edges that stay, shape (m,), and the next node towards the axis of each node, shape (count,).
    """
    kept = np.ones(len(pairs), bool)
    parent = np.arange(count)
    degree = np.bincount(pairs.ravel(), minlength=count)
    loose = np.flatnonzero(hair)
    while True:
        one, other = pairs[loose].T
        tip = (degree[one] == 1) | (degree[other] == 1)
        if not tip.any():
            return kept, parent
        one, other = one[tip], other[tip]
        ends_first = degree[one] == 1
        leaf, stem = np.where(ends_first, one, other), np.where(ends_first, other, one)
        parent[leaf] = stem
        kept[loose[tip]] = False
        np.subtract.at(degree, np.concatenate([leaf, stem]), 1)
        loose = loose[~tip]

"""Walks along the boundary: each within a band of rows first, then joined where they cross from band to band.

Horizontal edges follow each other over vertical ones. Within a band of rows the corners, sorted by column, pair up
as vertical edges; what finds no partner crosses the band's upper or lower seam. Sorted by column once
more, those that are left over pair up across the seams, whatever the bands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from geosam.vector.corners import DIAGONAL, Bools, Bytes, Edges, Ints, Longs


@dataclass(frozen=True)
class Walk:
    """Items in the order of walking, path by path. Paths are numbered by their first items, which ascend."""

    order: Longs
    """All items, shape (n,)."""
    first: Longs
    """First item of each path, ascending, shape (paths,)."""
    start: Longs
    """Where each path starts in ``order``, shape (paths,)."""
    size: Longs
    """Items of each path, shape (paths,)."""

    @property
    def last(self) -> Longs:
        """Last item of each path, shape (paths,)."""
        last: Longs = self.order[self.start + self.size - 1]
        return last


def walk(following: Longs) -> Walk:
    """Follow every item to the one after it.

    A path is a cycle, from its smallest item on, or a chain; a chain is cut into two before its smallest
    item, unless it begins with it.

    Args:
        following: The item after each, -1 where there is none, shape (n,); none is after two.
    """
    count = len(following)
    onward = following >= 0
    before = np.full(count, -1)
    before[following[onward]] = np.flatnonzero(onward)
    begins, ends = np.flatnonzero(before < 0), np.flatnonzero(~onward)
    labels = connected_components(_graph(following), directed=True, connection="weak")[1]
    smallest = np.empty(int(labels.max(initial=-1)) + 1, np.int64)
    smallest[labels[::-1]] = np.arange(count)[::-1]  # of equal places the one written last stays
    begin = smallest.copy()
    begin[labels[begins]] = begins
    end = before[begin]
    end[labels[ends]] = ends
    # Tied one to the next they make one long path, which scipy walks in compiled code.
    tied = following.copy()
    tied[end[:-1]], tied[end[-1:]] = begin[1:], -1
    order = breadth_first_order(_graph(tied), begin[0], return_predecessors=False) if count else np.zeros(0)
    cuts = np.zeros(count, bool)
    cuts[smallest], cuts[begins] = True, True
    return _cut(order.astype(np.int64), cuts)


def _graph(following: Longs) -> csr_array:
    """The graph with one edge from every item to the one that follows it."""
    onward = following >= 0
    bounds = np.concatenate([[0], np.cumsum(onward)]).astype(np.int32)
    shape = (len(following), len(following))
    return csr_array((np.ones(bounds[-1]), following[onward].astype(np.int32), bounds), shape=shape)


def _cut(order: Longs, cuts: Bools) -> Walk:
    """Cut a walk before the items where ``cuts`` is True."""
    places = np.flatnonzero(cuts[order])
    number = (np.cumsum(cuts) - 1)[order[places]]
    start, size = np.empty_like(places), np.empty_like(places)
    start[number], size[number] = places, np.diff(places, append=len(order))
    return Walk(order, np.flatnonzero(cuts), start, size)


@dataclass(frozen=True)
class Crossings:
    """Where paths cross the seams of their band."""

    path: Longs
    """The path, shape (n,)."""
    leaves: Bools
    """True where it leaves the band, False where it enters, shape (n,)."""
    column: Longs
    """Column of pixel corners, shape (n,)."""
    below: Bools
    """True on the band's lower seam, False on its upper one, shape (n,)."""


@dataclass(frozen=True)
class Paths:
    """Paths along the boundary within a band, in the order of their first edges."""

    xy: Ints
    """Vertices in the order of walking, (column, row) of pixel corners, shape (n, 2)."""
    start: Longs
    """Where each path starts in ``xy``, shape (paths,)."""
    size: Longs
    """Vertices of each path, shape (paths,)."""
    body: Ints
    """Water body of each path, shape (paths,)."""
    following: Longs
    """The path after each, -1 where it leaves the band, shape (paths,)."""
    crossings: Crossings


def paths_of(edges: Edges) -> Paths:
    """Paths along the boundary within a band of rows.

    Water lies on the left when the raster is looked at with row 0 at the top.
    """
    kind, col = edges.kind.reshape(-1), edges.col.reshape(-1)
    # Water above: walk to the right, else to the left.
    right = ((edges.kind[:, 0] >> 1) ^ (edges.kind[:, 0] >> 2)) & 1 == 0
    left_corner = np.arange(0, len(kind), 2)
    tail, head = left_corner + ~right, left_corner + right
    partner = _vertical_partner(col, kind)
    following = partner[head] >> 1
    steps = walk(following)
    corner = np.stack([tail[steps.order], head[steps.order]], axis=1).reshape(-1)
    xy = np.stack([col[corner], edges.row[corner >> 1]], axis=1)
    after = _numbers(steps.first, len(following))[following[steps.last]]
    crossings = _crossings(tail[steps.first], head[steps.last], partner, col, kind)
    return Paths(xy, 2 * steps.start, 2 * steps.size, edges.body[steps.first], after, crossings)


def _numbers(first: Longs, count: int) -> Longs:
    """Number of the path that begins with an edge, -1 where none does; one more, so that of edge -1 it is -1."""
    number = np.full(count + 1, -1)
    number[first] = np.arange(len(first))
    return number


def _crossings(first: Longs, last: Longs, partner: Longs, col: Ints, kind: Bytes) -> Crossings:
    """Where paths, from their first to their last corner, find no partner in the band."""
    entering, leaving = np.flatnonzero(partner[first] < 0), np.flatnonzero(partner[last] < 0)
    corner = np.concatenate([first[entering], last[leaving]])
    leaves = np.arange(len(corner)) >= len(entering)
    return Crossings(
        np.concatenate([entering, leaving]), leaves, col[corner].astype(np.int64), _runs_down(kind[corner])
    )


def _runs_down(kind: Bytes) -> Bools:
    """True where a corner's vertical edge runs down."""
    down: Bools = kind & 2 > 0
    return down


def _vertical_partner(col: Ints, kind: Bytes) -> Longs:
    """For every corner, in raster order, the one at the other end of its vertical edge; -1: it is in another band."""
    down = _runs_down(kind)
    order = _by_column(col, kind, down)
    upper, lower = order[:-1], order[1:]
    joined = down[upper] & (col[upper] == col[lower])
    partner = np.full(len(order), -1)
    partner[upper[joined]], partner[lower[joined]] = lower[joined], upper[joined]
    return partner


def _by_column(col: Ints, kind: Bytes, down: Bools) -> Longs:
    """Corners by column, then row; of two at one place the one whose edge runs up comes first."""
    corners = np.arange(len(col))
    first = np.flatnonzero(kind & DIAGONAL)[0::2]
    wrong = first[down[first]]
    corners[wrong], corners[wrong + 1] = wrong + 1, wrong
    # Turned from rows to columns, a sparse matrix of one row has been sorted by counting: 5 ns a corner, where
    # a sort of numbers took 70.
    row = csr_array((corners, col, np.array([0, len(col)])), shape=(1, int(col.max()) + 1))
    order: Longs = row.tocsc().data
    return order


def joined(bands: list[Paths]) -> Longs:
    """The path after each path of all bands, from top to bottom, numbered through."""
    bases = np.cumsum([0, *(len(band.start) for band in bands)])
    numbered = list(zip(bands, bases.tolist(), strict=False))
    following = np.concatenate([np.where(band.following < 0, -1, band.following + base) for band, base in numbered])
    path = np.concatenate([band.crossings.path + base for band, base in numbered])
    leaves = np.concatenate([band.crossings.leaves for band in bands])
    # In each column from top to bottom: a lower seam, the upper seam of a band below, and so on.
    key = [band.crossings.column << 32 | number << 1 | band.crossings.below for number, band in enumerate(bands)]
    above, below = np.argsort(np.concatenate(key)).reshape(-1, 2).T
    following[path[np.where(leaves[above], above, below)]] = path[np.where(leaves[above], below, above)]
    return following

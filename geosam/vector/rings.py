"""From boundary corners to rings and polygons, in whole pixels, without a loop over rings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from geosam.vector.corners import Bools, Bytes, Corners, Floats, Ints, Longs

BATCH_CORNERS = 500_000
"""Corners turned into rings in one go, about 150 bytes each while it lasts; one water body is never cut."""


@dataclass(frozen=True)
class Rings:
    """Closed rings of whole water bodies; the first ring of a body is its outer one, the others are holes."""

    xy: Floats
    """Vertices, (column, row) of pixel corners or another (x, y), every ring closed, shape (n, 2)."""
    offsets: Longs
    """Where each ring starts in ``xy``, and its end, shape (rings + 1,)."""
    body: Longs
    """Water body of each ring, ascending, shape (rings,)."""

    def outer(self) -> Bools:
        """True for the outer ring of each body, shape (rings,)."""
        outer: Bools = np.diff(self.body, prepend=-1) != 0
        return outer

    def keep(self, kept: Bools) -> Rings:
        """Only these rings."""
        lengths = np.diff(self.offsets)
        offsets = np.concatenate([[0], np.cumsum(lengths[kept])])
        return Rings(self.xy[np.repeat(kept, lengths)], offsets, self.body[kept])

    def polygons(self) -> npt.NDArray[np.object_]:
        """One shapely Polygon a body, shape (bodies,)."""
        first = np.flatnonzero(self.outer())
        offsets = (self.offsets, np.concatenate([first, [len(self.body)]]))
        polygons: npt.NDArray[np.object_] = shapely.from_ragged_array(shapely.GeometryType.POLYGON, self.xy, offsets)
        return polygons


def rings_of(polygons: npt.NDArray[np.object_]) -> Rings:
    """The rings of shapely Polygons, body i being polygon i."""
    _, xy, (offsets, first) = shapely.to_ragged_array(polygons)
    return Rings(xy, offsets.astype(np.int64), np.repeat(np.arange(len(polygons)), np.diff(first)))


def trace(corners: Corners) -> Iterator[Rings]:
    """Rings of all water bodies, some whole bodies at a time, in (column, row).

    Water lies on the left when the raster is looked at with row 0 at the top.
    """
    if not len(corners.body):
        return
    batch = _batches(corners)
    order = np.argsort(batch, kind="stable")  # a radix sort, since batches are uint16; raster order stays
    for part in np.split(order, np.cumsum(np.bincount(batch))[:-1]):
        yield _trace(corners.row[part], corners.col[part], corners.kind[part], corners.body[part])


def _batches(corners: Corners) -> npt.NDArray[np.uint16]:
    """Batch of every corner: bodies in turn, until a batch is full."""
    before = np.cumsum(np.bincount(corners.body))
    _, batch = np.unique(before // BATCH_CORNERS, return_inverse=True)
    return batch.astype(np.uint16)[corners.body]


def _trace(row: Ints, col: Ints, kind: Bytes, body: Ints) -> Rings:
    """Rings of one batch, whose corners are in raster order.

    In raster order corners 2k and 2k + 1 are the ends of one horizontal edge. Sorted by column they
    pair up as vertical edges. Edges followed that way make rings.
    """
    above = ((kind[0::2] >> 1) ^ (kind[0::2] >> 2)) & 1 == 0  # water above: walk to the right, else to the left
    edges = np.arange(len(above))
    tail, head = 2 * edges + ~above, 2 * edges + above
    following = _vertical_partner(row, col, kind)[head] >> 1
    order, ring_sizes = _follow(following)
    body_of_ring = body[2 * order[np.cumsum(ring_sizes) - ring_sizes]]
    # The ring that holds a body's first corner is its outer one, and rings come by their first corner.
    ring_order = np.argsort(body_of_ring, kind="stable")
    return _closed(row, col, np.stack([tail[order], head[order]], axis=1), ring_sizes, ring_order, body_of_ring)


def _vertical_partner(row: Ints, col: Ints, kind: Bytes) -> Longs:
    """For every corner the one at the other end of its vertical edge."""
    key = (col.astype(np.int64) << 32) | (row.astype(np.int64) << 1) | ((kind >> 1) & 1)
    order = np.argsort(key)
    partner = np.empty(len(order), np.int64)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    return partner


def _follow(following: Longs) -> tuple[Longs, Longs]:
    """Walk a permutation's cycles: all its items, cycle by cycle, and the length of each cycle.

    Cycles come by their smallest item and start with it. Cutting every cycle open and tying it to
    the next makes one long path, which scipy walks in compiled code.
    """
    count = len(following)
    labels = connected_components(_graph(following), directed=True, connection="weak")[1]
    starts = np.full(int(labels.max(initial=-1)) + 1, count)
    np.minimum.at(starts, labels, np.arange(count))
    starts.sort()
    following = following.copy()
    lasts = np.empty(count, np.int64)
    lasts[following] = np.arange(count)
    following[lasts[starts]] = np.roll(starts, -1)
    order = breadth_first_order(_graph(following), 0, return_predecessors=False).astype(np.int64)
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    return order, np.diff(place[starts], append=count)


def _graph(following: Longs) -> csr_array:
    """The graph with one edge from every item to the one that follows it."""
    count = len(following)
    bounds = np.arange(count + 1, dtype=np.int32)
    return csr_array((np.ones(count), following.astype(np.int32), bounds), shape=(count, count))


def _closed(row: Ints, col: Ints, walk: Longs, sizes: Longs, ring_order: Longs, body: Ints) -> Rings:
    """Put rings in their order and close them; ``walk`` is (edges, 2), tail and head of each edge."""
    starts = (np.cumsum(sizes) - sizes)[ring_order]
    sizes = sizes[ring_order]
    ends = np.cumsum(2 * sizes + 1)
    at = np.arange(int(ends[-1])) - np.repeat(ends - (2 * sizes + 1), 2 * sizes + 1)
    at[ends - 1] = 0  # the closing vertex is the first again
    corner = walk.reshape(-1)[np.repeat(2 * starts, 2 * sizes + 1) + at]
    xy = np.stack([col[corner], row[corner]], axis=1).astype(np.float64)
    return Rings(xy, np.concatenate([[0], ends]), body[ring_order].astype(np.int64))

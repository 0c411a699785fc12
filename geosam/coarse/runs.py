"""Class rasters as runs, and the connected pieces of one strip.

A run is a maximal stretch of one class within one row. Natural masks have a run per 20 to 500
pixels, so pieces are joined by comparing runs of neighbouring rows rather than pixels: ten times
less to do than labelling the raster twice (water, then land).

Water is connected by edges and corners, land by edges only: its dual, so that a diagonal one-pixel
creek is one creek and parts the land on both sides of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

Ints = NDArray[np.int64]
Bool = NDArray[np.bool_]
UInt8 = NDArray[np.uint8]

DRY, WATER, UNKNOWN = 0, 1, 255

_PIECE_PX = 1 << 20
"""Pixels compared with their neighbours at once: the bytes that say where runs begin stay in the cache."""


@dataclass(frozen=True)
class Runs:
    """A class raster of shape (height, width), row after row."""

    starts: Ints
    """First pixel of each run as row * width + column, ascending, shape (n,)."""
    values: UInt8
    """Class of each run: 0 dry, 1 water, 255 unknown; shape (n,)."""
    height: int
    width: int

    @classmethod
    def of(cls, classes: UInt8) -> Runs:
        """The runs of a class raster of shape (h, w)."""
        height, width = classes.shape
        rows = max(1, _PIECE_PX // width)
        starts = np.concatenate([_begins(classes[row : row + rows]) + row * width for row in range(0, height, rows)])
        return cls(starts, classes.ravel()[starts], height, width)

    @property
    def lengths(self) -> Ints:
        """Pixels of each run, shape (n,)."""
        return np.diff(self.starts, append=self.height * self.width)

    def in_row(self, row: int) -> slice:
        """The runs of one row."""
        first, last = np.searchsorted(self.starts, [row * self.width, (row + 1) * self.width])
        return slice(int(first), int(last))


def _begins(rows: UInt8) -> Ints:
    """Flat positions in some rows at which a run begins."""
    flat = rows.ravel()
    begins = np.empty(flat.size, np.bool_)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    begins[:: rows.shape[1]] = True
    return np.flatnonzero(begins)


@dataclass(frozen=True)
class Contacts:
    """Pairs of touching runs, as indices; each array of shape (n, 2)."""

    edges: Ints
    """Runs of neighbouring rows that share a pixel edge."""
    corners: Ints
    """Runs of neighbouring rows that touch at a corner only."""
    along: Ints
    """Neighbours within a row."""


def contacts(runs: Runs) -> Contacts:
    """All pairs of runs that touch; a pair may be listed twice."""
    starts, width = runs.starts, runs.width
    first_below = int(np.searchsorted(starts, width))
    last_above = int(np.searchsorted(starts, (runs.height - 1) * width))
    lower = np.arange(first_below, starts.size)
    above = np.searchsorted(starts, starts[first_below:] - width, side="right") - 1
    upper = np.arange(last_above)
    below = np.searchsorted(starts, starts[:last_above] + width, side="right") - 1
    # Of two overlapping runs the later start falls into the other. Where both start in the same
    # column the pair was found from below already, and their left neighbours meet at corners.
    level = starts[above] == starts[lower] - width
    inner = level & (starts[lower] % width > 0)
    fresh = starts[below] != starts[upper] + width
    edges = np.concatenate([np.stack([above, lower], 1), np.stack([upper[fresh], below[fresh]], 1)])
    up, low = above[inner], lower[inner]
    corners = np.concatenate([np.stack([up - 1, low], 1), np.stack([up, low - 1], 1)])
    right = np.flatnonzero(starts[1:] % width > 0) + 1
    return Contacts(edges, corners, np.stack([right - 1, right], 1))


def same_pieces(runs: Runs, touching: Contacts) -> Ints:
    """Pairs of runs that belong to one piece: water by edges and corners, land and unknown by edges."""
    edges, corners, values = touching.edges, touching.corners, runs.values
    same = edges[values[edges[:, 0]] == values[edges[:, 1]]]
    wet = corners[(values[corners] == WATER).all(axis=1)]
    return np.concatenate([same, wet])


def join(count: int, pairs: Ints) -> tuple[int, Ints]:
    """Number the connected pieces of ``count`` nodes.

    Args:
        count: Nodes.
        pairs: Joined nodes, shape (n, 2).

    Returns:
        The number of pieces, and the piece of each node, shape (count,).
    """
    if len(pairs) == 0:
        return count, np.arange(count)
    links = np.ones(len(pairs), np.bool_)
    graph = sparse.coo_array((links, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    pieces, labels = csgraph.connected_components(graph, directed=False)
    return int(pieces), labels.astype(np.int64)


def any_of(labels: Ints, count: int, where: Ints | Bool) -> Bool:
    """Whether any of the chosen members of each label's group is there, shape (count,)."""
    flags = np.zeros(count, np.bool_)
    flags[labels[where]] = True
    return flags

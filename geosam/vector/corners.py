"""The boundary of the water, found strip by strip as horizontal edges between corners.

A water mask's boundary is fixed by its corners: the pixel corners where the boundary turns. A
corner is seen in a 2 x 2 neighbourhood, so strips that share one row see exactly the corners
that one pass over the whole raster would see, and nothing has to be glued at a seam. In raster
order two corners after each other are the ends of one horizontal edge. What does cross seams is
only which water body an edge belongs to; that is kept as labels, with a list of labels to be joined.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from geosam.vector.ordered import Crew

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

CHUNK_PX = 1 << 20
"""Pixels looked at in one go: a chunk's half dozen byte arrays stay in the cache (8 Mpx took 1.3 times as long)."""

PROBABILITY_UNIT = 1 << 20
"""Probabilities are summed as whole numbers of this many parts: exact sums, whatever the strips."""

# A corner's kind: bits 0-1 are the quadrant round which the boundary turns (0 upper left, 1 upper
# right, 2 lower left, 3 lower right), so bit 0 says that its horizontal edge runs to the right and
# bit 1 that its vertical edge runs down. Bit 2: the quadrant is dry (a concave corner).
CONCAVE = 4
DIAGONAL = 8
"""Two water pixels touch only at this corner; it is listed twice, once for each."""


def _kinds() -> tuple[Bytes, Bytes]:
    """Kind and water quadrant by 2 x 2 code (1 upper left, 2 upper right, 4 lower left, 8 lower right)."""
    kind, wet = np.zeros(16, np.uint8), np.zeros(16, np.uint8)
    for quadrant in range(4):
        kind[1 << quadrant], wet[1 << quadrant] = quadrant, quadrant
        kind[15 - (1 << quadrant)], wet[15 - (1 << quadrant)] = quadrant | CONCAVE, 3 - quadrant
    # The left one of the two comes first: 9 is upper left and lower right, 6 lower left and upper right.
    kind[9], wet[9] = DIAGONAL | 0, 0
    kind[6], wet[6] = DIAGONAL | 2, 2
    return kind, wet


_KIND, _WET = _kinds()


@dataclass(frozen=True)
class Edges:
    """Horizontal edges of the boundary, in raster order (by row, then column)."""

    row: Ints
    """Row of pixel corners on which the edge lies, 0 at the top edge of the raster, shape (n,)."""
    col: Ints
    """Columns of its left and its right corner, 0 at the left edge of the raster, shape (n, 2)."""
    kind: Bytes
    """Kinds of its left and its right corner: quadrant, concave bit and diagonal bit, shape (n, 2)."""
    body: Ints
    """The water body beside it, shape (n,)."""


@dataclass(frozen=True)
class Boundary:
    """The whole boundary of a raster's water. Bodies are numbered in the order of their first edge."""

    pixels: Longs
    """Water pixels of each body, shape (bodies,)."""
    probability: Floats
    """Mean probability of each body's pixels, NaN where none was given, shape (bodies,)."""
    edges: int
    """Horizontal edges in all."""
    _parts: deque[tuple[Edges, int]]
    _body_of: Ints

    def bands(self, least: int) -> Iterator[list[tuple[Edges, int]]]:
        """Hand out the edges from top to bottom, for :meth:`edges_of`, at least so many at a time, and forget them."""
        band: list[tuple[Edges, int]] = []
        count = 0
        while self._parts:
            band.append(self._parts.popleft())
            count += len(band[-1][0].row)
            if count >= least or not self._parts:
                yield band
                band, count = [], 0

    def edges_of(self, band: list[tuple[Edges, int]]) -> Edges:
        """The edges of a band, each with its body."""
        body = np.concatenate([self._body_of[part.body + base] for part, base in band])
        kind = np.concatenate([part.kind for part, _ in band])
        _turn_round_dry(kind.reshape(-1), body)
        row, col = np.concatenate([part.row for part, _ in band]), np.concatenate([part.col for part, _ in band])
        return Edges(row, col, kind, body)


def find_boundary(
    strips: Iterable[tuple[int, Bools, npt.NDArray[np.floating] | None]], width: int, crew: Crew
) -> Boundary:
    """The boundary of a water mask that comes in strips.

    Memory is 9 bytes a corner plus some chunks, whatever the raster's size.

    Args:
        strips: Row of the strip's first line in the raster, True where there is water, shape (h, width), and
            probability of water, same shape, 0 to 1, or None. From top to bottom; rows left out are dry.
        width: Columns of the raster.
        crew: Who looks at the chunks.

    Raises:
        ValueError: A strip has another width, or rows that were already taken.
    """
    joiner = _Joiner()
    for found in crew.map(_found, _chunks(strips, width)):
        if found is not None:
            joiner.add(found)
    return joiner.finish()


class _Chunk(NamedTuple):
    row: int
    """Row of its first line in the raster."""
    above: Bools
    """The row above it, shape (width,)."""
    water: Bools
    probability: npt.NDArray[np.floating] | None


def _chunks(strips: Iterable[tuple[int, Bools, npt.NDArray[np.floating] | None]], width: int) -> Iterator[_Chunk]:
    """Strips in smaller parts; one dry row wherever rows are left out, and at the end, closes what is open."""
    row, above, dry = 0, np.zeros(width, bool), np.zeros((1, width), bool)
    step = max(1, CHUNK_PX // width)
    for row_off, water, probability in strips:
        if water.ndim != 2 or water.shape[1] != width:
            raise ValueError(f"a strip must be (h, {width}), got {water.shape}")
        if row_off < row:
            raise ValueError(f"strips must come from top to bottom: row {row_off} after row {row}")
        if row_off > row:
            yield _Chunk(row, above, dry, None)
            above = dry[0]
        for start in range(0, len(water), step):
            part = slice(start, start + step)
            yield _Chunk(row_off + start, above, water[part], None if probability is None else probability[part])
            above = water[part][-1].copy()  # a copy, since a view would hold the whole strip
        row = row_off + len(water)
    yield _Chunk(row, above, dry, None)


# One chunk: done in any thread ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """What is in a chunk. Labels count from 0, one or more a body, the runs of the row above first."""

    edges: Edges
    """With labels for bodies."""
    above: int
    """Runs in the row above the chunk."""
    last: Ints
    """Labels of the runs in its last row."""
    joins: Longs
    """Pairs of labels that are one body, shape (2, n)."""
    first: Longs
    """First edge of every label, shape (labels,); the number of edges where it has none."""
    wet: Floats
    """Pixels by label."""
    chance: Floats
    """Sum of probabilities by label, in parts of 1 / PROBABILITY_UNIT."""


def _found(chunk: _Chunk) -> _Found | None:
    if not (chunk.above.any() or chunk.water.any()):
        return None
    flat, stride = _framed(chunk.above, chunk.water), len(chunk.above) + 1
    starts, ends = _runs(flat)
    label, joins, count = _labelled(starts, ends, stride)
    above, last = np.searchsorted(starts, (stride, len(chunk.water) * stride))
    edges = _edges(flat, starts, label, chunk.row, stride)
    first = np.full(count, len(edges.row))
    first[edges.body[::-1]] = np.arange(len(edges.row))[::-1]  # of equal places the one written last stays
    sums = _sums(chunk, label[above:], (ends - starts)[above:], count)
    return _Found(edges, int(above), label[last:], joins, first, *sums)


def _framed(above: Bools, water: Bools) -> Bools:
    """The chunk under the row above it, with a dry column on the left, flattened, and one dry pixel after it.

    The dry column also ends every row, since the flat neighbour of a row's last pixel is the next row's first.
    """
    height, width = water.shape
    flat = np.zeros((height + 1) * (width + 1) + 1, bool)
    frame = flat[:-1].reshape(height + 1, width + 1)
    frame[0, 1:], frame[1:, 1:] = above, water
    return flat


def _runs(flat: Bools) -> tuple[Longs, Longs]:
    """First pixel of every horizontal run of water, and the pixel after its last, as flat positions."""
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return changes[0::2], changes[1::2]


def _labelled(starts: Longs, ends: Longs, stride: int) -> tuple[Ints, Longs, int]:
    """Label of every run, pairs of labels to be joined, and the number of labels.

    A run has the label of the first run that it touches in the row above (4-connectivity, so they must share
    an edge); those of further ones are to be joined. A run without one has a label of its own.
    """
    first = np.searchsorted(ends, starts - stride, "right")
    past = np.searchsorted(starts, ends - stride, "left")
    own = np.arange(len(starts))
    root = np.where(past > first, first, own)
    while not np.array_equal(upper := root[root], root):
        root = upper
    alone = root == own
    label = (np.cumsum(alone) - 1).astype(np.int32)[root]
    wide = np.flatnonzero(past - first > 1)
    further, run = ranges(first[wide] + 1, past[wide])
    return label, np.stack([label[wide[run]], label[further]]).astype(np.int64), int(np.count_nonzero(alone))


def _edges(flat: Bools, starts: Longs, label: Ints, row: int, stride: int) -> Edges:
    at = _turns(flat, stride)
    code = flat[at] + 2 * flat[at + 1] + 4 * flat[at + stride] + 8 * flat[at + stride + 1].astype(np.uint8)
    twice = np.repeat(np.arange(len(at)), 1 + (_KIND[code] >= DIAGONAL))
    at, kind, wet = at[twice], _KIND[code[twice]], _WET[code[twice]]
    second = np.flatnonzero(kind & DIAGONAL)[1::2]
    kind[second] ^= 3
    wet[second] ^= 3
    left, quadrant = at[0::2], wet[0::2]
    pixel = left + (quadrant & 1) + np.where(quadrant >= 2, stride, 0)
    owner = label[np.searchsorted(starts, pixel, "right") - 1]
    line = left // stride
    col = at.reshape(-1, 2) - (line * stride)[:, None]
    return Edges((line + row).astype(np.int32), col.astype(np.int32), kind.reshape(-1, 2), owner)


def _turns(flat: Bools, stride: int) -> Longs:
    """Flat positions (of the upper left pixel) of the 2 x 2 neighbourhoods where the boundary turns."""
    edge = flat[stride:] != flat[:-stride]
    turn = edge[1:] != edge[:-1]
    crossing = edge[1:] & edge[:-1]
    crossing &= flat[stride + 1 :] != flat[stride:-1]
    turn |= crossing
    return np.flatnonzero(turn)


def _sums(chunk: _Chunk, label: Ints, length: Longs, count: int) -> tuple[Floats, Floats]:
    """Pixels and probabilities by label, run by run; whole numbers stay exact up to 2**53."""
    parts = np.full(len(length), np.nan)
    if chunk.probability is not None and len(length):
        wet = np.nan_to_num(chunk.probability[chunk.water].astype(np.float64), nan=0.0)
        parts = np.add.reduceat(np.rint(wet * PROBABILITY_UNIT), np.cumsum(length) - length)
    # astype: of nothing at all bincount makes whole numbers
    pixels, chance = (np.bincount(label, values, count).astype(np.float64) for values in (length, parts))
    return pixels, chance


def ranges(start: Longs, stop: Longs) -> tuple[Longs, Longs]:
    """All positions of several ranges, one after the other, and which range each is of."""
    size = stop - start
    which = np.repeat(np.arange(len(start)), size)
    return np.arange(len(which)) + (start - (np.cumsum(size) - size))[which], which


# All chunks: in order -------------------------------------------------------------------------------------------------


@dataclass
class _Joiner:
    """Collects what is found in the chunks, from top to bottom."""

    _parts: deque[tuple[Edges, int]] = field(default_factory=deque)
    _joins: list[Longs] = field(default_factory=lambda: [np.zeros((2, 0), np.int64)])
    _first: list[Longs] = field(default_factory=lambda: [np.zeros(0, np.int64)])
    _sums: list[tuple[Floats, Floats]] = field(default_factory=lambda: [(np.zeros(0), np.zeros(0))])
    _last: Longs = field(default_factory=lambda: np.zeros(0, np.int64))
    _labels: int = 0
    _edges: int = 0

    def add(self, found: _Found) -> None:
        base = self._labels
        seam = np.stack([self._last, base + np.arange(found.above)])  # the same runs, seen from both sides
        self._joins += [seam, found.joins + base]
        self._first.append(np.where(found.first < len(found.edges.row), found.first + self._edges, _NONE))
        self._sums.append((found.wet, found.chance))
        if len(found.edges.row):
            self._parts.append((found.edges, base))
        self._last = found.last.astype(np.int64) + base
        self._labels += len(found.first)
        self._edges += len(found.edges.row)

    def finish(self) -> Boundary:
        """Say which label is which body."""
        body_of, bodies = self._bodies()
        wet, chance = (np.concatenate(values) for values in zip(*self._sums, strict=True))
        pixels = np.bincount(body_of, wet, bodies)
        mean = np.bincount(body_of, chance, bodies) / (pixels * PROBABILITY_UNIT)
        return Boundary(pixels.astype(np.int64), mean, self._edges, self._parts, body_of)

    def _bodies(self) -> tuple[Ints, int]:
        """Body of every label; bodies are numbered by their first edge in raster order."""
        if not self._labels:
            return np.zeros(0, np.int32), 0
        one, other = np.concatenate(self._joins, axis=1)
        graph = csr_array((np.ones(len(one), np.uint8), (one, other)), shape=(self._labels, self._labels))
        count, component = connected_components(graph, directed=False)
        first = np.full(count, _NONE)
        np.minimum.at(first, component, np.concatenate(self._first))
        rank = np.empty(count, np.int32)
        rank[np.argsort(first)] = np.arange(count, dtype=np.int32)
        return rank[component], int(count)


_NONE = np.iinfo(np.int64).max
"""First edge of a label that has none: its runs lie between others of their body."""


def _turn_round_dry(kind: Bytes, body: Ints) -> None:
    """Where one body touches itself at a corner, turn round its two dry pixels instead of its two wet ones.

    A ring then never touches itself, so that the polygon is valid. ``kind``, two corners an edge, is changed in place.
    """
    twins = np.flatnonzero(kind & DIAGONAL).reshape(-1, 2)
    same = twins[body[twins[:, 0] >> 1] == body[twins[:, 1] >> 1]]
    kind[same] ^= CONCAVE | 2

"""Water bodies and their boundary corners, found strip by strip.

A water mask's boundary is fixed by its corners: the pixel corners where the boundary turns. A
corner is seen in a 2 x 2 neighbourhood, so strips that share one row see exactly the corners
that one pass over the whole raster would see, and nothing has to be glued at a seam. What does
cross seams is only which water body a corner belongs to; that is kept as labels, with a list of
labels to be joined.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

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
class Corners:
    """Boundary corners of a whole raster, in raster order (by row, then column)."""

    row: Ints
    """Row of the pixel corner, 0 at the top edge of the raster, shape (n,)."""
    col: Ints
    """Column of the pixel corner, 0 at the left edge, shape (n,)."""
    kind: Bytes
    """Quadrant, concave bit and diagonal bit, shape (n,)."""
    body: Ints
    """Index of the water body, 0 to bodies - 1 in the order of their first corner, shape (n,)."""
    pixels: Longs
    """Water pixels of each body, shape (bodies,)."""
    probability: Floats
    """Mean probability of each body's pixels, NaN where none was given, shape (bodies,)."""


@dataclass
class CornerFinder:
    """Takes a mask from top to bottom and collects its corners.

    Memory is 13 bytes a corner plus one chunk, whatever the raster's size.
    """

    width: int
    _row: int = 0
    _labels: int = 0
    _last: Bools = field(init=False)
    _last_labels: Ints = field(init=False)
    _parts: list[tuple[Ints, Ints, Bytes, Ints]] = field(default_factory=list)
    _joins: list[tuple[Ints, Ints]] = field(default_factory=list)
    _sums: list[tuple[Floats, Floats]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._last = np.zeros(self.width, bool)
        self._last_labels = np.zeros(0, np.int32)

    def add(self, row_off: int, water: Bools, probability: npt.NDArray[np.floating] | None = None) -> None:
        """Take the rows from ``row_off`` on; rows left out since the last call are dry.

        Args:
            row_off: Row of the strip's first line in the raster.
            water: True where there is water, shape (h, width).
            probability: Probability of water, same shape, 0 to 1, or None.

        Raises:
            ValueError: The strip has another width, or rows that were already taken.
        """
        if water.ndim != 2 or water.shape[1] != self.width:
            raise ValueError(f"a strip must be (h, {self.width}), got {water.shape}")
        if row_off < self._row:
            raise ValueError(f"strips must come from top to bottom: row {row_off} after row {self._row}")
        if row_off > self._row:
            self._skip_to(row_off)
        step = max(1, CHUNK_PX // self.width)
        for start in range(0, len(water), step):
            part = slice(start, start + step)
            self._chunk(water[part], None if probability is None else probability[part])

    def finish(self) -> Corners:
        """Close the last row and say which corner belongs to which body."""
        self._skip_to(self._row + 1)
        if not self._parts:
            empty = np.zeros(0, np.int32)
            return Corners(empty, empty, np.zeros(0, np.uint8), empty, np.zeros(0, np.int64), np.zeros(0))
        row, col, kind, label = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        wet, chance = (np.concatenate(column) for column in zip(*self._sums, strict=True))
        self._parts.clear()  # they are the bulk of the memory, and copied now
        body_of, bodies = self._bodies(label)
        body = body_of[label]
        _turn_round_dry(kind, body)
        pixels = np.bincount(body_of, wet, bodies)
        mean = np.bincount(body_of, chance, bodies) / (pixels * PROBABILITY_UNIT)
        return Corners(row, col, kind, body, pixels.astype(np.int64), mean)

    def _bodies(self, label: Ints) -> tuple[Ints, int]:
        """Body of every label; bodies are numbered by their first corner in raster order."""
        one, other = (np.concatenate(column) for column in zip(*self._joins, strict=True))
        graph = csr_array((np.ones(len(one), np.uint8), (one, other)), shape=(self._labels, self._labels))
        count, component = connected_components(graph, directed=False)
        first = np.full(count, len(label))
        np.minimum.at(first, component[label], np.arange(len(label)))
        rank = np.empty(count, np.int32)
        rank[np.argsort(first)] = np.arange(count, dtype=np.int32)
        return rank[component], int(count)

    def _skip_to(self, row: int) -> None:
        """One dry row closes what is open; further dry rows have no corners."""
        if row > self._row:
            self._chunk(np.zeros((1, self.width), bool), None)
            self._row = row

    def _chunk(self, water: Bools, probability: npt.NDArray[np.floating] | None) -> None:
        above, base = len(self._last_labels), self._labels
        if above or water.any():
            flat, stride = _framed(self._last, water), self.width + 1
            starts, ends = _runs(flat)
            label = self._label(starts, ends, stride)
            inside = slice(above, None)
            self._sum(water, probability, label[inside] - base, (ends - starts)[inside], self._labels - base)
            self._find(flat, starts, label)
            self._last, self._last_labels = water[-1].copy(), label[starts >= len(water) * stride]
        self._row += len(water)

    def _label(self, starts: Longs, ends: Longs, stride: int) -> Ints:
        """Label the runs; those of the row above already have a label, which is to be joined."""
        count, component = connected_components(_overlaps(starts, ends, stride), directed=False)
        label: Ints = (component + self._labels).astype(np.int32)
        self._joins.append((self._last_labels, label[: len(self._last_labels)]))
        self._labels += int(count)
        return label

    def _sum(
        self, water: Bools, probability: npt.NDArray[np.floating] | None, label: Ints, length: Longs, count: int
    ) -> None:
        """Add up pixels and probabilities by label, run by run."""
        parts = np.full(len(length), np.nan)
        if probability is not None and len(length):
            wet = np.nan_to_num(probability[water].astype(np.float64), nan=0.0)
            parts = np.add.reduceat(np.rint(wet * PROBABILITY_UNIT), np.cumsum(length) - length)
        self._sums.append((_total(label, length, count), _total(label, parts, count)))

    def _find(self, flat: Bools, starts: Longs, label: Ints) -> None:
        stride = self.width + 1
        at = _turns(flat, stride)
        code = flat[at] + 2 * flat[at + 1] + 4 * flat[at + stride] + 8 * flat[at + stride + 1].astype(np.uint8)
        kind, wet = _KIND[code], _WET[code]
        twice = 1 + (kind >= DIAGONAL)
        at, kind, wet = np.repeat(at, twice), np.repeat(kind, twice), np.repeat(wet, twice)
        second = np.flatnonzero(kind & DIAGONAL)[1::2]
        kind[second] ^= 3
        wet[second] ^= 3
        pixel = at + (wet & 1) + np.where(wet >= 2, stride, 0)
        owner = label[np.searchsorted(starts, pixel, "right") - 1]
        row, col = np.divmod(at, stride)
        self._parts.append(((row + self._row).astype(np.int32), col.astype(np.int32), kind, owner))


def _turn_round_dry(kind: Bytes, body: Ints) -> None:
    """Where one body touches itself at a corner, turn round its two dry pixels instead of its two wet ones.

    A ring then never touches itself, so that the polygon is valid. ``kind`` is changed in place.
    """
    twins = np.flatnonzero(kind & DIAGONAL).reshape(-1, 2)
    same = twins[body[twins[:, 0]] == body[twins[:, 1]]]
    kind[same] ^= CONCAVE | 2


def _total(label: Ints, values: Longs | Floats, count: int) -> Floats:
    """Sum of the values of each label; whole numbers stay exact up to 2**53."""
    return np.bincount(label, values, count).astype(np.float64)


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


def _overlaps(starts: Longs, ends: Longs, stride: int) -> csr_array:
    """Which runs lie under which: a graph over runs (4-connectivity, so they must share an edge)."""
    first = np.searchsorted(ends, starts + stride, "right")
    count = np.searchsorted(starts, ends + stride, "left") - first
    bounds = np.concatenate([[0], np.cumsum(count)])
    below = np.arange(bounds[-1]) + np.repeat(first - bounds[:-1], count)
    shape = (len(starts), len(starts))
    return csr_array((np.ones(len(below), np.uint8), below.astype(np.int32), bounds.astype(np.int32)), shape=shape)


def _turns(flat: Bools, stride: int) -> Longs:
    """Flat positions (of the upper left pixel) of the 2 x 2 neighbourhoods where the boundary turns."""
    edge = flat[stride:] != flat[:-stride]
    turn = edge[1:] != edge[:-1]
    crossing = edge[1:] & edge[:-1]
    crossing &= flat[stride + 1 :] != flat[stride:-1]
    turn |= crossing
    return np.flatnonzero(turn)

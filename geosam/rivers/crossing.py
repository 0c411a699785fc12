"""Where straight lines cross the banks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from geosam.rivers.banks import Banks, Bools, Floats, Longs

_PIECES = 16
"""Pieces of bank under one entry of the search tree: fewer cost memory, more cost time."""


@dataclass(frozen=True)
class Crossings:
    """Crossings of some lines with the banks, line by line and in order along each."""

    line: Longs
    """Line, ascending, shape (k,)."""
    at: Floats
    """Signed distance from the line's middle in metres, ascending on each line, shape (k,)."""
    ring: Longs
    """Ring that is crossed, 0 the outer one, shape (k,)."""

    @classmethod
    def together(cls, parts: Sequence[Crossings]) -> Crossings:
        """Crossings of different lines in one, in order."""
        line, at, ring = (np.concatenate([getattr(p, name) for p in parts]) for name in ("line", "at", "ring"))
        order = np.lexsort((at, line))
        return cls(line[order], at[order], ring[order])

    def where(self, kept: Bools) -> Crossings:
        """Only some of them; ``kept`` has shape (k,)."""
        return Crossings(self.line[kept], self.at[kept], self.ring[kept])

    def nearest(self, count: int) -> tuple[Floats, Floats]:
        """The nearest crossing on either side of the middle of each line.

        Args:
            count: Number of lines.

        Returns:
            Distance to the one before (negative) and the one after, shape (count,) each; infinite where none is.
        """
        before, after = np.full(count, -np.inf), np.full(count, np.inf)
        behind = self.at <= 0
        np.maximum.at(before, self.line[behind], self.at[behind])
        np.minimum.at(after, self.line[~behind], self.at[~behind])
        return before, after

    def water(self, count: int) -> tuple[Floats, Longs]:
        """Length in water and number of channels on each line, of crossings that begin and end on the outer banks.

        Args:
            count: Number of lines.
        """
        number = np.bincount(self.line, minlength=count)
        first = np.cumsum(number) - number
        sign = np.where((np.arange(len(self.line)) - first[self.line]) % 2 == 0, -1.0, 1.0)
        return np.bincount(self.line, sign * self.at, minlength=count).astype(np.float64), number // 2


class Cutter:
    """Cuts banks with straight lines; a tree finds the pieces that a line may meet."""

    def __init__(self, banks: Banks) -> None:
        self._banks = banks
        sizes = np.diff(banks.offsets)
        runs = -(-sizes // _PIECES)
        within = np.arange(runs.sum()) - np.repeat(np.cumsum(runs) - runs, runs)
        self._start = np.repeat(banks.offsets[:-1], runs) + within * _PIECES
        self._size = np.minimum(_PIECES, np.repeat(banks.offsets[1:], runs) - self._start)
        self._tree = shapely.STRtree(self._lines())

    def _lines(self) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
        which, piece = _expanded(self._start, self._size + 1)
        ring_end = self._banks.offsets[1:][self._banks.ring[self._start]][which]
        ring_start = self._banks.offsets[:-1][self._banks.ring[self._start]][which]
        lines: np.ndarray[tuple[int], np.dtype[np.object_]] = shapely.linestrings(
            self._banks.xy[np.where(piece == ring_end, ring_start, piece)], indices=which
        )
        return lines

    def in_water(self, xy: Floats, filled: Bools) -> Bools:
        """Whether points lie between the banks, shape (n,).

        Args:
            xy: Points in metres, shape (n, 2).
            filled: Islands that count as water, by ring, shape (rings,).
        """
        polygon = self._banks.without(filled).polygon
        shapely.prepare(polygon)
        return np.asarray(shapely.contains_xy(polygon, xy), bool)

    def cut(self, middle: Floats, along: Floats, reach: Floats) -> Crossings:
        """Crossings of lines with the banks.

        Args:
            middle: Middle of each line in metres, shape (n, 2).
            along: Its direction, unit vectors, shape (n, 2).
            reach: Half its length, shape (n,).
        """
        ends = np.stack([middle - along * reach[:, None], middle + along * reach[:, None]], axis=1)
        line, run = self._tree.query(shapely.linestrings(ends), predicate="intersects")
        hit, piece = _expanded(self._start[run], self._size[run])
        line = line[hit]
        start = self._banks.xy[piece] - middle[line]
        step = self._banks.xy[self._banks.following[piece]] - self._banks.xy[piece]
        side = _cross(along[line], start)
        turn = _cross(along[line], step)
        # Half open, so that a line through a vertex meets one of its two pieces, or both, or none.
        crossed = (side < 0) != (side + turn < 0)
        line, start, step, piece = line[crossed], start[crossed], step[crossed], piece[crossed]
        at = ((start - step * (side / np.where(turn == 0, 1, turn))[crossed][:, None]) * along[line]).sum(axis=1)
        near = np.abs(at) <= reach[line]
        line, at, piece = line[near], at[near], piece[near]
        order = np.lexsort((at, line))
        return Crossings(line[order], at[order], self._banks.ring[piece[order]])


def _expanded(start: Longs, size: Longs) -> tuple[Longs, Longs]:
    """Of runs that start here and are so long: the run of each element, and the element."""
    run = np.repeat(np.arange(len(start)), size)
    return run, np.arange(len(run)) - np.repeat(np.cumsum(size) - size, size) + start[run]


def _cross(a: Floats, b: Floats) -> Floats:
    product: Floats = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return product

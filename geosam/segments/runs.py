"""Masks as runs: the horizontal stretches of pixels that belong to them, in pixels of the scene.

A mask of a thousand pixels across is a few kilobytes, whatever its area, and unions and intersections need no window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from geosam.vector.corners import ranges

Longs = NDArray[np.int64]
Bools = NDArray[np.bool_]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first ones outside."""

_ROW = 1 << 32
"""Pixels lie on one long line, row after row so far apart that no run reaches the next one's."""


@dataclass(frozen=True, eq=False)
class Runs:
    """A mask. Runs are sorted, and do not touch each other within a row."""

    begin: Longs
    """First pixel of each run as ``row * 2**32 + col``, shape (n,)."""
    end: Longs
    """First pixel after it, shape (n,)."""

    @classmethod
    def of(cls, mask: Bools, row: int = 0, col: int = 0) -> Runs:
        """Runs of a window, bool (h, w), whose first pixel is at ``row`` and ``col`` of the scene."""
        height, width = mask.shape
        edge = np.zeros((height, width + 2), np.int8)
        edge[:, 1:-1] = mask
        at, place = np.nonzero(np.diff(edge, axis=1))
        key = (at.astype(np.int64) + row) * _ROW + place + col
        return cls(key[0::2], key[1::2])

    @property
    def row(self) -> Longs:
        """Row of each run, shape (n,)."""
        return self.begin >> 32

    @property
    def start(self) -> Longs:
        """First column of each run, shape (n,)."""
        return self.begin & (_ROW - 1)

    @property
    def stop(self) -> Longs:
        """First column after each run, shape (n,)."""
        return self.end & (_ROW - 1)

    @cached_property
    def area(self) -> int:
        """Pixels."""
        return int((self.end - self.begin).sum())

    @cached_property
    def box(self) -> Box:
        """The smallest window that holds all of it; zeros where there is nothing."""
        if not len(self.begin):
            return 0, 0, 0, 0
        return int(self.start.min()), int(self.row[0]), int(self.stop.max()), int(self.row[-1]) + 1

    @cached_property
    def _covered(self) -> Longs:
        return np.concatenate([[0], np.cumsum(self.end - self.begin)])

    def overlap(self, other: Runs) -> int:
        """Pixels that both have."""
        few, many = (self, other) if len(self.begin) < len(other.begin) else (other, self)
        return int((many._before(few.end) - many._before(few.begin)).sum())

    def _before(self, place: Longs) -> Longs:
        """Pixels of the mask before each place on the line, shape of ``place``."""
        count = np.searchsorted(self.begin, place, "right")
        last = np.append(0, self.end)[count]
        hanging: Longs = np.where(count > 0, np.maximum(last - place, 0), 0)
        return self._covered[count] - hanging

    def cut(self, box: Box) -> Runs:
        """What of it lies in a window."""
        left, top, right, bottom = box
        low, high = np.searchsorted(self.begin, (top * _ROW, bottom * _ROW))
        row = self.begin[low:high] & -_ROW
        begin = np.maximum(self.begin[low:high], row + left)
        end = np.minimum(self.end[low:high], row + right)
        inside = begin < end
        return Runs(begin[inside], end[inside])

    def shifted(self, rows: int, cols: int) -> Runs:
        """The same mask so many rows further down and columns further right."""
        by = rows * _ROW + cols
        return Runs(self.begin + by, self.end + by)

    def parts(self) -> list[Runs]:
        """Its components: pixels that share an edge are one."""
        if len(self.begin) < 2:
            return [self]
        # The runs of the next row that share a column with each: all those between two places of the line.
        first = np.searchsorted(self.end, self.begin + _ROW, "right")
        after = np.searchsorted(self.begin, self.end + _ROW, "left")
        below, above = ranges(first, np.maximum(after, first))
        ones = np.ones(len(below), np.uint8)
        graph = csr_array((ones, (above, below)), shape=(len(self.begin), len(self.begin)))
        count, label = connected_components(graph, directed=False)
        if count == 1:
            return [self]
        order = np.argsort(label, kind="stable")
        cuts = np.flatnonzero(np.diff(label[order])) + 1
        return [Runs(self.begin[which], self.end[which]) for which in np.split(order, cuts)]

    def mask(self, box: Box) -> Bools:
        """The window of it, bool (h, w)."""
        left, top, right, bottom = box
        inside = self.cut(box)
        steps = np.zeros((bottom - top, right - left + 1), np.int8)
        steps[inside.row - top, inside.start - left] = 1
        steps[inside.row - top, inside.stop - left] = -1
        return np.cumsum(steps[:, :-1], axis=1, dtype=np.int8).view(np.bool_)


def union(masks: Sequence[Runs]) -> Runs:
    """Pixels that any of them has."""
    if len(masks) == 1:
        return masks[0]
    begin = np.concatenate([mask.begin for mask in masks])
    end = np.concatenate([mask.end for mask in masks])
    order = np.argsort(begin, kind="stable")
    begin, reach = begin[order], np.maximum.accumulate(end[order])
    new = np.ones(len(begin), bool)
    new[1:] = begin[1:] > reach[:-1]
    last = np.append(new[1:], True)[: len(begin)]
    return Runs(begin[new], reach[last])


def iou(one: Runs, other: Runs) -> float:
    """Intersection over union; 0 where both are empty."""
    both = one.overlap(other)
    either = one.area + other.area - both
    return both / either if either else 0.0


def meet(one: Box, other: Box) -> bool:
    """Whether two windows share a pixel."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]

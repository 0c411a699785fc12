"""Cells: the pieces into which a tile grid cuts a scene, and the votes gathered on each."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

UNIT = 256
"""Probability 1 in stored levels. 1/256 is far finer than any model's calibration, exact in float32, and packs well."""
NODATA = 65535
"""Stored level of a pixel without probability."""
_ZERO = b"0"
_NOTHING = b""


class Meeting(NamedTuple):
    """Where a stretch of an axis meets one cell."""

    cell: int
    inner: slice
    """In pixels of the cell."""
    outer: slice
    """In pixels of the stretch."""


@dataclass(frozen=True)
class Axis:
    """Rows or columns of the grid. Cell i runs from the start of tile i to the start of tile i + 1."""

    starts: tuple[int, ...]
    length: int
    tile_px: int

    @cached_property
    def edges(self) -> tuple[int, ...]:
        """Cell borders, one more than there are cells."""
        return (*self.starts, self.length)

    def size(self, cell: int) -> int:
        """Pixels of a cell along this axis."""
        return self.edges[cell + 1] - self.edges[cell]

    def first_reaching(self, cell: int) -> int:
        """First tile that reaches into a cell; the last one is the cell's own."""
        return bisect_right(self.starts, self.starts[cell] - self.tile_px)

    def reaching(self, cell: int) -> int:
        """How many tiles reach into a cell."""
        return cell - self.first_reaching(cell) + 1

    def meet(self, start: int, size: int) -> Iterator[Meeting]:
        """Cells that the pixels from ``start`` on meet; pixels past the scene's border meet none."""
        end = min(start + size, self.length)
        cell = bisect_right(self.starts, start) - 1
        while cell < len(self.starts) and self.edges[cell] < end:
            lo, hi = max(start, self.edges[cell]), min(end, self.edges[cell + 1])
            yield Meeting(cell, slice(lo - self.edges[cell], hi - self.edges[cell]), slice(lo - start, hi - start))
            cell += 1


class Votes(Protocol):
    """What a mosaic needs of a cell, wherever its votes are gathered."""

    shape: tuple[int, int]
    waiting: int
    """Tiles that have not reported yet."""
    dry: NDArray[np.bool_] | bool
    """True where the ground is known to be dry, should no tile run there."""

    @property
    def held_px(self) -> int:
        """Pixels held uncompressed."""
        ...

    def grow(self, rows: int) -> None:
        """Make room for the votes on the first ``rows`` rows."""
        ...

    def vote(self, place: tuple[slice, slice], votes: Any, weight: Any) -> None:
        """Add a tile's weighted probabilities and their weights, (h, w), at a place in the cell."""
        ...

    def encode(self) -> bytes | Future[bytes]:
        """The finished cell as stored, at once or once it is known; see :func:`packed`."""
        ...


class Cell:
    """Votes on one cell, until every tile that reaches into it has reported."""

    def __init__(self, shape: tuple[int, int], waiting: int) -> None:
        self.shape = shape
        self.waiting = waiting
        """Tiles that have not reported yet."""
        self.votes = np.zeros((0, shape[1]), np.float32)
        """Sum of weight times probability, as many rows from the top as were voted on."""
        self.weight = np.zeros((0, shape[1]), np.float32)
        """Sum of the weights of the tiles that ran."""
        self.dry: NDArray[np.bool_] | bool = False
        """True where the ground is known to be dry, should no tile run there."""

    @property
    def held_px(self) -> int:
        """Pixels held uncompressed."""
        return self.votes.size

    def vote(self, place: tuple[slice, slice], votes: NDArray[np.float32], weight: NDArray[np.float32]) -> None:
        """Add a tile's weighted probabilities at a place in the cell."""
        self.grow(place[0].stop)
        self.votes[place] += votes
        self.weight[place] += weight

    def grow(self, rows: int) -> None:
        """Make room for the first ``rows`` rows: a tile from the row above needs only those of the overlap.

        Whole cells would hold a full tile row of the scene while the next one is computed: 360 MB
        at a width of 50,000 px and tiles of 1024 px, where the overlap takes 50 MB.
        """
        more = ((0, max(0, rows - len(self.votes))), (0, 0))
        if more[0][1]:
            self.votes, self.weight = np.pad(self.votes, more), np.pad(self.weight, more)

    def encode(self) -> bytes:
        """The finished cell as stored."""
        if not len(self.votes):
            return packed_without_votes(self.dry, self.shape)
        return packed(self._levels())

    def _levels(self) -> NDArray[np.uint16]:
        """Levels of 1/256, rounded, NODATA where nothing is known."""
        self.grow(self.shape[0])
        ran = self.weight > 0
        mean = np.divide(self.votes, self.weight, out=np.zeros(self.shape, np.float32), where=ran)
        levels = np.rint(mean.clip(0, 1) * np.float32(UNIT)).astype(np.uint16)
        levels[~(ran | self.dry)] = NODATA
        return levels


def packed(levels: NDArray[np.uint16]) -> bytes:
    """A cell as stored: a mark where it is all 0 or all :data:`NODATA`, else compressed levels."""
    first = levels.flat[0]
    if first in (0, NODATA) and (levels == first).all():
        return _ZERO if first == 0 else _NOTHING
    return zlib.compress(levels.astype("<u2").tobytes(), level=1)


def packed_without_votes(dry: NDArray[np.bool_] | bool, shape: tuple[int, int]) -> bytes:
    """A cell of this shape in which no tile ran, as stored: 0 where it is known to be dry, else nodata."""
    if isinstance(dry, bool):
        return _ZERO if dry else _NOTHING
    return packed(np.broadcast_to(np.where(dry, 0, NODATA).astype(np.uint16), shape))


def decode(data: bytes, shape: tuple[int, int]) -> NDArray[np.float32] | float:
    """Probability of a stored cell: an array of the cell's shape, or one number where it is constant."""
    if data in (_ZERO, _NOTHING):
        return 0.0 if data == _ZERO else float("nan")
    levels = np.frombuffer(zlib.decompress(data), "<u2").reshape(shape)
    probability = levels * np.float32(1 / UNIT)
    probability[levels == NODATA] = np.nan
    return probability

"""Segments of tiles to segments of the scene: the same thing seen in two overlapping tiles is one.

Two segments are compared where both tiles see the ground. There they are one if their masks agree as a whole; or,
where a thing runs out of a tile, if one component of each agrees, since of a river that leaves a tile and comes back
that tile has two segments and its neighbour one. Pairs are taken in the order of their agreement, each component once:
a whole and its part that look the same inside the overlap do not end up as one.

Tile rows come from top to bottom. What no later row can join is handed on and forgotten, so that memory goes with the
width of two tile rows and with what reaches across them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from geosam.segments.runs import Box, Runs, iou, meet, union

EDGE_SHARE = 1 / 128
"""A component that comes as near to the edge of its tile, as a share of the tile's side, runs out of it."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A segment of one tile, in pixels of the scene."""

    runs: Runs
    predicted_iou: float
    stability: float
    probability: float
    tile: Box
    """What its tile sees."""
    whole: bool
    """Whether it ends inside its tile, or where the scene ends."""


@dataclass(frozen=True)
class Segment:
    """A segment of the scene."""

    runs: Runs
    predicted_iou: float
    """Mean over its pieces by their areas; so are the next two."""
    stability: float
    probability: float
    tiles: int
    """Tiles that it was seen in."""


def is_whole(runs: Runs, tile: Box, shape: tuple[int, int]) -> bool:
    """Whether a mask ends inside its tile, or where the scene of ``shape`` (rows, cols) ends."""
    return not _runs_out(runs, tile, (0, 0, shape[1], shape[0]))


def _runs_out(runs: Runs, tile: Box, scene: Box) -> bool:
    """Whether a mask comes to an edge of its tile that is not one of the scene."""
    near = max(tile[2] - tile[0], tile[3] - tile[1]) * EDGE_SHARE
    return any(abs(at - edge) <= near and edge != end for at, edge, end in zip(runs.box, tile, scene, strict=True))


class _Unit(NamedTuple):
    """What is compared: a piece inside an overlap, or one component of that."""

    piece: int
    part: int
    """0: the piece as a whole; n: its nth component, where it has several."""
    runs: Runs
    cut: bool
    """Whether it runs out of one of the two tiles."""


@dataclass
class Joiner:
    """Takes the pieces of one tile row after the other."""

    shape: tuple[int, int]
    """Rows and columns of the scene."""
    join_iou: float
    _pieces: dict[int, Piece] = field(default_factory=dict)
    _parent: dict[int, int] = field(default_factory=dict)
    _above: list[tuple[Box, list[int]]] = field(default_factory=list)
    _count: int = 0

    def row(self, tiles: Iterable[tuple[Box, list[Piece]]]) -> Iterator[Segment]:
        """Take a tile row, from left to right; yields the segments that no later row can reach."""
        here: list[tuple[Box, list[int]]] = []
        for box, pieces in tiles:
            numbers = [self._add(piece) for piece in pieces]
            for other, known in [*self._above, *here]:
                self._join(other, known, box, numbers)
            here.append((box, numbers))
        self._above = here
        yield from self._closed({self._root(number) for _, numbers in here for number in numbers})

    def finish(self) -> Iterator[Segment]:
        """Yields the segments that are left."""
        self._above = []
        yield from self._closed(set())

    def _add(self, piece: Piece) -> int:
        self._count += 1
        self._pieces[self._count] = piece
        self._parent[self._count] = self._count
        return self._count

    def _root(self, number: int) -> int:
        while self._parent[number] != number:
            self._parent[number] = number = self._parent[self._parent[number]]
        return number

    def _closed(self, still_open: set[int]) -> Iterator[Segment]:
        groups: dict[int, list[int]] = {}
        for number in self._pieces:
            groups.setdefault(self._root(number), []).append(number)
        for root, numbers in groups.items():
            if root not in still_open:
                yield _segment([self._pieces.pop(number) for number in numbers], self.join_iou)
                for number in numbers:
                    del self._parent[number]

    def _join(self, box: Box, some: list[int], other_box: Box, others: list[int]) -> None:
        overlap = (
            max(box[0], other_box[0]), max(box[1], other_box[1]), min(box[2], other_box[2]), min(box[3], other_box[3])
        )  # fmt: skip
        if overlap[0] >= overlap[2] or overlap[1] >= overlap[3]:
            return
        units, other_units = (self._units(numbers, overlap) for numbers in (some, others))
        for one, other in _pairs(units, other_units, self.join_iou):
            self._parent[self._root(other)] = self._root(one)

    def _units(self, numbers: list[int], overlap: Box) -> list[_Unit]:
        """What lies in an overlap, of these pieces."""
        scene = (0, 0, self.shape[1], self.shape[0])
        found = []
        for number in numbers:
            seen = self._pieces[number].runs.cut(overlap) if meet(self._pieces[number].runs.box, overlap) else None
            if seen is None or not seen.area:
                continue
            found.append(_Unit(number, 0, seen, _runs_out(seen, overlap, scene)))
            parts = seen.parts()
            if len(parts) > 1:
                found += [_Unit(number, n, part, _runs_out(part, overlap, scene)) for n, part in enumerate(parts, 1)]
        return found


def _pairs(some: list[_Unit], others: list[_Unit], least: float) -> list[tuple[int, int]]:
    """Pieces that are one thing, the pieces as wholes first, then their components."""
    alike = [
        (bool(a.part or b.part), -value, i, k)
        for i, k in _candidates(some, others, least)
        if (a := some[i]).cut | (b := others[k]).cut | (not a.part and not b.part)
        if (value := iou(a.runs, b.runs)) >= least
    ]
    used: tuple[set[int], set[int]] = (set(), set())
    found = []
    for _, _, i, k in sorted(alike):
        if i in used[0] or k in used[1]:
            continue
        pair = some[i].piece, others[k].piece
        found.append(pair)
        # Components of two pieces that are one agree by themselves, and are spoken for.
        for _, _, m, n in alike:
            if (m, n) == (i, k) or (some[m].piece, others[n].piece) == pair:
                used[0].add(m)
                used[1].add(n)
    return found


def _candidates(some: list[_Unit], others: list[_Unit], least: float) -> list[tuple[int, int]]:
    """Pairs that may agree, by their boxes and areas."""
    if not some or not others:
        return []
    a, b = (np.array([unit.runs.box for unit in units]) for units in (some, others))
    width = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    size, size_b = (np.array([unit.runs.area for unit in units], float) for units in (some, others))
    shared = np.minimum(size[:, None], size_b) >= least * np.maximum(size[:, None], size_b)
    return [(int(i), int(k)) for i, k in np.argwhere((width > 0).all(axis=2) & shared)]


def _segment(pieces: list[Piece], join_iou: float) -> Segment:
    """One thing of its pieces: the best that sees nearly all of it, else all together."""
    everything, tiles = union([piece.runs for piece in pieces]), len({piece.tile for piece in pieces})
    alone = [piece for piece in pieces if piece.whole and iou(piece.runs, everything) >= join_iou]
    if len(pieces) > 1 and alone:
        # Two tiles that both see all of a thing draw it a little differently: both together would be too large.
        pieces = [max(alone, key=lambda piece: piece.predicted_iou)]
        everything = pieces[0].runs
    weights = [piece.runs.area for piece in pieces]
    predicted, stability, probability = (
        float(np.average([getattr(piece, name) for piece in pieces], weights=weights))
        for name in ("predicted_iou", "stability", "probability")
    )
    return Segment(everything, predicted, stability, probability, tiles)

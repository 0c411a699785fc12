"""Small water dropped and small holes filled, exactly, in strips.

First water bodies smaller than the least area are dropped (they become land), then holes, pieces
of land that water encloses, are filled if smaller than the largest hole. A piece of land that
touches the scene's border or an unknown pixel is no hole: what lies beyond may be more land.

A strip decides at once on every piece that lies within it or is already large enough. Only small
pieces that touch a seam, and land that hangs on them, wait for the end; their number goes with
the scene's width, so memory does not grow with what the scene holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geosam.coarse.runs import (
    DRY,
    UNKNOWN,
    WATER,
    Bool,
    Contacts,
    Ints,
    Runs,
    UInt8,
    any_of,
    contacts,
    join,
    same_pieces,
)

Areas = NDArray[np.float64]

_UNKNOWN_CODE, _FIRST_OPEN = 2, 3
"""Codes of runs: 0 land for good, 1 water for good, 2 unknown, 3 + i the i-th piece that waits."""


@dataclass(frozen=True)
class Limits:
    """Least water body and largest hole, in pixels (fractions allowed)."""

    min_water_px: float
    max_hole_px: float


@dataclass(frozen=True)
class LocalStrip:
    """A strip, decided as far as it can be alone."""

    starts: Ints
    codes: Ints
    """Code of each run, waiting pieces numbered within the strip."""
    height: int
    width: int
    wet: Bool
    """Of each waiting piece: True water, False land."""
    areas: Areas
    """Of each waiting piece, in pixels of this strip."""
    hanging: Ints
    """Pairs (waiting water, land) that share an edge, as codes; land may be 0, land for good. Shape (n, 2)."""


def resolve_strip(classes: UInt8, limits: Limits, first: bool, last: bool) -> LocalStrip:
    """Label one strip and decide what can be decided.

    Args:
        classes: 0 dry, 1 water, 255 unknown, shape (h, w), full width of the scene.
        limits: Areas in pixels.
        first: The strip is the scene's topmost.
        last: The strip is the scene's lowest.
    """
    runs = Runs.of(classes)
    touching = contacts(runs)
    count, piece = join(runs.starts.size, same_pieces(runs, touching))
    pieces = _Pieces.of(runs, touching, count, piece, first, last)
    return _decide(runs, piece, pieces, limits)


@dataclass(frozen=True)
class _Pieces:
    """Connected pieces of one strip; every array but ``shores`` of shape (pieces,)."""

    value: UInt8
    area: Areas
    seam: Bool
    """Touches a row beyond which the scene goes on."""
    open: Bool
    """Touches the scene's border or an unknown pixel by an edge."""
    shores: Ints
    """Pairs (water, land) that share an edge, shape (n, 2); repeated."""

    @classmethod
    def of(cls, runs: Runs, touching: Contacts, count: int, piece: Ints, first: bool, last: bool) -> _Pieces:
        value = np.zeros(count, np.uint8)
        value[piece] = runs.values
        area: Areas = np.bincount(piece, weights=runs.lengths, minlength=count).astype(np.float64)
        top, bottom = runs.in_row(0), runs.in_row(runs.height - 1)
        seam = np.zeros(count, np.bool_)
        outer = any_of(piece, count, _side_runs(runs))
        for at_border, row in ((first, top), (last, bottom)):
            (outer if at_border else seam)[piece[row]] = True
        pairs = piece[np.concatenate([touching.edges, touching.along])]
        sides = value[pairs]
        outer[pairs[sides[:, 1] == UNKNOWN, 0]] = True
        outer[pairs[sides[:, 0] == UNKNOWN, 1]] = True
        wet_first, wet_last = pairs[(sides == (WATER, DRY)).all(1)], pairs[(sides == (DRY, WATER)).all(1)]
        return cls(value, area, seam, outer, np.concatenate([wet_first, wet_last[:, ::-1]]))


def _side_runs(runs: Runs) -> Ints:
    """Runs at the left and right borders."""
    left = np.flatnonzero(runs.starts % runs.width == 0)
    return np.concatenate([left, left[1:] - 1, [runs.starts.size - 1]])


def _decide(runs: Runs, piece: Ints, pieces: _Pieces, limits: Limits) -> LocalStrip:
    count = pieces.value.size
    small = (pieces.value == WATER) & (pieces.area < limits.min_water_px)
    dropped, waiting_water = small & ~pieces.seam, small & pieces.seam
    # Dropped water is land: it joins the land around it and within it.
    shores = pieces.shores[small[pieces.shores[:, 0]]]
    groups, group = join(count, shores[dropped[shores[:, 0]]])
    land = (pieces.value == DRY) | dropped
    hanging = shores[waiting_water[shores[:, 0]]]
    area: Areas = np.bincount(group, weights=np.where(land, pieces.area, 0.0), minlength=groups).astype(np.float64)
    hole = any_of(group, groups, land) & (area < limits.max_hole_px) & ~any_of(group, groups, land & pieces.open)
    undecided = any_of(group, groups, land & pieces.seam) | any_of(group, groups, hanging[:, 1])
    waiting_land, filled = hole & undecided, hole & ~undecided
    return _coded(runs, piece, pieces, group, (waiting_water, waiting_land, filled), area, hanging, land)


def _coded(
    runs: Runs,
    piece: Ints,
    pieces: _Pieces,
    group: Ints,
    state: tuple[Bool, Bool, Bool],
    group_area: Areas,
    hanging: Ints,
    land: Bool,
) -> LocalStrip:
    waiting_water, waiting_land, filled = state
    wet_count, dry_count = int(waiting_water.sum()), int(waiting_land.sum())
    group_code = filled.astype(np.int64)
    group_code[waiting_land] = _FIRST_OPEN + wet_count + np.arange(dry_count)
    code = np.where(land, group_code[group], np.where(pieces.value == UNKNOWN, _UNKNOWN_CODE, WATER))
    code[waiting_water] = _FIRST_OPEN + np.arange(wet_count)
    at_border = code[waiting_water & pieces.open]
    pairs = np.concatenate([code[hanging], np.stack([at_border, np.zeros_like(at_border)], 1)])
    return LocalStrip(
        runs.starts,
        code[piece],
        runs.height,
        runs.width,
        np.arange(wet_count + dry_count) < wet_count,
        np.concatenate([pieces.area[waiting_water], group_area[waiting_land]]),
        np.unique(pairs, axis=0),
    )


_Row = tuple[Ints, Ints, UInt8]
"""First columns, codes and classes of the runs of one row."""


class Seams:
    """Joins strips from top to bottom and, at the end, decides on the pieces that waited."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._wet: list[Bool] = []
        self._areas: list[Areas] = [np.zeros(_FIRST_OPEN)]
        self._same: list[Ints] = []
        self._hanging: list[Ints] = []
        self._count = _FIRST_OPEN
        self._above: _Row | None = None

    def add(self, strip: LocalStrip) -> int:
        """Join the next strip to the one above it.

        Returns:
            What to add to the strip's codes from 3 on to look them up in :meth:`decide`'s answer.
        """
        shift = self._count - _FIRST_OPEN
        starts, codes = strip.starts, _shifted(strip.codes, shift)
        self._wet.append(strip.wet)
        self._areas.append(strip.areas)
        self._hanging.append(_shifted(strip.hanging, shift))
        self._count += strip.wet.size
        kinds = _kinds(strip.wet)[strip.codes]
        first_row = int(np.searchsorted(starts, strip.width))
        if self._above is not None:
            self._join_rows(self._above, (starts[:first_row], codes[:first_row], kinds[:first_row]), strip.width)
        offset = (strip.height - 1) * strip.width
        last_row = int(np.searchsorted(starts, offset))
        self._above = starts[last_row:] - offset, codes[last_row:].copy(), kinds[last_row:].copy()
        return shift

    def _join_rows(self, above: _Row, below: _Row, width: int) -> None:
        codes = np.concatenate([above[1], below[1]])
        values = np.concatenate([above[2], below[2]])
        pair = Runs(np.concatenate([above[0], below[0] + width]), values, 2, width)
        touching = contacts(pair)
        waits = codes >= _FIRST_OPEN
        same = same_pieces(pair, touching)
        self._same.append(codes[same[waits[same].any(axis=1) & (values[same] != UNKNOWN).all(axis=1)]])
        for one, other in ((0, 1), (1, 0)):
            mine, theirs = touching.edges[:, one], touching.edges[:, other]
            beyond = waits[mine] & (values[theirs] == UNKNOWN)
            # Unknown opens land at once, and water once it is dropped: both hang on land for good.
            opened = np.stack([codes[mine], np.zeros_like(mine)], 1)
            self._same.append(opened[beyond & (values[mine] == DRY)])
            self._hanging.append(opened[beyond & (values[mine] == WATER)])
            shore = waits[mine] & (values[mine] == WATER) & (values[theirs] == DRY)
            self._hanging.append(codes[np.stack([mine, theirs], 1)[shore]])

    def decide(self) -> UInt8:
        """The final class of every code: 0 dry, 1 water, 255 unknown."""
        kinds, areas = _kinds(*self._wet), np.concatenate(self._areas)
        count, piece = join(kinds.size, _stacked(self._same))
        area = np.bincount(piece, weights=areas, minlength=count)
        small = area < self._limits.min_water_px
        small[piece[[DRY, WATER, _UNKNOWN_CODE]]] = False
        dropped = small[piece] & (kinds == WATER)
        hanging = _stacked(self._hanging)
        groups, group_of_piece = join(count, piece[hanging[dropped[hanging[:, 0]]]])
        group = group_of_piece[piece]
        land = dropped | (kinds == DRY)
        ground = np.bincount(group, weights=np.where(land, areas, 0.0), minlength=groups)
        hole = ground < self._limits.max_hole_px
        hole[group[DRY]] = False
        return np.where(land, hole[group].astype(np.uint8), kinds)


def _kinds(*wet: Bool) -> UInt8:
    """Class of each code."""
    return np.concatenate([np.array([DRY, WATER, UNKNOWN], np.uint8), *(each.view(np.uint8) for each in wet)])


def _shifted(codes: Ints, shift: int) -> Ints:
    return np.where(codes >= _FIRST_OPEN, codes + shift, codes)


def _stacked(pairs: list[Ints]) -> Ints:
    return np.concatenate([np.zeros((0, 2), np.int64), *pairs])

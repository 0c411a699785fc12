"""How far the water of one date lies beside that of another: the error of position between two scenes.

Every point of an early bank tells how far ahead of it the late bank lies, square to the bank. Where nothing happened
that is the shift of the whole scene, seen from the direction of that bank; where the river moved it is something else.
So the shift is fitted to all banks by iteratively reweighted least squares, first by the sum of absolute residuals,
which is a median, then by Tukey's biweight, narrower every time, until banks that moved count no more. Higher water,
which moves all banks outwards, is fitted along. The error comes from drawing stretches of bank anew, since neighbours
move together.

A river that moved as a whole cannot be told from a scene that did.

Source: Chen and Medioni (1992), Object modelling by registration of multiple range images, for distances square to the
surface; Holland and Welsch (1977), Robust regression using iteratively reweighted least-squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import shapely
from rasterio.features import rasterize
from rasterio.transform import from_origin
from scipy.fft import irfft2, rfft2
from scipy.spatial import cKDTree

from geosam.rivers.banks import Banks, Bools, Floats, Longs, banks_of
from geosam.rivers.source import Source

_MOST_POINTS = 30_000
"""Early bank points that are asked."""
_SMOOTHINGS = 6
"""Times that points are averaged with their neighbours, against the staircase of pixels."""
_SIGHT_PX = 3
"""A bank's direction is taken between so many points before and after."""
_EDGE_PX = 2.0
_BANK = 0.2
"""A side of the layer's bounds on which more than this part of the points lie is the bank of a straight river."""
_NOISE_PX = 0.3
"""Residuals below this are noise of the outlines."""
_TUKEY, _MAD = 4.685, 1.4826
_ROUNDS, _MEDIANS, _NARROWER = 60, 10, 0.85
"""Rounds in all, those that go by the median, and how the scale of residuals that count narrows after these."""
_STILL_PX = 1e-3
_RIDGE = 0.01
"""Keeps a straight river, which says nothing of a shift along it, from drifting that way."""
_BLOCKS, _BLOCK_PX = 200, 20.0
_DRAWS = 200
_CELLS = 512
_FURTHEST = 0.1
"""A first guess is looked for within this part of the scene's longer side."""


@dataclass(frozen=True)
class Shift:
    """How far LATE lies from EARLY."""

    east_m: float
    north_m: float
    east_error_m: float
    """Standard error; infinite where no bank tells."""
    north_error_m: float
    outward_m: float
    """How much further out all banks of the late water are: higher water, or a wider river."""
    banks: float
    """Share of the early banks that lie where they did, by the shift."""

    @property
    def error_m(self) -> float:
        """The greater of both errors."""
        return max(self.east_error_m, self.north_error_m)


class _Points(NamedTuple):
    xy: Floats
    out: Floats
    """Unit vectors from water to land."""
    block: Longs
    """Stretch of bank, from 0."""


class _Fit(NamedTuple):
    move: Floats
    """East, north, outward in metres."""
    error: Floats
    inliers: float


def shift_between(early: Source, late: Source) -> Shift:
    """Estimate the shift.

    Args:
        early: Water on a plane in metres.
        late: Water on the same plane.
    """
    pixel = max(early.pixel_m, late.pixel_m)
    here, there = (_bank_points(source, pixel) for source in (early, late))
    if len(here.xy) == 0 or len(there.xy) == 0:
        return Shift(0.0, 0.0, np.inf, np.inf, 0.0, 0.0)
    width = 2 * float(shapely.area(early.polygons).sum()) / max(float(shapely.length(early.polygons).sum()), pixel)
    finder = _Finder(here, there, max(width, 10 * pixel), pixel)
    fits = [finder.fit(start) for start in (np.zeros(2), _first_guess(early, late))]
    best = max(fits, key=lambda fit: fit.inliers)
    errors = finder.errors(best)
    east, north, outward = best.move.tolist()
    return Shift(east, north, float(errors[0]), float(errors[1]), outward, best.inliers)


def _bank_points(source: Source, pixel_m: float) -> _Points:
    """Points of the banks, less those on the scene's edge, which lies where it lies whatever the banks do."""
    banks = banks_of(source.polygons, pixel_m)
    before = np.empty(len(banks.xy), np.int64)
    before[banks.following] = np.arange(len(banks.xy))
    xy = banks.xy
    for _ in range(_SMOOTHINGS):
        xy = (xy[before] + 2 * xy + xy[banks.following]) / 4
    ahead, behind = np.arange(len(xy)), np.arange(len(xy))
    for _ in range(_SIGHT_PX):
        ahead, behind = banks.following[ahead], before[behind]
    along = xy[ahead] - xy[behind]
    out = np.stack([along[:, 1], -along[:, 0]], 1) * _turn(source, banks)[:, None]
    length = np.hypot(*out.T)
    kept = (length > 0) & ~_on_edge(source, banks.xy, pixel_m)
    kept[kept] = np.arange(kept.sum()) % max(1, -(-int(kept.sum()) // _MOST_POINTS)) == 0
    blocks = _blocks(banks, pixel_m)[kept]
    return _Points(xy[kept], out[kept] / length[kept, None], np.unique(blocks, return_inverse=True)[1])


def _turn(source: Source, banks: Banks) -> Floats:
    """1 where land is to the right of a ring's direction, -1 where it is to the left, by point."""
    rings = shapely.get_rings(source.polygons)
    counts = 1 + shapely.get_num_interior_rings(source.polygons)
    first = np.cumsum(counts) - counts
    is_outer = np.isin(np.arange(len(rings)), first)
    return np.where(shapely.is_ccw(rings) == is_outer, 1.0, -1.0)[banks.ring]


def _on_edge(source: Source, xy: Floats, pixel_m: float) -> Bools:
    points = shapely.points(xy)
    near = np.zeros(len(xy), bool)
    for side, most in [*((some, 1.0) for some in source.edge.known), *((some, _BANK) for some in source.edge.guessed)]:
        shapely.prepare(side)
        there = np.asarray(shapely.dwithin(side, points, _EDGE_PX * pixel_m), bool)
        near |= there if there.mean() <= most else False
    return near


def _blocks(banks: Banks, pixel_m: float) -> Longs:
    """Stretch of bank that each point lies on, numbered through all rings."""
    length = max(_BLOCK_PX * pixel_m, float(banks.ring_length.sum()) / _BLOCKS)
    start = np.cumsum(np.ceil(banks.ring_length / length)) - np.ceil(banks.ring_length / length)
    return (start[banks.ring] + np.floor(banks.along / length)).astype(np.int64)


class _Finder:
    """Fits a shift to early banks and the late banks that are nearest to them and face the same way."""

    def __init__(self, early: _Points, late: _Points, facing_m: float, pixel_m: float) -> None:
        self._early, self._late, self._facing_m, self._pixel_m = early, late, facing_m, pixel_m
        self._tree = cKDTree(np.concatenate([late.xy, facing_m * late.out], 1))

    def fit(self, start: Floats) -> _Fit:
        """The shift that is found from a first guess, shape (2,)."""
        move = np.append(start, 0.0)
        weight = ahead = np.zeros(len(self._early.xy))
        scale = np.inf
        for turn in range(_ROUNDS):
            ahead = self._ahead(move)
            residual = ahead - self._design @ move
            if turn < _MEDIANS:
                weight = 1 / np.maximum(np.abs(residual), self._noise_m)
                scale = max(_MAD * float(np.median(np.abs(residual))), self._noise_m)
            else:
                scale = max(_NARROWER * scale, self._noise_m)
                weight = _tukey(residual, scale)
            step = self._solved(weight, residual)
            move = move + step
            if scale == self._noise_m and turn > _MEDIANS and np.abs(step).max() < _STILL_PX * self._pixel_m:
                break
        residual = ahead - self._design @ move
        return _Fit(move, residual, float((np.abs(residual) < self._pixel_m).mean()))

    def errors(self, fit: _Fit) -> Floats:
        """Standard errors of east and north, shape (2,), from drawing stretches of bank anew."""
        weight, block = _tukey(fit.error, self._noise_m), self._early.block
        rng = np.random.default_rng(0)
        count = int(block.max()) + 1
        normal, right = self._sums(weight, fit.error, block, count)
        drawn = rng.multinomial(count, np.full(count, 1 / count), _DRAWS).astype(np.float64)
        sums = np.einsum("db,bij->dij", drawn, normal), np.einsum("db,bi->di", drawn, right)
        tiny = 1e-9 * len(weight) * np.eye(3)
        moves = np.linalg.solve(sums[0] + tiny, sums[1][..., None])[..., 0]
        # Outlines on one grid can agree to the last bit: what a pixel's noise would do is the least.
        formal = self._noise_m**2 / count * np.linalg.inv(normal.sum(axis=0) / weight.sum() + 1e-9 * np.eye(3))
        spread: Floats = np.maximum(np.std(moves, axis=0), np.sqrt(np.diag(formal)))[:2]
        return spread

    @cached_property
    def _design(self) -> Floats:
        out = self._early.out
        return np.column_stack([out, np.ones(len(out))])

    @property
    def _noise_m(self) -> float:
        return _NOISE_PX * self._pixel_m

    def _ahead(self, move: Floats) -> Floats:
        """How far the late bank is ahead of each early point, square to the bank, in metres."""
        early = self._early
        moved = early.xy + move[:2] + move[2] * early.out
        _, nearest = self._tree.query(np.concatenate([moved, self._facing_m * early.out], 1))
        facing = early.out + self._late.out[nearest]
        facing /= np.maximum(np.hypot(*facing.T), 1e-9)[:, None]
        gap = ((self._late.xy[nearest] - moved) * facing).sum(axis=1)
        return np.asarray(gap + self._design @ move, np.float64)

    def _solved(self, weight: Floats, residual: Floats) -> Floats:
        weighted = weight[:, None] * self._design
        ridge = _RIDGE * weight.sum() * np.eye(3)
        found: Floats = np.linalg.solve(weighted.T @ self._design + ridge, weighted.T @ residual)
        return found

    def _sums(self, weight: Floats, residual: Floats, group: Longs, count: int) -> tuple[Floats, Floats]:
        """Normal equations of each group, shapes (count, 3, 3) and (count, 3)."""
        design = self._design
        normal, right = np.zeros((count, 3, 3)), np.zeros((count, 3))
        np.add.at(normal, group, weight[:, None, None] * design[:, :, None] * design[:, None, :])
        np.add.at(right, group, (weight * residual)[:, None] * design)
        return normal, right


def _tukey(residual: Floats, scale: float) -> Floats:
    share = residual / (_TUKEY * scale)
    return np.where(np.abs(share) < 1, (1 - share**2) ** 2, 0.0)


def _first_guess(early: Source, late: Source) -> Floats:
    """East and north in metres at which both waters overlap most, to a cell of a coarse grid, shape (2,)."""
    both = np.concatenate([early.polygons, late.polygons])
    west, south, east, north = shapely.total_bounds(both).tolist()
    cell = max(east - west, north - south) / _CELLS
    grid = from_origin(west, north, cell, cell)
    shape = int((north - south) / cell) + 1, int((east - west) / cell) + 1
    masks = [rasterize(source.polygons, shape, transform=grid, dtype="uint8").astype(float) for source in (early, late)]
    padded = 2 * shape[0], 2 * shape[1]
    one, other = (rfft2(mask - mask.mean(), padded) for mask in masks)
    overlap = irfft2(np.conj(one) * other, padded)
    rows, columns = (np.fft.fftfreq(size, 1 / size) for size in padded)
    far = np.hypot(rows[:, None], columns) > _FURTHEST * _CELLS
    row, column = np.unravel_index(np.argmax(np.where(far, -np.inf, overlap)), padded)
    return np.array([columns[column] * cell, -rows[row] * cell])

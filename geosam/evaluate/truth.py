"""The truth of an image or a strip, and what is measured against it: pixels, boundary, narrow channels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

from geosam.evaluate.tally import LEVELS, Match, Tally

Bool = NDArray[np.bool_]

SEAM_PX = 4.5
"""Labels leave a doubtful seam at the banks. Its pixels are never counted, but the bank is taken to run along
its middle, as far as there is known ground within so many pixels: seams of 6 px, and round their corners."""

_ALL = slice(None)
_SLACK = 1.002
"""So that 5 m are 5 px of a metre in UTM, where a metre of the grid is up to 0.1 % more or less on the ground."""
_CONNECT_8 = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Ruler:
    """What counts as near and as narrow."""

    tolerance_px: float = 3.0
    """Boundary pixels match up to this distance, pixels: hand-made labels are right to two or three."""
    tolerance_m: float | None = None
    """The same in metres, as a second score; None: only pixels."""
    thin_px: int = 11
    """Water narrower than this is a thin channel, pixels."""
    failure_iou: float = 0.7
    """An image with less is a failure."""

    def halo_px(self, gsd_m: float | None) -> int:
        """Rows that a strip needs beyond its own so that its counts are those of the whole."""
        metres = self.tolerance_m / gsd_m if self.tolerance_m is not None and gsd_m else 0.0
        return math.ceil(max(self.tolerance_px, metres) + 2 * SEAM_PX) + 4 * self.thin_px


@dataclass(frozen=True, eq=False)
class Truth:
    """Water as it is known, on one grid.

    Attributes:
        water: bool (h, w); False where not known.
        known: bool (h, w); what is not known is not counted.
        ruler: What counts as near and as narrow.
        gsd_m: Metres a pixel, or None.
    """

    water: Bool
    known: Bool
    ruler: Ruler = Ruler()
    gsd_m: float | None = None

    def measure(self, found: Bool, probability: NDArray[np.float32] | None = None, rows: slice = _ALL) -> Tally:
        """Count a result.

        Args:
            found: Water found, shape (h, w).
            probability: Of water, 0 to 1, shape (h, w); None for a mask.
            rows: Only these are counted; the others are looked at for distances (a strip's halo).
        """
        truth, said, known = self.water[rows], found[rows], self.known[rows]
        wet, called = int((truth & known).sum()), int((said & known).sum())
        tp = int((truth & said & known).sum())
        total = int(known.sum())
        thin = self._thin[rows]
        near = self._match(found, rows)
        return Tally(
            tp=tp,
            fp=called - tp,
            fn=wet - tp,
            tn=total - wet - called + tp,
            edges=near[0],
            edges_m=near[1],
            thin=int(thin.sum()),
            thin_found=int((thin & said).sum()),
            **({} if probability is None else {"levels": _levels(truth, known, probability[rows])}),
        )

    def _match(self, found: Bool, rows: slice) -> tuple[Match, Match | None]:
        mine, other = self._edge, edge(found & self._near, ~found & self._near)
        to_mine, to_other = _distances(other, mine, rows), _distances(mine, other, rows)
        sure = edge(found & self.known, ~found & self.known)[rows][other[rows]]

        def within(tolerance: float) -> Match:
            near = to_mine <= tolerance
            # Where the truth knows only one side, an edge may be confirmed, but it cannot be wrong.
            counted = int((near | sure).sum())
            return Match(counted, int(near.sum()), to_other.size, int((to_other <= tolerance).sum()))

        metres, gsd = self.ruler.tolerance_m, self.gsd_m
        return within(self.ruler.tolerance_px), within(_SLACK * metres / gsd) if metres is not None and gsd else None

    @cached_property
    def _filled(self) -> tuple[Bool, Bool]:
        """Water with doubtful pixels given to the nearest known one, and where that can be relied on."""
        if self.known.all() or not self.known.any():
            return self.water & self.known, self.known
        away, nearest = ndimage.distance_transform_edt(~self.known, return_indices=True)
        return self.water[tuple(nearest)], away <= SEAM_PX

    @property
    def _near(self) -> Bool:
        return self._filled[1]

    @cached_property
    def _edge(self) -> Bool:
        water, near = self._filled
        return edge(water & near, ~water & near)

    @cached_property
    def _thin(self) -> Bool:
        water, near = self._filled
        return centreline(water & near, self.ruler.thin_px) & self.known & self.water


def edge(water: Bool, dry: Bool) -> Bool:
    """Water pixels with a dry pixel above, below, left or right; the border of the array is no edge."""
    found = np.zeros_like(water)
    found[1:] |= water[1:] & dry[:-1]
    found[:-1] |= water[:-1] & dry[1:]
    found[:, 1:] |= water[:, 1:] & dry[:, :-1]
    found[:, :-1] |= water[:, :-1] & dry[:, 1:]
    return found


def centreline(water: Bool, narrower_than_px: int) -> Bool:
    """Skeleton of the water narrower than a width, pixels.

    A stretch must be at least as long as that width: the spurs that a skeleton sends into the corners of a
    wide body are shorter.
    """
    out = np.zeros_like(water)
    if not water.any() or water.all():
        return out
    rows, cols = (np.flatnonzero(water.any(axis=axis)) for axis in (1, 0))
    box = slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(cols[0] - 1, 0), cols[-1] + 2)
    lines = _skeleton(water[box], 4 * narrower_than_px + 1)
    deep = _distances(lines, edge(~water[box], water[box]), _ALL) >= narrower_than_px / 2
    lines[tuple(np.argwhere(lines)[deep].T)] = False
    labels, count = ndimage.label(lines, structure=_CONNECT_8)
    long = np.bincount(labels.ravel(), minlength=count + 1) >= narrower_than_px
    long[0] = False
    out[box] = long[labels]
    return out


def _skeleton(water: Bool, wide_px: int) -> Bool:
    """Skeleton that is right where water is narrow.

    Thinning a body takes as many passes over the whole as half its width, so what is deeper than half of
    ``wide_px`` is taken out first: the line that is left around the hole is deep enough to be known as wide.
    """
    core = water.view(np.uint8)
    for axis in (0, 1):
        core = ndimage.minimum_filter1d(core, wide_px, axis=axis, mode="nearest")
    lines: Bool = skeletonize(water & (core == 0))  # type: ignore[no-untyped-call]
    return lines


def _distances(pixels: Bool, targets: Bool, rows: slice) -> NDArray[np.float64]:
    """From every pixel in some rows to the nearest target in any row, pixels; infinite if there is none.

    A tree of the few edge pixels, since a distance transform costs the whole area.
    """
    found = np.argwhere(pixels[rows])
    found[:, 0] += rows.start or 0
    if not len(found) or not targets.any():
        return np.full(len(found), np.inf)
    return np.asarray(cKDTree(np.argwhere(targets)).query(found)[0])


def _levels(water: Bool, known: Bool, probability: NDArray[np.float32]) -> NDArray[np.int64]:
    level = np.rint(np.clip(probability, 0, 1) * LEVELS).astype(np.int16)
    level += np.int16(LEVELS + 1) * water
    return np.bincount(level[known], minlength=2 * (LEVELS + 1)).reshape(2, LEVELS + 1)

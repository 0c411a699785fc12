"""Banks: the outline of a water body as evenly spaced points in metres."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import shapely

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Geometries = npt.NDArray[np.object_]

_SHAKE = 1e-3
"""Points are moved by up to this part of a pixel: four pixel corners on one circle have no one triangulation."""


@dataclass(frozen=True)
class Banks:
    """The rings of one polygon as points about one pixel apart.

    Every point is the middle of a piece of an outline, so that the staircase that pixels leave becomes a smooth
    line with as much water on either side: a corner is cut by half a pixel, and so is the next, the other way.
    """

    xy: Floats
    """Points in metres, shape (n, 2); those of a ring follow each other, and the first is not repeated."""
    offsets: Longs
    """Where each ring starts in ``xy``, and the end, shape (rings + 1,); ring 0 is the outer one."""

    @cached_property
    def ring(self) -> Longs:
        """Ring of each point, shape (n,)."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    @cached_property
    def following(self) -> Longs:
        """Index of the next point of the same ring, shape (n,)."""
        after = np.arange(1, len(self.xy) + 1)
        after[self.offsets[1:] - 1] = self.offsets[:-1]
        return after

    @cached_property
    def steps(self) -> Floats:
        """Distance to the next point of the same ring in metres, shape (n,)."""
        length: Floats = np.hypot(*(self.xy[self.following] - self.xy).T)
        return length

    @cached_property
    def along(self) -> Floats:
        """Distance from the first point of the ring, in metres, shape (n,)."""
        total = np.cumsum(self.steps) - self.steps
        along: Floats = total - total[self.offsets[:-1]][self.ring]
        return along

    @cached_property
    def ring_length(self) -> Floats:
        """Length of each ring in metres, shape (rings,)."""
        return np.asarray(np.add.reduceat(self.steps, self.offsets[:-1]), np.float64)

    @cached_property
    def polygon(self) -> shapely.Polygon:
        """The water between these banks; holes are islands."""
        rings = [self.xy[a:b] for a, b in zip(self.offsets[:-1], self.offsets[1:], strict=True)]
        return shapely.Polygon(rings[0], rings[1:])

    def gap(self, one: Longs, other: Longs) -> Floats:
        """How much further it is along the bank than straight across, in metres; infinite between two rings.

        Args:
            one: Indices of points, shape (k,).
            other: As many others.
        """
        apart = np.abs(self.along[one] - self.along[other])
        apart = np.minimum(apart, self.ring_length[self.ring[one]] - apart)
        straight = np.hypot(*(self.xy[one] - self.xy[other]).T)
        return np.where(self.ring[one] == self.ring[other], apart - straight, np.inf)

    def without(self, dropped: Bools) -> Banks:
        """These banks less some islands.

        Args:
            dropped: Which rings go, shape (rings,); not the outer one.
        """
        sizes = np.diff(self.offsets)
        return Banks(self.xy[~dropped[self.ring]], np.concatenate([[0], np.cumsum(sizes[~dropped])]))

    def refined(self, coarse: Longs) -> Banks:
        """Banks with one more point in the middle of some pieces.

        Args:
            coarse: Indices of the points at which these pieces start.
        """
        middle = (self.xy[coarse] + self.xy[self.following[coarse]]) / 2
        more = np.bincount(self.ring[coarse], minlength=len(self.offsets) - 1)
        return Banks(
            np.insert(self.xy, coarse + 1, middle, axis=0),
            self.offsets + np.concatenate([[0], np.cumsum(more)]),
        )


def banks_of(water: shapely.Polygon | Geometries, spacing_m: float) -> Banks:
    """The banks of a polygon, or of several that do not overlap.

    Args:
        water: Polygons in metres; holes are islands.
        spacing_m: Distance of neighbouring points: the size of a pixel.
    """
    xy, ring = shapely.get_coordinates(shapely.get_rings(water), return_index=True)
    start = np.flatnonzero(ring[1:] == ring[:-1])
    length = np.hypot(*(xy[start + 1] - xy[start]).T)
    start, length = start[length > 0], length[length > 0]
    pieces = np.maximum(np.rint(length / spacing_m).astype(np.int64), 1)
    which = np.repeat(np.arange(len(start)), pieces)
    part = np.arange(len(which)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    share = (part + 0.5) / pieces[which]
    points = xy[start[which]] + share[:, None] * (xy[start[which] + 1] - xy[start[which]])
    shaken = points + np.random.default_rng(0).uniform(-_SHAKE, _SHAKE, points.shape) * spacing_m
    sizes = np.bincount(ring[start[which]])
    return Banks(shaken, np.concatenate([[0], np.cumsum(sizes)]))

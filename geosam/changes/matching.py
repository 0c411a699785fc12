"""Which place on the late course of a river each place on its early course went to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from scipy.ndimage import gaussian_filter1d

from geosam.rivers.banks import Bools, Floats, Longs

_STATIONS_PER_WIDTH = 2.0
_MOST_STATIONS = 4000
"""The table of all distances between two courses has so many rows and columns at most."""
_FAR = 8.0
"""A course so many widths away is that of another river."""
_MOSTLY = 4.0
"""So is one from which half the stations are so many widths away."""
_LEAST_NEAR = 0.25
"""And one that is near along less than this part of the way: a cut-off may be long."""
_SMOOTH = 1.5
"""Places on the late course are smoothed over so many stations, as alignment goes by whole steps."""


@dataclass(frozen=True)
class Course:
    """The main course of a river as evenly spaced stations."""

    line: int
    """Id of its centreline."""
    river: int
    """Id of its water body."""
    at: Floats
    """Distance along it in metres, shape (n,)."""
    xy: Floats
    """Shape (n, 2), metres."""
    geometry: shapely.LineString
    """The line itself."""
    width_m: float
    """Mean width of the channel."""

    @classmethod
    def of(cls, line: int, river: int, geometry: shapely.LineString, width_m: float) -> Course:
        """Stations on a centreline."""
        count = int(np.clip(round(geometry.length / width_m * _STATIONS_PER_WIDTH), 8, _MOST_STATIONS))
        at = np.linspace(0, geometry.length, count)
        xy = shapely.get_coordinates(shapely.line_interpolate_point(geometry, at))
        return cls(line, river, at, xy, geometry, width_m)

    def place(self, at: Floats) -> Floats:
        """Points at some distances along it, shape (k, 2)."""
        return np.asarray(shapely.get_coordinates(shapely.line_interpolate_point(self.geometry, at)), np.float64)


@dataclass(frozen=True)
class Run:
    """A stretch of an early course and the stretch of a late one that it became."""

    first: int
    """Its first station."""
    late: Course
    late_at: Floats
    """Distance along the late course in metres that each station went to, monotone, shape (k,)."""

    @property
    def stations(self) -> slice:
        """Its stations."""
        return slice(self.first, self.first + len(self.late_at))

    def places(self) -> Floats:
        """Where its stations went, shape (k, 2)."""
        pad = int(4 * _SMOOTH) + 1
        if len(self.late_at) <= pad:
            return self.late.place(self.late_at)
        padded = np.pad(self.late_at, pad, mode="reflect", reflect_type="odd")
        return self.late.place(gaussian_filter1d(padded, _SMOOTH)[pad:-pad])


def runs_between(early: list[Course], late: list[Course]) -> list[list[Run]]:
    """The runs of each early course, in order along it.

    Pairs that share most of their way come first, and what they take is taken: the lake that a cut-off bend became
    lies on the bend, but the river no longer does.

    Args:
        early: Courses of the early rivers.
        late: Those of the late rivers.
    """
    free = [np.ones(len(course.at), bool) for course in early]
    taken: list[list[tuple[float, float]]] = [[] for _ in late]
    runs: list[list[Run]] = [[] for _ in early]
    pairs = [(int(_near(one, other).sum()), e, l) for e, one in enumerate(early) for l, other in enumerate(late)]  # noqa: E741
    for count, e, l in sorted(pairs, key=lambda pair: -pair[0]):  # noqa: E741
        run = _run(early[e], late[l], free[e]) if count else None
        if run is None:
            continue
        low, high = sorted((float(run.late_at[0]), float(run.late_at[-1])))
        if any(min(high, b) - max(low, a) > (high - low) / 2 for a, b in taken[l]):
            continue
        free[e][run.stations] = False
        taken[l].append((low, high))
        runs[e].append(run)
    return [sorted(some, key=lambda run: run.first) for some in runs]


def _near(early: Course, late: Course) -> Bools:
    """Stations that lie beside a late course, not beyond its ends, shape (n,)."""
    line, points = late.geometry, shapely.points(early.xy)
    along = shapely.line_locate_point(line, points)
    beside = (along > 0) & (along < line.length)
    return np.asarray(beside & (shapely.distance(line, points) < _FAR * early.width_m), bool)


def _run(early: Course, late: Course, free: Bools) -> Run | None:
    """The longest free run beside a late course; None where the two are not one river."""
    near = np.flatnonzero(_near(early, late))
    parts = np.split(near, np.flatnonzero(np.diff(np.cumsum(~free)[near]) > 0) + 1)
    inside = max((part[free[part]] for part in parts), key=lambda part: np.ptp(part) if len(part) else 0)
    if len(inside) < 4 or len(inside) < _LEAST_NEAR * (np.ptp(inside) + 1):
        return None
    line, points = late.geometry, shapely.points(early.xy[inside])
    if np.median(shapely.distance(line, points)) > _MOSTLY * early.width_m:
        return None
    first, last = int(inside[0]), int(inside[-1])
    start, end = shapely.line_locate_point(line, points[[0, -1]]).tolist()
    step = max(early.width_m / _STATIONS_PER_WIDTH, abs(end - start) / _MOST_STATIONS)
    late_at = np.linspace(start, end, max(4, round(abs(end - start) / step) + 1))
    return Run(first, late, aligned(early.xy[first : last + 1], late.place(late_at), late_at))


def aligned(early: Floats, late: Floats, late_at: Floats) -> Floats:
    """Distance along the late course of each early station by dynamic time warping.

    Of all ways to walk both lines from end to end, never back, it is the one on which the walkers are least apart, all
    in all.

    Args:
        early: Stations, shape (n, 2).
        late: Stations, shape (m, 2).
        late_at: Distance of each along the late course, shape (m,).

    Returns:
        Mean distance of the stations that each early one meets, monotone, shape (n,).

    Source: Sakoe and Chiba (1978), Dynamic programming algorithm optimization for spoken word recognition; Sylvester et
    al. (2019), High curvatures drive river meandering, Geology 47, who align centrelines by it.
    """
    apart = np.hypot(*(early[:, None] - late[None]).transpose(2, 0, 1)).astype(np.float32)
    rows, columns = _way(apart)
    met = np.bincount(rows, minlength=len(early))
    mean: Floats = np.bincount(rows, late_at[columns], minlength=len(early)) / met
    return mean


def _way(apart: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> tuple[Longs, Longs]:
    """Rows and columns of the cheapest way from the first cell to the last."""
    height, width = apart.shape
    came = np.zeros((height, width), np.int8)
    above = np.full(height + 1, np.inf)  # of the diagonal before, by row + 1
    aslant = above.copy()
    for diagonal in range(height + width - 1):
        row = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        before = np.stack([aslant[row], above[row], above[row + 1]])
        best = before.argmin(axis=0)
        came[row, diagonal - row] = best
        here = np.full(height + 1, np.inf)
        here[row + 1] = apart[row, diagonal - row] + (before.min(axis=0) if diagonal else 0)
        aslant, above = above, here
    cells = [(height - 1, width - 1)]
    while cells[-1] != (0, 0):
        row_, column = cells[-1]
        back = came[row_, column]
        cells.append((row_ - (back != 2), column - (back != 1)))
    rows, columns = np.array(cells[::-1], np.int64).T
    return rows, columns

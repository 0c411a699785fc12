"""How far the course of a river moved, by station and by reach."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import geopandas as gpd
import numpy as np
import shapely

from geosam.changes.cutoffs import Cutoff, cutoffs_of
from geosam.changes.matching import Course, Run
from geosam.options import ChangeOptions
from geosam.rivers.banks import Bools, Floats, Longs
from geosam.rivers.layers import Layers
from geosam.rivers.plane import Plane

State = Literal["moved", "cut off", "other channel", "not found"]

MEASURED = 0.5
"""A reach has figures where the course could be followed along this part of it."""
_OTHER_CHANNEL = 1.0
"""Where the early course is still water, but the late one is more than so many widths away, it took another channel."""
_TOWARDS = {"north": (0, 1), "east": (1, 0), "south": (0, -1), "west": (-1, 0)}


@dataclass(frozen=True)
class Moves:
    """Where the stations of one early course went."""

    course: Course
    places: Floats
    """On the late course in metres, shape (n, 2); NaN where it could not be followed."""
    right_m2: Floats
    """Land swept between each station and the next, to the right of the way downstream; negative to the left; NaN
    where it could not be followed, shape (n - 1,)."""
    cut: Bools
    """Steps on a loop that was cut off, shape (n - 1,)."""
    aside: Bools
    """Steps in a channel that is still there, but no longer the main one, shape (n - 1,)."""
    cutoffs: list[Cutoff]

    @property
    def steps(self) -> Floats:
        """Length of each step in metres, shape (n - 1,)."""
        return np.diff(self.course.at)

    @property
    def right_m(self) -> Floats:
        """How far each station moved to the right, square to the course, in metres; NaN where unknown, shape (n,)."""
        swept = np.pad(self.right_m2, 1, constant_values=np.nan)
        length = np.pad(self.steps, 1, constant_values=np.nan)
        pairs = np.stack([swept[:-1], swept[1:]]), np.stack([length[:-1], length[1:]])
        known = np.isfinite(pairs[0])
        total = np.where(known, pairs[1], 0).sum(axis=0)
        moved: Floats = np.where(known, pairs[0], 0).sum(axis=0) / np.where(total > 0, total, np.nan)
        return moved


def courses_of(layers: Layers, plane: Plane) -> list[Course]:
    """Main courses in metres, the largest river first."""
    lines = layers.centrelines
    if len(lines) == 0:
        return []
    main = lines[(lines["role"] == "main") & (lines["width_mean_m"] > 0)]
    shapes = plane.to_metres(main.geometry.to_numpy())
    return [
        Course.of(int(row.id), int(row.water), shape, float(row.width_mean_m))
        for row, shape in zip(main.itertuples(), shapes, strict=True)
    ]


def moves_of(course: Course, runs: list[Run], wet: shapely.Geometry, options: ChangeOptions) -> Moves:
    """Where a course went.

    Args:
        course: The early course.
        runs: What its stretches became.
        wet: All late water in metres.
        options: The way downstream.
    """
    count = len(course.at)
    places, swept = np.full((count, 2), np.nan), np.full(count - 1, np.nan)
    cut = np.zeros(count - 1, bool)
    cutoffs: list[Cutoff] = []
    for run in runs:
        there = run.places()
        places[run.stations] = there
        swept[run.stations.start : run.stations.stop - 1] = _swept(course.xy[run.stations], there)
        cutoffs += cutoffs_of(course, run)
    for cutoff in cutoffs:
        cut[cutoff.first : cutoff.last] = True
    aside = _aside(course, runs, wet) & ~cut
    swept[cut | aside] = np.nan
    return Moves(course, places, swept * _downstream(course, options), cut, aside, cutoffs)


def _swept(here: Floats, there: Floats) -> Floats:
    """Area between two lines, step by step, positive to the right of the first one's direction."""
    first, second = there[1:] - here[:-1], there[:-1] - here[1:]
    area: Floats = (first[:, 1] * second[:, 0] - first[:, 0] * second[:, 1]) / 2
    return area


def _aside(course: Course, runs: list[Run], wet: shapely.Geometry) -> Bools:
    """Steps at either end of which the early course is still water and the late one is elsewhere, shape (n - 1,)."""
    there = np.zeros(len(course.at), bool)
    for run in runs:
        xy = course.xy[run.stations]
        gone = shapely.distance(run.late.geometry, shapely.points(xy)) > _OTHER_CHANNEL * course.width_m
        there[run.stations] = gone & shapely.contains_xy(wet, xy)
    return np.asarray(there[:-1] | there[1:], bool)


def _downstream(course: Course, options: ChangeOptions) -> float:
    if options.downstream == "auto":
        return 1.0
    return 1.0 if (course.xy[-1] - course.xy[0]) @ np.array(_TOWARDS[options.downstream]) >= 0 else -1.0


@dataclass(frozen=True)
class ReachMoves:
    """Migration of the reaches of all early rivers, a row each, as columns; NaN where it could not be measured."""

    river: Longs
    line: Longs
    from_m: Floats
    to_m: Floats
    length_m: Floats
    width_m: Floats
    """Mean width of the channel, early."""
    state: np.ndarray[tuple[int], np.dtype[np.object_]]
    """One of :data:`State`."""
    measured: Floats
    """Part of its length along which the course could be followed."""
    migration_m: Floats
    """Area that the centreline swept over length, whichever the side."""
    left_m: Floats
    """Part of it to the left, seen downstream."""
    right_m: Floats
    net_m: Floats
    """Right less left: positive to the right."""

    def columns(self) -> dict[str, np.ndarray[tuple[int], np.dtype[np.generic]]]:
        """By name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def reaches_of(reaches: gpd.GeoDataFrame, moves: list[Moves]) -> ReachMoves:
    """Migration by reach.

    Args:
        reaches: Those of the early main courses, as the rivers room gives them.
        moves: Where the stations of all courses went.
    """
    by_line = {some.course.line: some for some in moves}
    rows = [_reach(row, by_line[row.line]) for row in reaches.itertuples()]
    state = np.array([row[0] for row in rows], object)
    values = np.array([row[1:] for row in rows], float).reshape(-1, 5)
    river, line = (reaches[name].to_numpy().astype(np.int64) for name in ("water", "line"))
    start, end, length, width = (
        reaches[name].to_numpy().astype(np.float64) for name in ("from_m", "to_m", "length_m", "width_mean_m")
    )
    measured, migration, left, right, net = values.T
    return ReachMoves(river, line, start, end, length, width, state, measured, migration, left, right, net)


def _reach(row: object, moves: Moves) -> tuple[State, float, float, float, float, float]:
    """State, measured part, migration, left, right and net of one reach."""
    start, end = (float(getattr(row, name)) for name in ("from_m", "to_m"))
    middle = (moves.course.at[:-1] + moves.course.at[1:]) / 2
    here = (middle >= start) & (middle < end)
    if not here.any():
        here[np.argmin(np.abs(middle - (start + end) / 2))] = True
    steps, swept = moves.steps[here], moves.right_m2[here]
    known = np.isfinite(swept)
    length = float(steps[known].sum())
    share = length / float(steps.sum())
    state = _state(share, *(float(steps[part[here]].sum() / steps.sum()) for part in (moves.cut, moves.aside)))
    if state != "moved":
        return state, share, np.nan, np.nan, np.nan, np.nan
    right = float(np.maximum(swept[known], 0).sum()) / length
    left = float(np.maximum(-swept[known], 0).sum()) / length
    return state, share, right + left, left, right, right - left


def _state(measured: float, cut: float, aside: float) -> State:
    if measured >= MEASURED:
        return "moved"
    if cut >= aside and cut > 0:
        return "cut off"
    return "other channel" if aside > 0 else "not found"

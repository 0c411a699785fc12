"""Bends that a river cut off: where its late course leaves out a loop of the early one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from geosam.changes.matching import Course, Run
from geosam.rivers.banks import Bools, Floats

RATIO = 1.5
"""A loop is longer than so many times the way that the late river takes."""
EXCESS_WIDTHS = 3.0
"""By more than so many widths beyond that."""
_ASIDE_WIDTHS = 1.0
"""And somewhere it is so many widths from the late course."""
_APART_WIDTHS = 5.0
"""Two loops are two where the sum falls by so many widths between them, which an unchanged river of twice that does."""


@dataclass(frozen=True)
class Cutoff:
    """A loop of an early course that the late one leaves out."""

    first: int
    """Its first station on the early course."""
    last: int
    length_m: float
    """Of the loop."""
    late_m: float
    """Of the way that the river takes instead."""


def cutoffs_of(course: Course, run: Run) -> list[Cutoff]:
    """Cut-offs on one run, in order.

    Along the course each step counts its length, less :data:`RATIO` times that of the step that it became. A loop is a
    stretch whose sum is as great as can be; a bend that merely moved has none far above zero.

    Args:
        course: The early course.
        run: A stretch of it, and what it became.
    """
    late = np.abs(np.diff(run.late_at))
    early = np.diff(course.at[run.stations])
    scores = early - RATIO * late
    points = shapely.points(course.xy[run.stations])
    aside = np.asarray(shapely.distance(run.late.geometry, points) > _ASIDE_WIDTHS * course.width_m, bool)
    found: list[Cutoff] = []
    for start, end in _stretches(scores, _APART_WIDTHS * course.width_m):
        if scores[start:end].sum() < EXCESS_WIDTHS * course.width_m or not aside[start : end + 1].any():
            continue
        first, last = _whole(start, end, aside)
        first = max(first, found[-1].last - run.first if found else 0)
        if last > first:
            length, instead = float(early[first:last].sum()), float(late[first:last].sum())
            found.append(Cutoff(run.first + first, run.first + last, length, instead))
    return found


def _whole(start: int, end: int, aside: Bools) -> tuple[int, int]:
    """The loop that a stretch belongs to, from neck to neck: from where the late course is near to where it is again.

    The alignment leads the late course into the loop's limbs, which would seem to have moved very far.
    """
    near, middle = np.flatnonzero(~aside), (start + end) // 2
    before, after = near[near <= middle], near[near > middle]
    first = before[np.argmin(np.abs(before - start))] if len(before) else 0
    last = after[np.argmin(np.abs(after - end))] if len(after) else len(aside) - 1
    return int(first), int(last)


def _stretches(scores: Floats, drop: float) -> list[tuple[int, int]]:
    """Stretches of greatest sum, as (start, end), end not included; a fall of the sum by ``drop`` parts two."""
    found = []
    start = end = k = 0
    total = peak = 0.0
    while k < len(scores):
        total += scores[k]
        k += 1
        if total > peak:
            end, peak = k, total
        if total <= 0 or total < peak - drop or k == len(scores):
            if peak > 0:
                found.append((start, end))
                k = end
            start = k
            total = peak = 0.0
    return found

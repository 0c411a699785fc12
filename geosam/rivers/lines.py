"""Centrelines: links made smooth, and led on to where the water ends."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.ndimage import gaussian_filter1d

from geosam.rivers.banks import Floats, Longs
from geosam.rivers.course import Course
from geosam.rivers.crossing import Cutter
from geosam.rivers.network import Network

Role = Literal["main", "channel", "branch"]

SMOOTH = 0.15
"""Lines are smoothed over this part of the half width: in banks that are rough over half a width, twice as much moved
the line by a pixel where the width is 48, and in a bend as tight as bends get this much moves it by 1/400 width."""
_SMOOTH_PX = 1.5
_CENTRE = 0.15
MOST_UNEVEN = 1.25
"""Where the banks are further apart than so many times the largest circle, one of them is at a mouth."""
_LEAD_ON = 5.0
"""An end is led on to the bank by at most so many radii."""


@dataclass(frozen=True)
class Line:
    """A centreline."""

    xy: Floats
    """Points about a pixel apart, in metres, shape (n, 2)."""
    radius: Floats
    """Distance to the nearest bank at each, shape (n,)."""
    role: Role
    """``main``: the main course; ``channel``: joins it at both ends; ``branch``: at one end or none."""
    own: tuple[float, float]
    """From where to where along it the water is its own: before and after, that of the channel that it joins."""

    @cached_property
    def along(self) -> Floats:
        """Distance from the start at each point in metres, shape (n,)."""
        return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(self.xy, axis=0).T))])

    def place(self, at: Floats) -> Floats:
        """Points at some distances from the start, shape (k, 2); beyond the ends, the ends."""
        return np.stack([np.interp(at, self.along, self.xy[:, k]) for k in (0, 1)], 1)


@dataclass(frozen=True)
class _Smooth:
    """A path made smooth."""

    xy: Floats
    radius: Floats
    raw: Floats
    """Distance along the path as it was, at each point."""


def lines_of(
    network: Network, courses: list[Course], cutter: Cutter, pixel_m: float, goals: dict[int, Floats]
) -> list[Line]:
    """Centrelines of a network: the main course of each part as one line, and one for every other link.

    Main courses run from their narrower to their wider end, branches towards what they join.

    Args:
        network: Channels of one water body.
        courses: Main courses of its parts.
        cutter: Its banks.
        pixel_m: Distance of the points of a line.
        goals: Where some dead ends are to be led, shape (2,) each; the others are led straight on to the bank.
    """
    lines: list[Line] = []
    leader = _Leader(cutter, set(network.tips()), goals, pixel_m)
    for course, taken, links in courses:
        smooth = _centred(_smoothed(network, course, pixel_m), cutter, pixel_m)
        places = _places(network, course, smooth)
        lines.append(_towards_wide(leader.line(smooth, course, "main", (False, False))))
        for link in sorted(set(links) - set(taken)):
            path, role = _towards_joint(network, network.links[link])
            joined = (len(network.at[int(path[0])]) > 1, len(network.at[int(path[-1])]) > 1)
            smooth = _centred(_smoothed(network, path, pixel_m), cutter, pixel_m)
            pinned = _pinned(smooth, places.get(int(path[0])), places.get(int(path[-1])))
            lines.append(leader.line(pinned, path, role, joined))
    return lines


def _smoothed(network: Network, path: Longs, pixel_m: float) -> _Smooth:
    """A path as evenly spaced points, smoothed; its two ends stay where they are."""
    along = network.along(path)
    count = max(2, round(along[-1] / pixel_m) + 1)
    raw = np.linspace(0.0, along[-1], count)
    xy = np.stack([np.interp(raw, along, network.axis.xy[path, k]) for k in (0, 1)], 1)
    radius = np.interp(raw, along, network.axis.radius[path])
    sigma = max(_SMOOTH_PX, SMOOTH * float(np.median(radius)) / pixel_m)
    pad = int(4 * sigma)
    # Mirrored through its ends, a line keeps its ends and its direction there.
    padded = np.pad(xy, ((pad, pad), (0, 0)), mode="reflect", reflect_type="odd")
    smooth = gaussian_filter1d(padded, sigma, axis=0)[pad : pad + count]
    return _Smooth(smooth, radius, raw)


def _centred(smooth: _Smooth, cutter: Cutter, pixel_m: float) -> _Smooth:
    """A path moved midway between the banks to its left and right; its ends and what is at a mouth stay.

    The circles of the axis touch the banks where these stand out most, so that it keeps away from rough banks.
    """
    step = max(1, round(_CENTRE * float(np.median(smooth.radius)) / pixel_m))
    at = np.arange(step, len(smooth.xy) - step, step)
    if len(at) < 2:
        return smooth
    xy, radius = smooth.xy[at], smooth.radius[at]
    window = np.maximum(1, np.rint(radius / pixel_m)).astype(np.int64)
    ahead = smooth.xy[np.minimum(at + window, len(smooth.xy) - 1)] - smooth.xy[np.maximum(at - window, 0)]
    across = np.stack([ahead[:, 1], -ahead[:, 0]], 1) / np.maximum(np.hypot(*ahead.T), 1e-9)[:, None]
    left, right = cutter.cut(xy, across, MOST_UNEVEN * 2 * radius).nearest(len(at))
    between = right - left < MOST_UNEVEN * 2 * radius
    aside = gaussian_filter1d(np.where(between, (np.where(between, left, 0) + np.where(between, right, 0)) / 2, 0), 1)
    shift = aside[:, None] * across
    every = np.arange(len(smooth.xy))
    ends = np.concatenate([[0], at, [len(smooth.xy) - 1]])
    moved = [np.interp(every, ends, np.concatenate([[0], shift[:, k], [0]])) for k in (0, 1)]
    return _Smooth(smooth.xy + np.stack(moved, 1), smooth.radius, smooth.raw)


def _places(network: Network, course: Longs, smooth: _Smooth) -> dict[int, Floats]:
    """Where the nodes of a course have come to lie."""
    along = network.along(course)
    return {
        node: np.array([np.interp(at, smooth.raw, smooth.xy[:, k]) for k in (0, 1)])
        for node, at in zip(course.tolist(), along.tolist(), strict=True)
        if node in network.at
    }


def _pinned(smooth: _Smooth, start: Floats | None, end: Floats | None) -> _Smooth:
    """A line moved so that it starts and ends on the lines it joins, less and less away from there."""
    xy = smooth.xy.copy()
    for place, near, from_end in ((start, 0, smooth.raw), (end, -1, smooth.raw[-1] - smooth.raw)):
        if place is not None:
            fade = max(min(2 * smooth.radius[near], smooth.raw[-1] / 2), 1e-9)
            xy += np.clip(1 - from_end / fade, 0, 1)[:, None] * (place - smooth.xy[near])
    return _Smooth(xy, smooth.radius, smooth.raw)


def _towards_joint(network: Network, path: Longs) -> tuple[Longs, Role]:
    is_tip = [len(network.at[int(path[end])]) == 1 for end in (0, -1)]
    role: Role = "branch" if any(is_tip) else "channel"
    return (path[::-1] if is_tip[1] and not is_tip[0] else path), role


def _towards_wide(line: Line) -> Line:
    fifth = max(1, len(line.xy) // 5)
    if line.radius[:fifth].mean() <= line.radius[-fifth:].mean():
        return line
    return Line(line.xy[::-1], line.radius[::-1], line.role, line.own)


@dataclass(frozen=True)
class _Leader:
    """Leads lines on to the bank where they end at one."""

    cutter: Cutter
    tips: set[int]
    goals: dict[int, Floats]
    pixel_m: float

    def line(self, smooth: _Smooth, path: Longs, role: Role, joined: tuple[bool, bool]) -> Line:
        """A line of a smoothed path; ``joined`` tells of its two ends whether it ends on another there."""
        head, tail = (self._ahead(smooth, end, int(path[end])) for end in (0, -1))
        first, last = np.repeat(smooth.radius[:1], len(head)), np.repeat(smooth.radius[-1:], len(tail))
        xy = np.concatenate([head[::-1], smooth.xy, tail])
        length = float(np.hypot(*np.diff(xy, axis=0).T).sum())
        own = (joined[0] * float(smooth.radius[0]), length - joined[1] * float(smooth.radius[-1]))
        return Line(xy, np.concatenate([first, smooth.radius, last]), role, own)

    def _ahead(self, smooth: _Smooth, end: int, node: int) -> Floats:
        """Points from a dead end to its goal or to the bank, without the end itself, shape (k, 2)."""
        if node not in self.tips:
            return np.empty((0, 2))
        xy = smooth.xy if end == 0 else smooth.xy[::-1]
        radius = float(smooth.radius[end])
        away = np.hypot(*(xy - xy[0]).T)
        back = xy[min(int(np.searchsorted(away, max(2 * radius, 3 * self.pixel_m))), len(xy) - 1)]
        ahead = (xy[0] - back) / max(float(np.hypot(*(xy[0] - back))), 1e-9)
        goal = self.goals[node] if node in self.goals else xy[0] + self._clear(xy[0], ahead, radius) * ahead
        far = float(np.hypot(*(goal - xy[0])))
        share = np.linspace(0, 1, max(1, round(far / self.pixel_m)) + 1)[1:, None]
        turn = xy[0] + ahead * far / 2  # a parabola that sets out as the line ended
        return np.asarray((1 - share) ** 2 * xy[0] + 2 * share * (1 - share) * turn + share**2 * goal)

    def _clear(self, tip: Floats, ahead: Floats, radius: float) -> float:
        """Metres from a dead end straight on to the bank."""
        reach = np.array([_LEAD_ON * radius])
        _, bank = self.cutter.cut(tip[None], ahead[None], reach).nearest(1)
        return float(min(bank[0], reach[0]))

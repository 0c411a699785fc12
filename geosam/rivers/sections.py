"""Cross-sections: how wide the water is, every so many metres, square to the centreline."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy.ndimage import median_filter
from scipy.spatial import cKDTree

from geosam.rivers.banks import Bools, Floats, Longs
from geosam.rivers.crossing import Crossings, Cutter
from geosam.rivers.lines import Line

AT_MOUTH = 1.5
"""A section so many times as wide as the largest circle about its middle runs into the mouth of another channel."""
_BELT = 1.2
"""Water and islands so many times as wide as the channel are a belt, whose direction is that of the whole belt."""
_NEIGHBOURS = 15
_ASLANT = 2.0
"""A section with so many times the water that there is around it runs along another channel, not across it."""
_FIRST_REACH = 4.0
_MOST_DOUBLINGS = 20


@dataclass(frozen=True)
class Sections:
    """Cross-sections of the centrelines of one water body."""

    line: Longs
    """Index of the line of each section, ascending, shape (n,)."""
    at: Floats
    """Distance along it in metres, shape (n,)."""
    ends: Floats
    """Left and right end in metres, shape (n, 2, 2): of all water and islands on a main course, else of the channel,
    and so where a main course's section would run along another channel."""
    width: Floats
    """Water of the channel that holds the centreline in metres, shape (n,)."""
    wetted: Floats
    """Water between the outer banks, all channels together, shape (n,); NaN off the main courses."""
    total: Floats
    """Distance of the outer banks, islands included, shape (n,); NaN off the main courses."""
    channels: Floats
    """Number of channels between the outer banks, shape (n,); NaN off the main courses."""
    at_mouth: Bools
    """The section of a main course runs into the mouth of another channel: its width says little, shape (n,)."""

    def where(self, kept: Bools) -> Sections:
        """Only some of them; ``kept`` has shape (n,)."""
        return Sections(*(getattr(self, field.name)[kept] for field in fields(self)))


@dataclass(frozen=True)
class Shores:
    """The banks that sections are cut by, and what each of them is."""

    cutter: Cutter
    """All of them, those of every island included."""
    specks: Bools
    """Islands that part no channel, by ring, shape (rings,)."""
    land: Bools
    """Rings that are the outer bank, and not that of an island, shape (rings,)."""
    unseen: Floats
    """Points about a pixel apart where the outline is no bank but the scene's edge, shape (n, 2)."""
    pixel_m: float

    def reached(self, places: Floats) -> Bools:
        """Whether places on the outline are on a bank, shape (n,) for places of shape (n, 2)."""
        if len(self.unseen) == 0:
            return np.ones(len(places), bool)
        return np.asarray(cKDTree(self.unseen).query(places)[0] > self.pixel_m)


def sections_of(lines: list[Line], shores: Shores, every_m: float) -> Sections:
    """Cross-sections of centrelines.

    There are none where a line leaves the water, as it may in a channel of one pixel, and none that ends at the edge
    of the scene; on side channels none that runs into the mouth of another.

    Args:
        lines: Centrelines of one water body.
        shores: Its banks.
        every_m: Distance between sections; the first is half as far from the line's start.
    """
    stations = _Stations.of(lines, every_m)
    stations = stations.some(shores.cutter.in_water(stations.xy, shores.specks))
    across = _square_to(stations.direction(np.maximum(stations.radius, every_m / 2)))
    found, left, right = _until_bank(shores, stations, across, ~shores.specks)
    islets = found.where(shores.specks[found.ring] & (found.at > left[found.line]) & (found.at < right[found.line]))
    width = right - left - islets.water(len(left))[0]
    belt = _belt(shores, stations, across, width)
    belt.drop(_aslant(belt, stations, width), np.stack([left, right], 1), across)
    ends = np.where(stations.main[:, None], belt.ends, np.stack([left, right], 1))
    square = np.where(stations.main[:, None], belt.across, across)
    sections = Sections(
        stations.line, stations.at, stations.xy[:, None] + ends[:, :, None] * square[:, None], width,
        belt.wetted, belt.total, belt.channels, right - left > AT_MOUTH * 2 * stations.radius,
    )  # fmt: skip
    seen = np.logical_and(*(shores.reached(stations.xy + end[:, None] * across) for end in (left, right)))
    return sections.where(seen & (stations.main | ~sections.at_mouth))


@dataclass(frozen=True)
class _Stations:
    """Places on lines."""

    lines: list[Line]
    line: Longs
    at: Floats
    xy: Floats
    radius: Floats

    @classmethod
    def of(cls, lines: list[Line], every_m: float) -> _Stations:
        number, at, xy, radius = [], [], [], []
        for k, line in enumerate(lines):
            along = line.along
            first, last = line.own
            count = max(0 if last < first else 1, round((last - first) / every_m))
            places = first + (np.arange(count) + 0.5) * (last - first) / max(count, 1)
            number.append(np.full(count, k))
            at.append(places)
            xy.append(line.place(places))
            radius.append(np.interp(places, along, line.radius))
        return cls(lines, *(np.concatenate(parts) for parts in (number, at, xy, radius)))

    @property
    def main(self) -> Bools:
        return np.array([line.role == "main" for line in self.lines])[self.line]

    def direction(self, window: Floats) -> Floats:
        """Unit vectors along the lines between places so far before and after, shape (n, 2)."""
        step = np.empty_like(self.xy)
        first = np.searchsorted(self.line, np.arange(len(self.lines) + 1)).tolist()
        for line, start, end in zip(self.lines, first[:-1], first[1:], strict=True):
            at, reach = self.at[start:end], window[start:end]
            step[start:end] = line.place(at + reach) - line.place(at - reach)
        return np.asarray(step / np.maximum(np.hypot(*step.T), 1e-9)[:, None], np.float64)

    def some(self, chosen: Bools) -> _Stations:
        return _Stations(self.lines, self.line[chosen], self.at[chosen], self.xy[chosen], self.radius[chosen])


@dataclass(frozen=True)
class _Belt:
    ends: Floats
    across: Floats
    wetted: Floats
    total: Floats
    channels: Floats

    @classmethod
    def none(cls, across: Floats) -> _Belt:
        """Nothing known yet."""
        return cls(np.full(across.shape, np.nan), across.copy(), *(np.full(len(across), np.nan) for _ in range(3)))

    def measure(self, shores: Shores, stations: _Stations, chosen: Bools) -> None:
        """Fill in what is found at some stations."""
        if not chosen.any():
            return
        some, across = stations.some(chosen), self.across[chosen]
        found, left, right = _until_bank(shores, some, across, shores.land)
        inside = found.where((found.at >= left[found.line]) & (found.at <= right[found.line]))
        seen = np.logical_and(*(shores.reached(some.xy + end[:, None] * across) for end in (left, right)))
        self.ends[chosen] = np.stack([left, right], 1)
        self.total[chosen] = np.where(seen, right - left, np.nan)
        self.wetted[chosen] = np.where(seen, inside.water(len(left))[0], np.nan)
        self.channels[chosen] = np.where(seen, inside.where(~shores.specks[inside.ring]).water(len(left))[1], np.nan)

    def drop(self, chosen: Bools, ends: Floats, across: Floats) -> None:
        """Leave nothing at some stations but the channel itself: its ends, shape (n, 2), and what is square to it."""
        self.ends[chosen], self.across[chosen] = ends[chosen], across[chosen]
        for measure in (self.wetted, self.total, self.channels):
            measure[chosen] = np.nan


def _aslant(belt: _Belt, stations: _Stations, width: Floats) -> Bools:
    """Stations whose section finds more water in other channels than it could if it were square to them.

    As in a bend with islands: a line across the first limb goes down the other limb. A pool that is wide itself is
    none.
    """
    water = np.where(stations.main & np.isfinite(belt.wetted), belt.wetted, width)
    usual = median_filter(water, _NEIGHBOURS, mode="nearest")
    return np.asarray(stations.main & (water > _ASLANT * usual) & (water > _ASLANT * width), bool)


def _belt(shores: Shores, stations: _Stations, across: Floats, width: Floats) -> _Belt:
    """All water and islands across the main courses; NaN elsewhere.

    Where there are islands, sections are square to the belt as a whole: one channel of a braided river runs this way
    and that, and a section square to it would cut the belt aslant.
    """
    belt = _Belt.none(across)
    belt.measure(shores, stations, stations.main)
    span = belt.ends[:, 1] - belt.ends[:, 0]
    braided = stations.main & (span > _BELT * width)
    # The median of some stations: where an island begins the belt is of another width from one to the next.
    window = median_filter(np.where(stations.main, span, 0), _NEIGHBOURS, mode="nearest") / 2
    belt.across[braided] = _square_to(stations.some(braided).direction(window[braided]))
    belt.measure(shores, stations, braided)
    return belt


def _until_bank(
    shores: Shores, stations: _Stations, across: Floats, is_bank: Bools
) -> tuple[Crossings, Floats, Floats]:
    """Crossings of sections that are long enough to end on a bank at both sides.

    Args:
        shores: The banks.
        stations: Middles of the sections.
        across: Their directions, unit vectors, shape (n, 2).
        is_bank: Rings that end a section, shape (rings,).

    Returns:
        Crossings by station, and the distance to the left (negative) and the right bank, shape (n,) each; where there
        is none, as on a line that ends on it, 0.
    """
    count = len(stations.line)
    reach = _FIRST_REACH * np.maximum(stations.radius, stations.radius.mean()) if count else np.empty(0)
    ends = np.stack([np.full(count, -np.inf), np.full(count, np.inf)])
    todo = np.arange(count)
    parts: list[Crossings] = []
    for _ in range(_MOST_DOUBLINGS):
        found = shores.cutter.cut(stations.xy[todo], across[todo], reach[todo])
        ends[:, todo] = found.where(is_bank[found.ring]).nearest(len(todo))
        closed = np.isfinite(ends[:, todo]).all(axis=0)
        done = found.where(closed[found.line])
        parts.append(Crossings(todo[done.line], done.at, done.ring))
        todo = todo[~closed]
        reach[todo] *= 2
        if len(todo) == 0:
            break
    ends[~np.isfinite(ends)] = 0
    return Crossings.together(parts), ends[0], ends[1]


def _square_to(direction: Floats) -> Floats:
    """Unit vectors to the right of a direction, in coordinates whose y points up, shape (n, 2)."""
    return np.stack([direction[:, 1], -direction[:, 0]], 1)

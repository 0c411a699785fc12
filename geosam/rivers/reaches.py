"""Reaches: pieces of a centreline, and the water and the banks that belong to each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from scipy.spatial import cKDTree

from geosam.rivers.banks import Bools, Floats, Longs
from geosam.rivers.channels import Channels
from geosam.rivers.sections import Sections

Column = Floats | Longs | np.ndarray[tuple[int], np.dtype[np.object_]]

PERCENTILES = (10, 50, 90)


@dataclass(frozen=True)
class Reaches:
    """Pieces of the centrelines of one river."""

    line: Longs
    """Line of each, ascending, shape (n,)."""
    start: Floats
    """Distance along it at which the reach begins, in metres, shape (n,)."""
    end: Floats
    """And at which it ends."""

    @classmethod
    def of(cls, channels: Channels, reach_m: float) -> Reaches:
        """Every line in pieces of equal length, about ``reach_m`` long."""
        lengths = np.array([line.along[-1] for line in channels.lines])
        count = np.maximum(np.rint(lengths / reach_m).astype(np.int64), 1)
        line = np.repeat(np.arange(len(lengths)), count)
        number = np.arange(len(line)) - np.repeat(np.cumsum(count) - count, count)
        step = (lengths / count)[line]
        return cls(line, number * step, (number + 1) * step)

    def at(self, line: Longs, along: Floats) -> Longs:
        """Reach of places on lines, shape (k,)."""
        first = np.searchsorted(self.line, line)
        number = np.floor(along / (self.end - self.start)[first]).astype(np.int64)
        return first + np.clip(number, 0, np.bincount(self.line)[line] - 1)

    def geometry(self, channels: Channels) -> list[shapely.LineString]:
        """The piece of centreline of each, in metres."""
        pieces = []
        for number, start, end in zip(self.line.tolist(), self.start.tolist(), self.end.tolist(), strict=True):
            line = channels.lines[number]
            inside = slice(np.searchsorted(line.along, start, "right"), np.searchsorted(line.along, end, "left"))
            first, last = line.place(np.array([start, end]))
            pieces.append(shapely.LineString(np.concatenate([[first], line.xy[inside], [last]])))
        return pieces


def reach_table(channels: Channels, sections: Sections, reaches: Reaches) -> dict[str, Column]:
    """What is measured on each reach, by column; NaN where there is no section to measure.

    Widths are those of the channel that holds the centreline, less sections at mouths. Water and banks belong to the
    reach that their part of the axis lies in, so that the areas of all reaches sum to that of the river.
    """
    count = len(reaches.line)
    where = reaches.at(sections.line, sections.at)
    good, whole = ~sections.at_mouth, np.isfinite(sections.total)
    width = _by_reach(where[good], sections.width[good], count)
    share = [_percentile(width, percent) for percent in PERCENTILES]
    main = np.array([line.role == "main" for line in channels.lines])[reaches.line]
    area, bank = _water_and_bank(channels, reaches)
    length = reaches.end - reaches.start
    chord = np.array([_chord(channels, *reach) for reach in zip(reaches.line, reaches.start, reaches.end, strict=True)])
    return {
        "length_m": length,
        "sinuosity": length / np.maximum(chord, 1e-9),
        "width_mean_m": _mean(width),
        **{f"width_p{percent}_m": values for percent, values in zip(PERCENTILES, share, strict=True)},
        "wetted_mean_m": _mean(_by_reach(where[whole], sections.wetted[whole], count)),
        "total_mean_m": _mean(_by_reach(where[whole], sections.total[whole], count)),
        "braiding": np.where(main, _mean(_by_reach(where[whole], sections.channels[whole], count)), np.nan),
        "area_m2": area,
        "bank_m": bank,
    }


def _by_reach(reach: Longs, values: Floats, count: int) -> list[Floats]:
    order = np.argsort(reach, kind="stable")
    return np.split(values[order], np.cumsum(np.bincount(reach, minlength=count))[:-1])


def _mean(values: list[Floats]) -> Floats:
    return np.array([some.mean() if len(some) else np.nan for some in values])


def _percentile(values: list[Floats], percent: float) -> Floats:
    return np.array([np.percentile(some, percent) if len(some) else np.nan for some in values])


def _chord(channels: Channels, line: int, start: float, end: float) -> float:
    first, last = channels.lines[line].place(np.array([start, end]))
    return float(np.hypot(*(last - first)))


def _water_and_bank(channels: Channels, reaches: Reaches) -> tuple[Floats, Floats]:
    """Area of water in m² and length of bank in metres of each reach; banks of filled islets are not counted."""
    points = np.concatenate([line.xy for line in channels.lines])
    along = np.concatenate([line.along for line in channels.lines])
    number = np.repeat(np.arange(len(channels.lines)), [len(line.xy) for line in channels.lines])
    _, nearest = cKDTree(points).query(channels.places)
    reach = reaches.at(number[nearest], along[nearest])
    mesh, count = channels.mesh, len(reaches.line)
    area = np.bincount(reach, mesh.areas, minlength=count)
    seen: Bools = ~channels.at_edge & (mesh.shore >= 0)
    bank = np.bincount(reach[mesh.shore[seen]], mesh.banks.steps[seen], minlength=count)
    return area.astype(np.float64), bank.astype(np.float64)

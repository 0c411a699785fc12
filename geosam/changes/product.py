"""From the water of two dates to what changed, and to a file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from shapely.ops import substring

from geosam.changes.matching import runs_between
from geosam.changes.migration import Moves, ReachMoves, courses_of, moves_of, reaches_of
from geosam.changes.overlay import Patches, overlaid
from geosam.changes.pair import Pair, read_pair, water_in
from geosam.changes.shift import Shift, shift_between
from geosam.changes.styles import STYLES
from geosam.options import ChangeOptions, RiverOptions
from geosam.rivers import check_network, write_layers
from geosam.rivers.banks import Bools
from geosam.rivers.layers import Layers, Progress, layers_of
from geosam.rivers.plane import Plane

SURE_PX = 1.0
"""``register_by="auto"`` takes back a shift that is known to so many pixels."""


@dataclass(frozen=True)
class Change:
    """What happened between two dates, in the CRS of the early water; lengths are in metres and areas in m²."""

    eroded: gpd.GeoDataFrame
    """Land that became water: id, area_m2; the largest first."""
    accreted: gpd.GeoDataFrame
    """Water that became land: id, area_m2."""
    stable: gpd.GeoDataFrame
    """Water at both dates: id, area_m2."""
    migration: gpd.GeoDataFrame
    """Reaches of the early main courses: id, the columns of :class:`geosam.changes.migration.ReachMoves`, and
    migration_m_per_year and net_m_per_year, which are empty where no years are given."""
    displacements: gpd.GeoDataFrame
    """Lines from stations on the early course to where these went: line, at_m, right_m (square to the course, negative
    to the left), right_m_per_year."""
    cutoffs: gpd.GeoDataFrame
    """Loops of the early course that the late one leaves out: id, line, river, from_m, to_m, length_m, late_m of the
    way taken instead, shorter_m, water_left, the part of the loop that is still under water."""
    courses: gpd.GeoDataFrame
    """Main courses of both dates: date (early, late), id, water, length_m, width_mean_m."""
    report: dict[str, Any]
    """All of it in numbers; plain JSON values."""

    def layers(self) -> dict[str, gpd.GeoDataFrame]:
        """The tables by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "report"}


def change(
    early: str | Path | gpd.GeoDataFrame,
    late: str | Path | gpd.GeoDataFrame,
    options: ChangeOptions | None = None,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Change:
    """Erosion, accretion, migration and cut-offs between two dates.

    Areas are those of all water. Migration is that of the main courses of rivers: the area that the centreline swept
    over its length, by reach, in metres. It is found by aligning the two courses station by station. What two scenes
    that lie a little beside each other would add is estimated from the banks, always told, and taken back on request.

    Args:
        early: Water polygons as a file or a table in any CRS, or a mask or probability raster.
        late: The same at the later date. Of two rasters that overlap in part only the overlap is compared.
        options: Years between, co-registration, the way downstream, sizes.
        out: GeoPackage with the tables of :class:`Change` as layers.
        overwrite: Replace a file that exists.
        progress: Told the stage, the work done and the work in all.

    Returns:
        Tables and a report. Where there is no river, the tables of migration are empty and the report says so.

    Raises:
        SceneError: The water cannot be read, has no CRS, is none or noise, or the dates lie apart.
        OptionsError: ``out`` is no GeoPackage.
        OutputError: ``out`` cannot be written; nothing existing was touched.

    Source: Rowland et al. (2016), A morphology independent methodology for quantifying planview river change and
    characteristics from remotely sensed imagery, for erosion and accretion; Hickin and Nanson (1975), The character of
    channel migration on the Beatton River, and Micheli et al. (2004), for the area swept over length.
    """
    options = ChangeOptions() if options is None else options
    path = None if out is None else check_network(out, overwrite)
    pair = read_pair(early, late, options)
    shift = shift_between(*pair.sources)
    taken, said = _taken_back(shift, pair, options)
    if any(taken):
        pair = pair.moved(-taken[0], -taken[1])
    found = _found(pair, options, progress)
    changed = Change(**_tables(pair, found, options), report=_report(pair, found, shift, taken, options))
    changed.report["notices"] = [*pair.notices, *said, *_notices(found)]
    if path is not None:
        write_layers(changed.layers(), path, {"migration", "displacements", "cutoffs", "courses"}, STYLES)
    return changed


def _taken_back(shift: Shift, pair: Pair, options: ChangeOptions) -> tuple[tuple[float, float], list[str]]:
    """East and north in metres by which the late water is put back, and what there is to say of it."""
    if isinstance(options.register_by, tuple):
        return options.register_by, []
    pixel_m = max(source.pixel_m for source in pair.sources)
    if options.register_by == "none":
        return (0.0, 0.0), []
    if shift.error_m > SURE_PX * pixel_m:
        why = f"the banks tell the shift to {shift.error_m:.3g} m only, so it was not taken back"
        return (0.0, 0.0), [why]
    return (shift.east_m, shift.north_m), []


@dataclass(frozen=True)
class _Found:
    """What was measured."""

    patches: dict[str, Patches]
    layers: tuple[Layers, Layers]
    moves: list[Moves]
    reaches: ReachMoves
    lines: list[shapely.LineString]
    """Of the reaches, in the layer's CRS."""
    water_left: list[float]
    """Of each cut-off."""


def _found(pair: Pair, options: ChangeOptions, progress: Progress | None) -> _Found:
    sources = pair.sources
    wanted = RiverOptions(gsd_m=options.gsd_m, bridge_m=options.bridge_m, reach_m=options.reach_m)
    early, late = (layers_of(source, wanted, progress) for source in sources)
    courses = courses_of(early, pair.plane)
    runs = runs_between(courses, courses_of(late, pair.plane))
    wet = shapely.union_all(sources[1].polygons)
    shapely.prepare(wet)
    moves = [moves_of(*row, wet, options) for row in zip(courses, runs, strict=True)]
    reaches = _main(early, courses)
    return _Found(
        overlaid(pair, max(source.pixel_m for source in sources)), (early, late), moves, reaches_of(reaches, moves),
        reaches.geometry.tolist(), [_share(some, wet) for move in moves for some in _loops(move)],
    )  # fmt: skip


def _main(layers: Layers, courses: list[Any]) -> gpd.GeoDataFrame:
    if len(layers.reaches) == 0:
        names = ("water", "line", "from_m", "to_m", "length_m", "width_mean_m")
        return gpd.GeoDataFrame({name: np.empty(0) for name in names}, geometry=[], crs=layers.water.crs)
    return layers.reaches[layers.reaches["line"].isin([course.line for course in courses])]


def _loops(moves: Moves) -> list[shapely.LineString]:
    """Each loop that was cut off, in metres."""
    at, line = moves.course.at, moves.course.geometry
    return [substring(line, at[cutoff.first], at[cutoff.last]) for cutoff in moves.cutoffs]


def _share(loop: shapely.LineString, wet: shapely.Geometry) -> float:
    return float(loop.intersection(wet).length / loop.length)


def _tables(pair: Pair, found: _Found, options: ChangeOptions) -> dict[str, gpd.GeoDataFrame]:
    areas = {
        name: _table({"id": _ids(some.areas_m2), "area_m2": some.areas_m2}, some.polygons, pair)
        for name, some in found.patches.items()
    }
    return {
        **areas,
        "migration": _migration(pair, found, options),
        "displacements": _displacements(pair, found, options),
        "cutoffs": _cutoffs(pair, found),
        "courses": _courses(pair, found),
    }


def _table(columns: dict[str, Any], geometry: Any, pair: Pair) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(columns, geometry=np.asarray(geometry, object), crs=pair.early.crs)


def _ids(column: Any) -> Any:
    return np.arange(1, len(column) + 1)


def _migration(pair: Pair, found: _Found, options: ChangeOptions) -> gpd.GeoDataFrame:
    reaches, years = found.reaches, options.years_between or np.nan
    rates = {"migration_m_per_year": reaches.migration_m / years, "net_m_per_year": reaches.net_m / years}
    return _table({"id": _ids(reaches.line), **reaches.columns(), **rates}, found.lines, pair)


def _displacements(pair: Pair, found: _Found, options: ChangeOptions) -> gpd.GeoDataFrame:
    line, at, right, shapes = [np.empty(0, int)], [np.empty(0)], [np.empty(0)], [np.empty((0, 2, 2))]
    for moves in found.moves:
        moved = moves.right_m
        known = np.isfinite(moved)
        line.append(np.full(known.sum(), moves.course.line))
        at.append(moves.course.at[known])
        right.append(moved[known])
        shapes.append(np.stack([moves.course.xy[known], moves.places[known]], 1))
    metres = np.concatenate(right)
    columns = {"line": np.concatenate(line), "at_m": np.concatenate(at), "right_m": metres}
    rates = {"right_m_per_year": metres / (options.years_between or np.nan)}
    return _table({**columns, **rates}, _to_layer(shapely.linestrings(np.concatenate(shapes)), pair.plane), pair)


def _cutoffs(pair: Pair, found: _Found) -> gpd.GeoDataFrame:
    rows = [
        (moves.course.line, moves.course.river, float(at[cutoff.first]), float(at[cutoff.last]), cutoff.length_m,
         cutoff.late_m, cutoff.length_m - cutoff.late_m)
        for moves in found.moves for at in [moves.course.at] for cutoff in moves.cutoffs
    ]  # fmt: skip
    names = ("line", "river", "from_m", "to_m", "length_m", "late_m", "shorter_m")
    columns = {name: np.array([row[k] for row in rows], int if k < 2 else float) for k, name in enumerate(names)}
    columns["water_left"] = np.array(found.water_left, float)
    loops = [loop for moves in found.moves for loop in _loops(moves)]
    return _table({"id": _ids(rows), **columns}, _to_layer(loops, pair.plane), pair)


def _courses(pair: Pair, found: _Found) -> gpd.GeoDataFrame:
    names = ["id", "water", "length_m", "width_mean_m"]
    parts = []
    for date, layers in zip(("early", "late"), found.layers, strict=True):
        lines = layers.centrelines
        if len(lines):
            parts.append(lines[lines["role"] == "main"][[*names, "geometry"]].assign(date=date))
    empty = _table({name: np.empty(0) for name in ("date", *names)}, [], pair)
    return pd.concat(parts, ignore_index=True)[["date", *names, "geometry"]] if parts else empty


def _to_layer(shapes: Any, plane: Plane) -> Any:
    return plane.to_layer(np.asarray(shapes, object))


def _notices(found: _Found) -> list[str]:
    said = []
    for date, layers in zip(("early", "late"), found.layers, strict=True):
        if len(layers.centrelines) == 0:
            said.append(f"there is no river in the {date} water, so there is no migration: only areas were compared")
    if not said and not np.isfinite(found.reaches.migration_m).any():
        said.append("no reach of an early river could be followed to the late date, so there is no migration")
    return said


def _report(
    pair: Pair, found: _Found, shift: Shift, taken: tuple[float, float], options: ChangeOptions
) -> dict[str, Any]:
    early_m2, late_m2 = water_in(pair)
    areas = {f"{name}_m2": float(some.areas_m2.sum()) for name, some in found.patches.items()}
    sources = pair.sources
    return {
        "early": pair.early.name,
        "late": pair.late.name,
        "crs": str(pair.early.crs),
        "pixel_m": {"early": sources[0].pixel_m, "late": sources[1].pixel_m},
        "years": options.years_between,
        "areas": {"early_m2": early_m2, "late_m2": late_m2, **areas},
        "registration": _registration(shift, taken),
        "migration": _summary(found.reaches, np.ones(len(found.lines), bool), options.years_between),
        "largest_river": _summary(found.reaches, found.reaches.river == 1, options.years_between),
        "cutoffs": [
            {"length_m": cutoff.length_m, "late_m": cutoff.late_m, "at_m": float(moves.course.at[cutoff.first])}
            for moves in found.moves for cutoff in moves.cutoffs
        ],
        "options": options.model_dump(mode="json"),
    }  # fmt: skip


def _registration(shift: Shift, taken: tuple[float, float]) -> dict[str, Any]:
    return {
        "east_m": shift.east_m,
        "north_m": shift.north_m,
        "east_error_m": _finite(shift.east_error_m),
        "north_error_m": _finite(shift.north_error_m),
        "outward_m": shift.outward_m,
        "banks_unmoved": shift.banks,
        "taken_back_m": list(taken),
    }


def _summary(reaches: ReachMoves, chosen: Bools, years: float | None) -> dict[str, Any]:
    """Of some reaches; means are by their length."""
    known = np.isfinite(reaches.migration_m) & chosen
    length = reaches.length_m[known]
    states = pd.Series(reaches.state[chosen], dtype=object).value_counts()
    means = {
        name: float(np.average(getattr(reaches, name)[known], weights=length)) if known.any() else None
        for name in ("migration_m", "left_m", "right_m")
    }
    mean = means["migration_m"]
    return {
        "reaches": {str(state): int(count) for state, count in states.items()},
        "measured_m": float(length.sum()),
        **{f"{name.removesuffix('_m')}_mean_m": value for name, value in means.items()},
        "migration_median_m": float(np.median(reaches.migration_m[known])) if known.any() else None,
        "migration_most_m": float(reaches.migration_m[known].max()) if known.any() else None,
        "migration_mean_m_per_year": mean / years if mean is not None and years else None,
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

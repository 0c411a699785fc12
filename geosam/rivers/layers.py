"""What there is to know about the rivers in a layer of water polygons, as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from geosam.options import RiverOptions
from geosam.rivers.banks import Geometries, banks_of
from geosam.rivers.bridging import Bridge, End, bridged
from geosam.rivers.channels import Channels, Water, dead_ends, waters_of
from geosam.rivers.crossing import Cutter
from geosam.rivers.joining import touching_joined
from geosam.rivers.noise import refuse_noise
from geosam.rivers.plane import Plane
from geosam.rivers.reaches import Reaches, reach_table
from geosam.rivers.sections import Sections, Shores, sections_of
from geosam.rivers.source import Source

Progress = Callable[[str, int, int], None]

SPECK_PX = 25
"""Water bodies under so many pixels are left out where no area is given."""
SECTIONS_PER_WIDTH = 2.0
WIDTHS_PER_REACH = 10.0
"""Where no distances are given. A meander is about eleven widths long (Leopold and Wolman 1960): a reach holds one."""
_LINE_PX = 0.1
"""Centrelines are written with no more points than this accuracy needs, in pixels."""


@dataclass(frozen=True)
class Layers:
    """The layers of a network in the CRS of the water that it comes from; lengths and areas are in metres and m²."""

    water: gpd.GeoDataFrame
    """Water bodies: id, kind (river, lake, pond), area_m2, bank_m, elongation, islands, and of a river network_m, the
    length of all its centrelines. The river with the largest network is first and has id 1."""
    centrelines: gpd.GeoDataFrame
    """Lines: id, water, role (main, channel, branch), length_m, sinuosity, width_mean_m."""
    widths: gpd.GeoDataFrame
    """Cross-sections: line, water, role, distance_m along the line, width_m of the channel that the line is in, and
    on main courses wetted_m of all channels, total_m with islands, channels, at_mouth."""
    reaches: gpd.GeoDataFrame
    """Pieces of lines: id, line, water, role, from_m, to_m, and what :func:`reach_table` gives."""
    islands: gpd.GeoDataFrame
    """Islands and bars: id, water, area_m2, perimeter_m, and length_m and breadth_m of the least box around each."""
    bridges: gpd.GeoDataFrame
    """Water put over gaps: gap_m, width_m."""

    def __iter__(self) -> Iterator[tuple[str, gpd.GeoDataFrame]]:
        return ((field.name, getattr(self, field.name)) for field in fields(self))


def layers_of(source: Source, options: RiverOptions, progress: Progress | None = None) -> Layers:
    """The layers of water polygons.

    Raises:
        SceneError: The water is noise.
    """
    tell = progress or (lambda stage, done, total: None)
    pixel = source.pixel_m
    least = least_m2(options, pixel)
    refuse_noise(replace(source, polygons=source.polygons[shapely.area(source.polygons) >= least]))
    bodies, bridges = _joined(source.polygons, options, pixel, tell)
    bodies = bodies[shapely.area(bodies) >= least]
    waters: list[Water] = []
    for done, body in enumerate(bodies, 1):
        waters += [water for water in waters_of(body, pixel, source.edge) if water.polygon.area >= least]
        tell("channels", done, len(bodies))
    waters.sort(key=lambda water: (-_network_m(water), -water.polygon.area))
    rivers, lines = [], 0
    for number, water in enumerate(waters, 1):
        if water.channels is not None:
            rivers.append(_River.of(number, lines + 1, water.channels, options, pixel))
            lines += len(water.channels.lines)
            tell("widths", number, len(waters))
    return Layers(
        _layer([_water(waters, pixel)], source.plane),
        _layer([river.centrelines() for river in rivers], source.plane),
        _layer([river.widths() for river in rivers], source.plane),
        _numbered(_layer([river.reach_rows() for river in rivers], source.plane)),
        _layer([_islands(waters)], source.plane),
        _layer([_bridges(bridges)], source.plane),
    )


def least_m2(options: RiverOptions, pixel_m: float) -> float:
    """Area below which water is left out."""
    return SPECK_PX * pixel_m**2 if options.min_area_m2 is None else options.min_area_m2


def _joined(
    polygons: Geometries, options: RiverOptions, pixel_m: float, tell: Progress
) -> tuple[Geometries, list[Bridge]]:
    """Bodies that touch made one, and gaps closed if that is wanted."""
    bodies = touching_joined(polygons, pixel_m)
    if options.bridge_m == 0:
        return bodies, []
    ends: list[End] = []
    for done, body in enumerate(bodies, 1):
        ends += dead_ends(body, pixel_m)
        tell("gaps", done, len(bodies))
    return bridged(bodies, ends, options.bridge_m, pixel_m)


def _network_m(water: Water) -> float:
    return 0.0 if water.channels is None else sum(float(line.along[-1]) for line in water.channels.lines)


Rows = dict[str, Any]
"""Columns of equal length by name; ``geometry`` in metres."""


def _layer(parts: Sequence[Rows], plane: Plane) -> gpd.GeoDataFrame:
    tables = [pd.DataFrame({name: column for name, column in part.items() if name != "geometry"}) for part in parts]
    shapes = np.concatenate([np.asarray(part["geometry"], object) for part in parts] or [np.empty(0, object)])
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return gpd.GeoDataFrame(table, geometry=plane.to_layer(shapes), crs=plane.crs)


def _numbered(table: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    table.insert(0, "id", np.arange(1, len(table) + 1))
    return table


def _water(waters: list[Water], pixel_m: float) -> Rows:
    polygons = np.array([water.polygon for water in waters], object)
    return {
        "id": np.arange(1, len(waters) + 1),
        "kind": np.array([water.kind for water in waters], object),
        "area_m2": shapely.area(polygons),
        "bank_m": np.array([banks_of(polygon, pixel_m).steps.sum() for polygon in polygons], float),
        "elongation": np.array([water.elongation for water in waters], float),
        "islands": shapely.get_num_interior_rings(polygons),
        "network_m": np.array([_network_m(water) or np.nan for water in waters], float),
        "geometry": polygons,
    }


def _islands(waters: list[Water]) -> Rows:
    rings = [shapely.get_rings(water.polygon)[1:] for water in waters]
    polygons = shapely.polygons(np.concatenate([np.empty(0, object), *rings]))
    boxes = shapely.get_coordinates(shapely.minimum_rotated_rectangle(polygons)).reshape(-1, 5, 2)
    sides = np.sort(np.hypot(*np.diff(boxes, axis=1)[:, :2].transpose(2, 0, 1)), axis=1)
    return {
        "id": np.arange(1, len(polygons) + 1),
        "water": np.repeat(np.arange(1, len(waters) + 1), [len(some) for some in rings]),
        "area_m2": shapely.area(polygons),
        "perimeter_m": shapely.length(polygons),
        "length_m": sides[:, 1],
        "breadth_m": sides[:, 0],
        "geometry": polygons,
    }


def _bridges(bridges: list[Bridge]) -> Rows:
    return {
        "gap_m": np.array([bridge.gap_m for bridge in bridges], float),
        "width_m": np.array([bridge.width_m for bridge in bridges], float),
        "geometry": np.array([bridge.polygon for bridge in bridges], object),
    }


@dataclass(frozen=True)
class _River:
    """What is measured on one river."""

    number: int
    first_line: int
    channels: Channels
    sections: Sections
    reaches: Reaches
    pixel_m: float

    @classmethod
    def of(cls, number: int, first_line: int, channels: Channels, options: RiverOptions, pixel_m: float) -> _River:
        """Measure it."""
        width = max(_main_width(channels), 2 * pixel_m)
        every = width / SECTIONS_PER_WIDTH if options.every_m is None else options.every_m
        reach = width * WIDTHS_PER_REACH if options.reach_m is None else options.reach_m
        land = _land(channels, options.max_island_m2)
        unseen = channels.mesh.banks.xy[channels.at_edge]
        shores = Shores(Cutter(channels.banks), channels.specks, land, unseen, pixel_m)
        sections = sections_of(channels.lines, shores, every)
        return cls(number, first_line, channels, sections, Reaches.of(channels, reach), pixel_m)

    def _of_lines(self, line: Any) -> Rows:
        roles = np.array([some.role for some in self.channels.lines], object)
        return {"line": self.first_line + line, "water": np.full(len(line), self.number), "role": roles[line]}

    def centrelines(self) -> Rows:
        """One row a line."""
        lines = self.channels.lines
        every = np.arange(len(lines))
        length = np.array([line.along[-1] for line in lines])
        chord = np.array([np.hypot(*(line.xy[-1] - line.xy[0])) for line in lines])
        good = ~self.sections.at_mouth
        count = np.bincount(self.sections.line[good], minlength=len(lines))
        total = np.bincount(self.sections.line[good], self.sections.width[good], minlength=len(lines))
        rows = self._of_lines(every)
        return {
            "id": rows.pop("line"), **rows, "length_m": length, "sinuosity": length / np.maximum(chord, self.pixel_m),
            "width_mean_m": np.where(count > 0, total / np.maximum(count, 1), np.nan),
            "geometry": [shapely.LineString(line.xy).simplify(_LINE_PX * self.pixel_m) for line in lines],
        }  # fmt: skip

    def widths(self) -> Rows:
        """One row a cross-section."""
        found = self.sections
        measured = {f"{name}_m": getattr(found, name) for name in ("width", "wetted", "total")}
        return {
            **self._of_lines(found.line), "distance_m": found.at, **measured, "channels": found.channels,
            "at_mouth": found.at_mouth, "geometry": shapely.linestrings(found.ends),
        }  # fmt: skip

    def reach_rows(self) -> Rows:
        """One row a reach."""
        reaches = self.reaches
        return {
            **self._of_lines(reaches.line), "from_m": reaches.start, "to_m": reaches.end,
            **reach_table(self.channels, self.sections, reaches),
            "geometry": shapely.simplify(reaches.geometry(self.channels), _LINE_PX * self.pixel_m),
        }  # fmt: skip


def _main_width(channels: Channels) -> float:
    main = [2 * float(line.radius.mean()) for line in channels.lines if line.role == "main"]
    return max(main)


def _land(channels: Channels, max_island_m2: float | None) -> Any:
    """Rings that are the outer bank: the first, and those of what is too large for an island, shape (rings,)."""
    rings = zip(channels.banks.offsets[:-1], channels.banks.offsets[1:], strict=True)
    areas = np.array([shapely.Polygon(channels.banks.xy[start:end]).area for start, end in rings])
    land = areas > (np.inf if max_island_m2 is None else max_island_m2)
    land[0] = True
    return land

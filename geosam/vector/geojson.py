"""GeoJSON after RFC 7946: longitude and latitude, right-hand rule, 7 decimals, cut at the antimeridian."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pyproj
import shapely

DECIMALS = 7
"""About 1 cm, as the RFC advises."""

LONGEST_M = 1000.0
"""Longer edges get vertices in between: straight in the scene's CRS is not straight in degrees (2 cm off in 1 km)."""

_CHUNK = 1 << 14
_SKY = 360.0

Geometries = npt.NDArray[np.object_]


def write_geojson(rivers: gpd.GeoDataFrame, path: Path) -> None:
    """Write a FeatureCollection, one feature a line.

    Args:
        rivers: Polygons with a CRS.
        path: The file to be.

    Raises:
        OSError: The disk is full.
    """
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        between = "\n"
        for feature in _features(rivers):
            file.write(between + feature)
            between = ",\n"
        file.write("\n]}\n")


def _features(rivers: gpd.GeoDataFrame) -> Iterator[str]:
    to_lonlat = _Degrees(rivers.crs)
    for start in range(0, len(rivers), _CHUNK):
        part = rivers.iloc[start : start + _CHUNK]
        shapes = shapely.to_geojson(to_lonlat(part.geometry.to_numpy()))
        table = part.drop(columns=part.geometry.name)
        names = list(table)  # an Index would make a string of each name anew, row by row
        rows = zip(*(table[name].tolist() for name in names), strict=True)
        for shape, row in zip(shapes, rows, strict=True):
            yield f'{{"type": "Feature", "properties": {_properties(names, row)}, "geometry": {shape}}}'


_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def _properties(names: list[str], row: tuple[Any, ...]) -> str:
    values = [None if isinstance(value, float) and not math.isfinite(value) else value for value in row]
    return _JSON.encode(dict(zip(names, values, strict=True)))


class _Degrees:
    """Turns polygons of one CRS into what RFC 7946 wants."""

    def __init__(self, crs: pyproj.CRS) -> None:
        self._transformer = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        self._geographic = crs.is_geographic
        self._longest = np.inf if crs.is_geographic else LONGEST_M / crs.axis_info[0].unit_conversion_factor

    def __call__(self, polygons: Geometries) -> Geometries:
        exact = shapely.transform(self._densified(polygons), self._lonlat)
        exact = _cut_at_antimeridian(exact, self._geographic)
        # Normalized outer rings are clockwise, so their reverse obeys the right-hand rule.
        right_handed: Geometries = shapely.reverse(shapely.normalize(_rounded(exact)))
        return right_handed

    def _densified(self, polygons: Geometries) -> Geometries:
        x0, y0, x1, y1 = shapely.bounds(polygons).T
        long = np.maximum(x1 - x0, y1 - y0) > self._longest
        polygons = polygons.copy()
        polygons[long] = shapely.segmentize(polygons[long], self._longest)
        return polygons

    def _lonlat(self, xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.stack(self._transformer.transform(xy[:, 0], xy[:, 1]), axis=1)


def _rounded(exact: Geometries) -> Geometries:
    """Coordinates to 7 decimals, and still valid: pixels of a few centimetres may collapse."""
    rounded: Geometries = shapely.transform(exact, lambda xy: xy.round(DECIMALS))
    broken = np.flatnonzero(~shapely.is_valid(rounded))
    rounded[broken] = shapely.set_precision(exact[broken], 10.0**-DECIMALS)
    lost = broken[shapely.is_empty(rounded[broken])]
    rounded[lost] = exact[lost]
    return rounded


def _cut_at_antimeridian(polygons: Geometries, geographic: bool) -> Geometries:
    """Polygons within -180 and 180 degrees; one that crosses becomes a MultiPolygon.

    Args:
        polygons: In degrees.
        geographic: They were drawn in degrees, so that one wider than half the globe really is.
    """
    west, _, east, _ = shapely.bounds(polygons).T
    torn = (east - west > _SKY / 2) & (not geographic)
    polygons = polygons.copy()
    polygons[torn] = shapely.transform(polygons[torn], lambda xy: xy + (xy[:, :1] < 0) * np.array([_SKY, 0.0]))
    for index in np.flatnonzero(torn | (east > _SKY / 2) | (west < -_SKY / 2)):
        polygons[index] = _on_the_map(polygons[index])
    return polygons


def _on_the_map(polygon: shapely.Polygon) -> shapely.Geometry:
    """One polygon, its parts beyond 180 degrees moved to where they belong."""
    parts: list[shapely.Polygon] = []
    for turn in (-_SKY, 0.0, _SKY):
        inside = shapely.intersection(polygon, shapely.box(turn - _SKY / 2, -90.0, turn + _SKY / 2, 90.0))
        moved = shapely.transform(inside, lambda xy, turn=turn: xy - np.array([turn, 0.0]))
        parts += [part for part in shapely.get_parts(moved) if isinstance(part, shapely.Polygon)]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)

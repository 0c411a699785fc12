"""The water of two dates on one map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely

from geosam.errors import SceneError
from geosam.options import ChangeOptions
from geosam.rivers.banks import Geometries
from geosam.rivers.joining import dissolved
from geosam.rivers.noise import refuse_noise
from geosam.rivers.plane import Plane, plane_of
from geosam.rivers.source import Drawn, Source, read_drawn, single_polygons, source_of

_SAME = 1e-3
"""Scenes that share all but this part of their area are the same scene."""
_PIECES = 1000


@dataclass(frozen=True)
class Pair:
    """Water of two dates in the CRS of the early one, and in metres on one plane."""

    early: Drawn
    late: Drawn
    plane: Plane
    gsd_m: float | None
    notices: list[str]
    """What was done to the input, a line each."""

    @property
    def sources(self) -> tuple[Source, Source]:
        """Both in metres."""
        early, late = (source_of(drawn, self.gsd_m, self.plane) for drawn in (self.early, self.late))
        return early, late

    def moved(self, east_m: float, north_m: float) -> Pair:
        """The late water moved by some metres."""

        def move(shapes: Geometries) -> Geometries:
            step = np.array([east_m, north_m])
            metres = self.plane.to_metres(np.asarray(shapes, object))
            return self.plane.to_layer(shapely.transform(metres, lambda xy: xy + step))

        late = self.late
        known, guessed = (list(move(np.array(lines, object))) for lines in (late.known, late.guessed))
        return replace(self, late=replace(late, polygons=move(late.polygons), known=known, guessed=guessed))


def read_pair(
    early: str | Path | gpd.GeoDataFrame, late: str | Path | gpd.GeoDataFrame, options: ChangeOptions
) -> Pair:
    """Read the water of two dates.

    Args:
        early: Polygons as a file or a table, or a mask raster.
        late: The same, in any CRS.
        options: Least area and pixel size.

    Raises:
        SceneError: One cannot be read, has no CRS, no water or nothing but noise, or they do not overlap.
    """
    first, second = _read(early, "the early table"), _read(late, "the late table")
    notices = [
        f"{drawn.name}: {drawn.mended:,} shapes crossed themselves and were mended"
        for drawn in (first, second)
        if drawn.mended
    ]
    assert first.crs is not None
    if second.crs != first.crs:
        notices.append(f"{second.name} was brought into the CRS of {first.name}")
    pair = _overlapping(first, second.to(first.crs), notices, options)
    return replace(
        pair,
        early=_cleared(pair.early, pair.plane, options),
        late=_cleared(pair.late, pair.plane, options),
    )


def _read(water: str | Path | gpd.GeoDataFrame, name: str) -> Drawn:
    drawn = read_drawn(water)
    if isinstance(water, gpd.GeoDataFrame):
        drawn = replace(drawn, name=name)
    if drawn.crs is None:
        raise SceneError(f"{drawn.name} has no CRS, so where it lies is not known. Give it one, as it has in QGIS.")
    if len(drawn.polygons) == 0:
        raise SceneError(f"{drawn.name} holds no water, so there is nothing to compare. Give water of both dates.")
    return drawn


def _overlapping(early: Drawn, late: Drawn, notices: list[str], options: ChangeOptions) -> Pair:
    """Both cut to what the rasters have in common.

    Raises:
        SceneError: They lie apart.
    """
    extents = [_scene(drawn) or shapely.box(*shapely.total_bounds(drawn.polygons)) for drawn in (early, late)]
    if not extents[0].intersects(extents[1]):
        one, other = (", ".join(f"{side:.7g}" for side in extent.bounds) for extent in extents)
        raise SceneError(
            f"{early.name} and {late.name} do not overlap: the first spans {one}, the second {other} in the CRS of the "
            "first. Give two dates of one place, and check the CRS of both."
        )
    scenes = [scene for drawn in (early, late) if (scene := _scene(drawn)) is not None]
    common = shapely.intersection_all(scenes) if len(scenes) == 2 else None
    if common is not None and common.area < (1 - _SAME) * max(scene.area for scene in scenes):
        notices.append("the scenes are not the same, and what lies in one of them only was left out")
        early, late = _cut(early, common), _cut(late, common)
    return Pair(early, late, plane_of(early.polygons, early.crs), options.gsd_m, notices)


def _scene(drawn: Drawn) -> shapely.Polygon | None:
    """Outline of a raster; None of a vector layer, which does not say what was looked at."""
    if not drawn.known:
        return None
    return shapely.Polygon(np.concatenate([shapely.get_coordinates(side)[:-1] for side in drawn.known]))


def _cut(drawn: Drawn, common: shapely.Polygon) -> Drawn:
    inside = single_polygons(shapely.intersection(drawn.polygons, common))
    if len(inside) == 0:
        raise SceneError(f"{drawn.name} holds no water where the two scenes overlap. Give two dates of one place.")
    corners = shapely.get_coordinates(common.exterior.simplify(_SAME * common.length))
    sides = shapely.linestrings(np.stack([corners[:-1], corners[1:]], 1))
    return replace(drawn, polygons=inside, known=list(shapely.segmentize(sides, common.length / _PIECES)))


def _cleared(drawn: Drawn, plane: Plane, options: ChangeOptions) -> Drawn:
    """Bodies that meet made one, and small ones left out.

    Raises:
        SceneError: Nothing is left, or nothing but noise, which would take long to join.
    """
    if options.min_area_m2 == 0:
        refuse_noise(source_of(drawn, options.gsd_m, plane))
    bodies = dissolved(drawn.polygons)
    bodies = bodies[shapely.area(plane.to_metres(bodies)) >= options.min_area_m2]
    if len(bodies) == 0:
        raise SceneError(
            f"{drawn.name} holds no water body of {options.min_area_m2:g} m2 or more. Give a smaller --min-area."
        )
    cleared = replace(drawn, polygons=bodies)
    refuse_noise(source_of(cleared, options.gsd_m, plane))
    return cleared


def water_in(pair: Pair) -> Iterator[float]:
    """Area of the water of both dates in m²."""
    for drawn in (pair.early, pair.late):
        yield float(shapely.area(pair.plane.to_metres(drawn.polygons)).sum())

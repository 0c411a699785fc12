"""Water polygons from wherever they are: a vector file, a mask raster, a table."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pyproj
import rasterio
import shapely
from odc.geo.geobox import GeoBox
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geosam.errors import SceneError
from geosam.rivers.banks import Geometries
from geosam.rivers.exits import Edge
from geosam.rivers.plane import Plane, plane_of
from geosam.scene.grid import pixel_size_m
from geosam.scene.vectors import read_vector
from geosam.vector import polygonize_raster

_FINE = 0.1
"""Share of the outline that may lie in edges shorter than a pixel: reprojected or rounded, pixels differ a little."""

_ALIKE = 0.05
_MANY = 24
_OF_WIDTH = 0.1
_EDGE_PARTS = 250


@dataclass(frozen=True)
class Source:
    """Water in metres, and how to get back to where it came from."""

    polygons: Geometries
    """shapely Polygons in metres, each valid, shape (n,)."""
    plane: Plane
    edge: Edge
    pixel_m: float
    """Size of a pixel."""
    grid: GeoBox | None
    """Of the raster, if it is one."""
    name: str
    mended: int = 0
    """Shapes that crossed themselves."""


@dataclass(frozen=True)
class Drawn:
    """Water as it was drawn, in its own CRS."""

    polygons: Geometries
    """shapely Polygons, each valid, shape (n,)."""
    crs: pyproj.CRS | None
    grid: GeoBox | None
    """Of the raster, if it is one."""
    name: str
    mended: int
    """Shapes that crossed themselves."""
    known: list[shapely.LineString]
    """Sides of the scene, where it is a raster."""
    guessed: list[shapely.LineString]
    """Sides that it may have."""

    def to(self, crs: pyproj.CRS) -> Drawn:
        """The same in another CRS; vertices that are far apart get others between them, since straight becomes bent."""
        if crs == self.crs:
            return self
        most = float(np.ptp(shapely.total_bounds(self.polygons).reshape(2, 2), axis=0).max()) / _EDGE_PARTS
        dense = shapely.segmentize(self.polygons, most)
        polygons, known, guessed = (
            gpd.GeoSeries(shapes, crs=self.crs).to_crs(crs).to_numpy() for shapes in (dense, self.known, self.guessed)
        )
        valid = single_polygons(shapely.make_valid(polygons))
        return replace(self, polygons=valid, crs=crs, known=list(known), guessed=list(guessed))


def read_source(water: str | Path | gpd.GeoDataFrame, gsd_m: float | None = None) -> Source:
    """Read water polygons.

    Args:
        water: A vector file of polygons, a mask or probability raster, or a table of polygons; with a CRS or without.
        gsd_m: Size of a pixel in metres; None: the raster's, or the length of the outlines' shortest edges.

    Raises:
        SceneError: The file is missing, cannot be read, or holds no polygon though it holds other features.
    """
    return source_of(read_drawn(water), gsd_m)


def read_drawn(water: str | Path | gpd.GeoDataFrame) -> Drawn:
    """Read water polygons as they are drawn.

    Args:
        water: As for :func:`read_source`.

    Raises:
        SceneError: As :func:`read_source`.
    """
    table, grid, name = _table(water)
    crs = _crs(table)
    shapes = table.geometry[table.geometry.notna() & ~table.geometry.is_empty].to_numpy()
    polygons = single_polygons(shapely.make_valid(shapes))
    if len(polygons) == 0 and len(shapes) > 0:
        raise SceneError(f"{name} holds no polygon ({len(shapes)} features). Give the water as polygons, or as a mask.")
    known = [] if grid is None else _sides(_grid_corners(grid))
    guessed = _bounds(polygons, crs) if len(polygons) else []
    return Drawn(polygons, crs, grid, name, int((~shapely.is_valid(shapes)).sum()), known, guessed)


def source_of(drawn: Drawn, gsd_m: float | None = None, plane: Plane | None = None) -> Source:
    """Water in metres.

    Args:
        drawn: The water.
        gsd_m: Size of a pixel in metres; None: the raster's, or the length of the outlines' shortest edges.
        plane: The map, of another layer in the same CRS; None: that of the water itself.
    """
    if len(drawn.polygons) == 0:
        return Source(drawn.polygons, plane or Plane(drawn.crs, None), Edge(), gsd_m or 1.0, drawn.grid, drawn.name)
    plane = plane or plane_of(drawn.polygons, drawn.crs)
    metres = plane.to_metres(drawn.polygons)
    edge = Edge(*(list(plane.to_metres(np.array(lines, object))) for lines in (drawn.known, drawn.guessed)))
    pixel_m = gsd_m or (finest_detail(metres) if drawn.grid is None else _pixel_size(drawn.grid))
    return Source(metres, plane, edge, pixel_m, drawn.grid, drawn.name, drawn.mended)


def finest_detail(polygons: Geometries) -> float:
    """Size of the pixels that outlines were traced from, or of the finest detail of those drawn otherwise, in metres.

    Pixels leave many edges of one length, the shortest that make up a part of the outlines that counts. Without
    these the detail is a part of the mean width at most, for a long straight river may have four corners in all.
    """
    xy, ring = shapely.get_coordinates(shapely.get_rings(polygons), return_index=True)
    steps = np.hypot(*np.diff(xy, axis=0).T)[ring[1:] == ring[:-1]]
    steps = np.sort(steps[steps > 0])
    shortest = float(steps[np.searchsorted(np.cumsum(steps), _FINE * steps.sum())])
    if np.count_nonzero(np.abs(steps / shortest - 1) < _ALIKE) >= _MANY:
        return shortest
    return min(shortest, _OF_WIDTH * 2 * float(shapely.area(polygons).sum() / steps.sum()))


def _table(water: str | Path | gpd.GeoDataFrame) -> tuple[gpd.GeoDataFrame, GeoBox | None, str]:
    if isinstance(water, gpd.GeoDataFrame):
        return water, None, "the table"
    path = Path(water)
    if not path.exists():
        raise SceneError(f"{path} does not exist. Give a vector file of water polygons, or a mask raster.")
    try:
        with warnings.catch_warnings(), rasterio.open(path) as raster:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            grid = GeoBox(raster.shape, raster.transform, raster.crs)
    except RasterioError:
        return _read_vector(path), None, str(path)
    return polygonize_raster(path, allow_no_crs=True), grid, str(path)


def _read_vector(path: Path) -> gpd.GeoDataFrame:
    try:
        table = read_vector(path)
    except Exception as error:  # pyogrio's errors have no common base with those of the drivers under it
        reason = " ".join(str(error).split()).rstrip(".")[:200]
        raise SceneError(f"{path} is neither a raster nor a vector file that can be read: {reason}.") from None
    if not isinstance(table, gpd.GeoDataFrame):
        raise SceneError(f"{path} holds no geometry. Give a vector file of water polygons, or a mask raster.")
    return table


def single_polygons(shapes: Geometries) -> Geometries:
    """The polygons in whatever there is, each on its own, shape (n,)."""
    parts = shapely.get_parts(shapely.get_parts(shapes))
    polygons: Geometries = parts[
        (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & (shapely.area(parts) > 0)
    ]
    return polygons


def _crs(table: gpd.GeoDataFrame) -> pyproj.CRS | None:
    named = str(table.crs or "")
    # What a GeoPackage says that has none.
    return None if not named or "Undefined" in named or "Unknown" in named else table.crs


def _bounds(polygons: Geometries, crs: pyproj.CRS | None) -> list[shapely.LineString]:
    """Sides that the scene may have, in the layer's CRS: a scene that a river crosses is as large as the river.

    In longitude and latitude the bounds in UTM too, in which most scenes are.
    """
    sides = _sides(_corners(shapely.total_bounds(polygons)))
    if crs is None or not crs.is_geographic:
        return sides
    layer = gpd.GeoSeries(polygons, crs=crs)
    utm = layer.estimate_utm_crs()
    there = gpd.GeoSeries(_sides(_corners(layer.to_crs(utm).total_bounds)), crs=utm)
    return sides + list(there.to_crs(crs))


def _grid_corners(grid: GeoBox) -> list[tuple[float, float]]:
    height, width = (float(side) for side in grid.shape)
    corners = [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)]
    return [grid.affine @ corner for corner in corners] if grid.crs else corners


def _corners(bounds: npt.NDArray[np.float64]) -> list[tuple[float, float]]:
    west, south, east, north = bounds.tolist()
    return [(west, south), (east, south), (east, north), (west, north)]


def _sides(corners: list[tuple[float, float]]) -> list[shapely.LineString]:
    """The sides of a box, each in pieces: what is straight in one CRS is not in another."""
    lines = [shapely.LineString(pair) for pair in zip(corners, [*corners[1:], corners[0]], strict=True)]
    return [shapely.segmentize(line, max(line.length / _EDGE_PARTS, 1e-12)) for line in lines]


def _pixel_size(grid: GeoBox) -> float:
    """Side of a square as large as a pixel, in metres; 1 without a CRS, when all is in pixels."""
    return float(np.sqrt(np.prod(pixel_size_m(grid)))) if grid.crs else 1.0

"""Polygons of water from a vector file in any CRS, in pixels of a grid."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from odc.geo.geobox import GeoBox

from geosam.errors import DatasetError
from geosam.scene.vectors import read_vector

VECTOR_SUFFIXES = (".gpkg", ".geojson", ".shp", ".fgb")
"""Of labels found by their stem; a .json beside a raster is more often its metadata."""
_MOST_DEGREES = 720
"""Of a coordinate; longitudes may run past 180 across the date line, and PROJ wraps what is over a turn."""
_EDGE_PARTS = 64
"""An edge is cut into this many parts of the file's extent before it is reprojected: straight lines bend."""


def polygons_on(geobox: GeoBox, path: Path) -> tuple[Any, ...]:
    """Polygons that meet a grid; none where the file has none, or none there.

    Args:
        geobox: The grid, with a CRS.
        path: Any vector file GDAL opens; without a CRS it is taken to be in the grid's.

    Returns:
        shapely Polygons in pixels (col, row), (0, 0) the outer corner of the first.

    Raises:
        DatasetError: The file cannot be read, or holds geometries but no polygon.
    """
    geometry = _geometry(path, path.stat().st_mtime_ns)
    if geometry is None or len(geometry) == 0:
        return ()
    if geometry.crs is not None and geobox.crs is not None and geometry.crs != geobox.crs.proj:
        geometry = _dense(geometry).to_crs(geobox.crs.proj)
    parts = shapely.get_parts(shapely.make_valid(geometry.to_numpy()))
    parts = shapely.get_parts(parts[shapely.get_dimensions(parts) == 2])
    if len(parts) == 0:
        raise DatasetError(f"{path} holds no polygon ({len(geometry)} features). Give the water as polygons.")
    pixels = shapely.transform(parts, lambda xy: np.stack(~geobox.transform @ (xy[:, 0], xy[:, 1]), axis=1))
    grid = shapely.box(0, 0, geobox.shape[1], geobox.shape[0])
    return tuple(polygon for polygon in pixels if polygon.intersects(grid))


def holds_polygons(path: Path) -> bool:
    """Whether there is anything in the file."""
    geometry = _geometry(path, path.stat().st_mtime_ns)
    return geometry is not None and len(geometry) > 0


@lru_cache(maxsize=2)
def _geometry(path: Path, _written: int) -> Any:
    """geopandas.GeoSeries of a file, or None; read once where one file has the labels of many orthos."""
    try:
        frame = read_vector(path)
    except Exception as error:  # pyogrio, fiona and GDAL each raise their own
        reason = " ".join(str(error).split()).rstrip(".")
        raise DatasetError(f"{path} is not a vector file that can be read ({reason}).") from None
    geometry = frame.geometry if "geometry" in frame else None
    if geometry is None:
        return None
    check_degrees(geometry, path)
    return geometry[geometry.notna() & ~geometry.is_empty]


def check_degrees(geometry: Any, path: Path) -> None:
    """Refuse metres that are called degrees, as in a GeoJSON of UTM coordinates, which always counts as lon/lat.

    Args:
        geometry: geopandas.GeoSeries, of any CRS or none.
        path: Named in the message.

    Raises:
        DatasetError: The CRS is geographic, and a coordinate is none of the globe's.
    """
    if geometry.crs is None or not geometry.crs.is_geographic or geometry.empty:
        return
    bounds = geometry.total_bounds
    if abs(bounds[[0, 2]]).max() > _MOST_DEGREES or abs(bounds[[1, 3]]).max() > _MOST_DEGREES:
        raise DatasetError(
            f"{path} is said to be in degrees ({geometry.crs.name}), and its coordinates begin at {bounds[0]:.0f}, "
            f"{bounds[1]:.0f}. Give it the CRS that it is in; a GeoJSON without one counts as lon/lat."
        )


def _dense(geometry: Any) -> Any:
    left, bottom, right, top = geometry.total_bounds
    step = max(right - left, top - bottom) / _EDGE_PARTS
    return geometry.segmentize(step) if step > 0 else geometry

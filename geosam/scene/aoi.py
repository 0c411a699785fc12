"""The area of interest: polygons in pixels of the raster, whatever CRS they came in."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.features import geometry_mask

from geosam.errors import SceneError
from geosam.scene.header import Box, Mask
from geosam.scene.vectors import read_vector

EDGE_PARTS = 64
"""An edge is cut into this many parts of the AOI's extent before it is reprojected: straight lines bend."""


@dataclass(frozen=True)
class Aoi:
    """Polygons in pixel coordinates (col, row) of the full-resolution raster, (0, 0) the outer corner."""

    polygons: tuple[Any, ...]
    """shapely Polygons that meet the raster."""
    box: Box
    """Their bounds, snapped outwards to pixels and cut at the raster's edges."""

    def mask(self, shape: tuple[int, int], to_raster: Affine) -> Mask:
        """Pixels whose centre lies in a polygon.

        Args:
            shape: (rows, cols) of the wanted mask.
            to_raster: Mask pixel (col, row) to full-resolution pixel (col, row).

        Returns:
            bool (rows, cols); True = inside.
        """
        (left, top), (right, bottom) = to_raster @ (0, 0), to_raster @ (shape[1], shape[0])
        window = shapely.box(left, top, right, bottom)
        near = [polygon for polygon in self.polygons if polygon.intersects(window)]
        if not near:
            return np.zeros(shape, bool)
        inside: Mask = geometry_mask(near, shape, to_raster, invert=True)
        return inside


def read_aoi(path: str, geobox: GeoBox, source: str) -> Aoi:
    """Read a vector file and place it on a raster.

    Args:
        path: Any vector file GDAL opens, in any CRS; without one it is taken to be in the raster's.
        geobox: The full-resolution grid.
        source: The raster, named in messages.

    Raises:
        SceneError: The file is missing or unreadable, holds no polygon, or lies outside the raster.
    """
    polygons = _polygons(path, geobox, source)
    pixels = shapely.transform(polygons, lambda xy: _to_pixels(xy, geobox))
    box = _box(shapely.total_bounds(pixels), (int(geobox.shape[0]), int(geobox.shape[1])))
    raster = shapely.box(0, 0, geobox.shape[1], geobox.shape[0])
    touching = tuple(polygon for polygon in pixels if polygon.intersects(raster))
    if box is None or not touching:
        raise SceneError(f"--aoi {path} lies outside {source}. {_where(polygons, geobox)}")
    return Aoi(touching, box)


def _polygons(path: str, geobox: GeoBox, source: str) -> Any:
    """shapely array of the file's polygons in the raster's CRS."""
    if not os.path.exists(path) and "://" not in path and not path.startswith("/vsi"):
        raise SceneError(f"--aoi {path} does not exist. Give a vector file with polygons.")
    try:
        frame = read_vector(path, named=None)
    except Exception as error:  # pyogrio, fiona and GDAL each raise their own
        reason = " ".join(str(error).split()).rstrip(".")
        raise SceneError(f"--aoi {path} is not a vector file that can be read ({reason}).") from None
    geometry = getattr(frame, "geometry", None) if "geometry" in frame else None
    if geometry is None:
        raise SceneError(f"--aoi {path} holds no geometry. Give a vector file with polygons.")
    geometry = _dense(geometry[geometry.notna()])
    if geometry.crs is not None and geobox.crs is None:
        raise SceneError(
            f"--aoi {path} has a CRS and {source} has none. Give an AOI in pixel coordinates, without CRS."
        )
    if geometry.crs is not None and geobox.crs is not None:
        geometry = geometry.to_crs(geobox.crs.proj)
    parts = shapely.get_parts(shapely.make_valid(geometry.to_numpy()))
    parts = shapely.get_parts(parts[shapely.get_dimensions(parts) == 2])
    polygons = parts[(shapely.get_type_id(parts) == 3) & (shapely.area(parts) > 0)]
    if len(polygons) == 0:
        raise SceneError(f"--aoi {path} holds no polygon ({len(frame)} features). Give a vector file with polygons.")
    return polygons


def _dense(geometry: Any) -> Any:
    if len(geometry) == 0 or geometry.is_empty.all():
        return geometry
    left, bottom, right, top = geometry.total_bounds
    step = max(right - left, top - bottom) / EDGE_PARTS
    return geometry.segmentize(step) if step > 0 else geometry


def _to_pixels(xy: Any, geobox: GeoBox) -> Any:
    col, row = ~geobox.transform @ (xy[:, 0], xy[:, 1])
    return np.stack([col, row], axis=1)


def _box(bounds: Any, shape: tuple[int, int]) -> Box | None:
    if not np.isfinite(bounds).all():
        return None
    # 1e-6 px: an AOI drawn along pixel edges must not take in another row for a rounding error
    left, top = max(math.floor(bounds[0] + 1e-6), 0), max(math.floor(bounds[1] + 1e-6), 0)
    right, bottom = min(math.ceil(bounds[2] - 1e-6), shape[1]), min(math.ceil(bounds[3] - 1e-6), shape[0])
    return Box(top, left, bottom - top, right - left) if bottom > top and right > left else None


def _where(polygons: Any, geobox: GeoBox) -> str:
    def text(bounds: Any) -> str:
        return "(" + ", ".join(f"{value:.7g}" for value in bounds) + ")"

    name = f" in {geobox.crs}" if geobox.crs is not None else ""
    return f"Its bounds{name} are {text(shapely.total_bounds(polygons))}, the raster's {text(geobox.boundingbox)}."

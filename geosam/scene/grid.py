"""Lengths on the ground and the working grid, for any CRS."""

from __future__ import annotations

import math
from typing import Any

import pyproj
from affine import Affine
from odc.geo.geobox import GeoBox

NEAR = 0.02
"""A ratio of resolutions this close to a whole number is taken for it: 5.002 m is 5 m, at UTM's scale error."""


def pixel_size_m(geobox: GeoBox) -> tuple[float, float]:
    """Ground size of the centre pixel along its row and down its column, in metres; NaN without CRS.

    Measured on the ellipsoid of the CRS's own datum, so that degrees, feet and Web Mercator's
    stretched metres all come out as metres on the ground.
    """
    if geobox.crs is None:
        return math.nan, math.nan
    crs = geobox.crs.proj
    row, col = geobox.shape[0] / 2, geobox.shape[1] / 2
    corners = [geobox.transform @ xy for xy in ((col, row), (col + 1, row), (col, row + 1))]
    if crs.geodetic_crs is None:  # a local grid: metres, or what its axes say
        factor = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
        return (math.dist(corners[0], corners[1]) * factor, math.dist(corners[0], corners[2]) * factor)
    return _geodesic(crs, corners)


def _geodesic(crs: Any, corners: list[tuple[float, float]]) -> tuple[float, float]:
    to_lonlat = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    lonlat = [to_lonlat.transform(*corner) for corner in corners]
    if not all(math.isfinite(value) for pair in lonlat for value in pair):
        return math.nan, math.nan
    geod = crs.get_geod()
    across = geod.inv(*lonlat[0], *lonlat[1])[2]
    down = geod.inv(*lonlat[0], *lonlat[2])[2]
    return float(across), float(down)


def rounded_ratio(ratio: float) -> float:
    """The ratio, or the whole number (or one over it) that it is nearly."""
    if ratio < 1:
        return 1 / rounded_ratio(1 / ratio)
    whole = round(ratio)
    return float(whole) if abs(ratio / whole - 1) < NEAR else ratio


def resized(geobox: GeoBox, shape: tuple[int, int]) -> GeoBox:
    """The same ground in another number of pixels (rows, cols)."""
    scale = Affine.scale(geobox.shape[1] / shape[1], geobox.shape[0] / shape[0])
    return GeoBox(shape, geobox.transform @ scale, geobox.crs)

"""A map without an ortho: the ground that vector layers cover, on blank paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import geopandas as gpd
import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from geosam.scene.grid import pixel_size_m

SIDE_PX = 1400
"""Pixels along the longer side of a sheet, which are the unit that outlines are simplified by."""
_MARGIN = 0.04
"""Of the longer side, so that no bank lies on the frame."""
_ARROW = 0.08
"""Of the longer side: room on the right for the north arrow."""
_BAR = 0.06
"""Of the longer side: room below for the scale bar."""


class Ground(Protocol):
    """What a map has to know of the ground it shows: a scene, or a blank sheet."""

    @property
    def name(self) -> str:
        """Title of the map."""

    @property
    def geobox(self) -> GeoBox:
        """Shape, affine and CRS; the axes of the map are in its pixels."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""

    @property
    def has_crs(self) -> bool:
        """Whether lengths are metres; else they are pixels."""

    @property
    def gsd_m(self) -> float:
        """Size of a pixel in metres; NaN without CRS."""

    @property
    def pixel_area_m2(self) -> float:
        """Ground area of a pixel in square metres; 1.0 without CRS."""


@dataclass(frozen=True)
class Sheet:
    """Blank paper over a piece of ground, north up; a :class:`Ground`."""

    name: str
    geobox: GeoBox

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.geobox.shape[0]), int(self.geobox.shape[1])

    @property
    def has_crs(self) -> bool:
        """Whether lengths are metres."""
        return self.geobox.crs is not None

    @cached_property
    def gsd_m(self) -> float:
        """Size of a pixel in metres; NaN without CRS."""
        return math.sqrt(math.prod(pixel_size_m(self.geobox)))

    @property
    def pixel_area_m2(self) -> float:
        """Ground area of a pixel in square metres; 1.0 without CRS."""
        return self.gsd_m**2 if self.has_crs else 1.0


def sheet(name: str, layers: Sequence[gpd.GeoDataFrame]) -> Sheet:
    """Paper that holds all layers, in the first one's CRS, or its UTM zone where that one is in degrees."""
    filled = [layer for layer in layers if len(layer) and np.isfinite(layer.total_bounds).all()]
    if not filled:
        crs = layers[0].crs if layers else None
        return Sheet(name, GeoBox((SIDE_PX // 2, SIDE_PX), Affine.identity(), crs))
    crs = filled[0].crs
    if crs is not None and crs.is_geographic:
        crs = filled[0].estimate_utm_crs()
    bounds = np.array([(layer if crs is None else layer.to_crs(crs)).total_bounds for layer in filled])
    (left, bottom), (right, top) = bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)
    edge = _MARGIN * max(right - left, top - bottom, 1e-9)
    # Not much narrower than it is long: a scale bar and an arrow have to fit in.
    right += edge / _MARGIN * _ARROW
    bottom -= edge / _MARGIN * _BAR
    width, height = right - left + 2 * edge, top - bottom + 2 * edge
    wide, high = max(width, height / 3), max(height, width / 4)
    pixel = max(wide, high) / SIDE_PX
    x, y = (left + right - wide) / 2, (bottom + top + high) / 2
    grid = Affine(pixel, 0, x, 0, -pixel, y)
    return Sheet(name, GeoBox((math.ceil(high / pixel), math.ceil(wide / pixel)), grid, crs))

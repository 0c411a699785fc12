"""Cold-water patches: connected water that is colder than its reach by so many degrees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import rasterio.features
import shapely
from affine import Affine

from geosam.options import VectorOptions
from geosam.scene.grid import pixel_size_m
from geosam.scene.header import Box
from geosam.stats.layers import Floats, RasterLayer
from geosam.stats.pieces import Geometries, on_grid
from geosam.stats.zonal import Tell, zonal
from geosam.vector import Strip, polygonize

LEAST_PX = 4
"""Patches under so many pixels are left out where no area is given: single pixels are the sensor's noise."""


@dataclass(frozen=True)
class Anomaly:
    """How much colder the water is than the median of its reach, as two bands: the value itself, and the depth.

    A pixel belongs to the reach that its centre lies in, and to none outside the water.
    """

    layer: RasterLayer
    band: int
    """Index of the band, from 0."""
    shapes: Geometries
    """Reaches on the raster's grid, shape (n,)."""
    medians: Floats
    """Of each of them, (n,)."""
    tree: shapely.STRtree
    bands: tuple[str, ...] = ("value", "depth")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.layer.shape

    @property
    def window(self) -> tuple[int, int]:
        """As of the raster."""
        return self.layer.window

    def near(self, box: Box) -> list[int]:
        """Reaches whose bounds meet a window, in their own order."""
        there = shapely.box(box.col, -(box.row + box.height), box.col + box.width, -box.row)
        return sorted(self.tree.query(there).tolist())

    def read(self, box: Box) -> Floats:
        """Value and depth below the reach's median, float64 (2, h, w); NaN where there is no water or no data."""
        median = np.full((box.height, box.width), np.nan)
        reaches = [(self.shapes[at], self.medians[at]) for at in self.near(box) if np.isfinite(self.medians[at])]
        if not reaches:
            return np.stack([median, median])
        grid = Affine(1, 0, box.col, 0, -1, -box.row)
        rasterio.features.rasterize(reaches, out=median, transform=grid)
        values = self.layer.read(box)[self.band]
        return np.stack([np.where(np.isnan(median), np.nan, values), median - values])


def cold_patches(
    layer: RasterLayer,
    band: int,
    reaches: gpd.GeoDataFrame,
    medians: Floats,
    colder_than: float,
    min_area_m2: float | None = None,
    tell: Tell | None = None,
) -> gpd.GeoDataFrame:
    """Patches of water that is colder than the median of its reach.

    Args:
        layer: Raster of temperature in any unit.
        band: Index of its band, from 0.
        reaches: Polygons with the columns ``reach`` (NaN: a lake) and ``water``.
        medians: Of the temperature in each, (n,); NaN: the reach is passed over.
        colder_than: By how much at least, in the unit of the raster.
        min_area_m2: Patches smaller than this are left out; None: than :data:`LEAST_PX` pixels.
        tell: Told the rows done and all rows.

    Returns:
        Polygons along the pixels, in the raster's CRS, the largest first: ``id``, ``area_m2``, ``reach`` and ``water``
        that most of the patch lies in, their ``reach_median``, ``mean`` and ``min`` of the patch, and how far it lies
        below the median: ``depth_mean``, ``depth_max``.
    """
    shapes = on_grid(reaches.geometry, layer.geobox)
    anomaly = Anomaly(layer, band, shapes, medians, shapely.STRtree(shapes))
    least = min_area_m2 if min_area_m2 is not None else LEAST_PX * _pixel_area_m2(layer)
    # A millionth of the least area: areas in square metres are not whole pixels to the last bit.
    options = VectorOptions(min_area_m2=least * (1 - 1e-6))
    patches = polygonize(_strips(anomaly, colder_than, tell), layer.geobox, options)
    found = zonal(on_grid(patches.geometry, layer.geobox), anomaly, ())
    home = _home(on_grid(patches.geometry, layer.geobox), shapes, anomaly.tree)
    facts = found.columns
    return gpd.GeoDataFrame(
        {
            "id": patches["id"],
            "area_m2": patches["area_m2"],
            "reach": reaches["reach"].to_numpy(float)[home],
            "water": reaches["water"].to_numpy(float)[home],
            "reach_median": medians[home],
            "mean": facts["mean"][:, 0],
            "min": facts["min"][:, 0],
            "depth_mean": facts["mean"][:, 1],
            "depth_max": facts["max"][:, 1],
        },
        geometry=patches.geometry,
        crs=patches.crs,
    )


def _strips(anomaly: Anomaly, colder_than: float, tell: Tell | None) -> Iterator[Strip]:
    """Rows of the mask of cold water; those without a reach are left out."""
    (rows, cols), (high, wide) = anomaly.shape, anomaly.window
    for row in range(0, rows, high):
        height = min(high, rows - row)
        cold = np.zeros((height, cols), bool)
        for col in range(0, cols, wide):
            box = Box(row, col, height, min(wide, cols - col))
            if anomaly.near(box):
                cold[:, col : col + box.width] = anomaly.read(box)[1] >= colder_than
        if tell is not None:
            tell(row + height, rows)
        if cold.any():
            yield Strip(row, cold)


def _home(patches: Geometries, reaches: Geometries, tree: shapely.STRtree) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Reach that most of each patch lies in, (n,)."""
    home = np.zeros(len(patches), np.intp)
    for at, patch in enumerate(patches):
        near = np.sort(tree.query(patch))
        home[at] = near[int(np.argmax(shapely.area(shapely.intersection(reaches[near], patch))))]
    return home


def _pixel_area_m2(layer: RasterLayer) -> float:
    across, down = pixel_size_m(layer.geobox)
    return across * down

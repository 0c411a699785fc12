"""The largest network as a raster of one component, as tools for river masks want it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import rasterio
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geosam.rivers.banks import Longs
from geosam.rivers.burning import Burning
from geosam.vector.write import _faults, _whole_or_not

STRIP_PX = 16_000_000
"""Pixels labelled in one go."""
_NEARLY = 0.005
_AROUND = np.ones((3, 3), bool)
"""Pixels that meet at a corner are one component, as they are for skeletons."""

Labels = npt.NDArray[np.int32]


def mask_grid(polygon: shapely.Polygon, crs: pyproj.CRS | None, pixel_m: float) -> GeoBox:
    """A grid around a polygon, on whole multiples of its pixels.

    Args:
        polygon: In ``crs``.
        crs: A map in metres; None: no CRS, y points down.
        pixel_m: Size of a pixel.
    """
    west, south, east, north = polygon.bounds
    step = _rounded(pixel_m)
    left, low, right, high = (
        float(end(side / step) * step)
        for end, side in ((np.floor, west), (np.floor, south), (np.ceil, east), (np.ceil, north))
    )
    shape = max(1, round((high - low) / step)), max(1, round((right - left) / step))
    down = Affine(step, 0, left, 0, -step, high) if crs is not None else Affine(step, 0, left, 0, step, low)
    return GeoBox(shape, down, crs)


def _rounded(pixel_m: float) -> float:
    """30 m for 29.99 m: metres on the ground differ a little from those of a map."""
    for digits in (1, 2, 3):
        short = float(f"{pixel_m:.{digits}g}")
        if abs(short / pixel_m - 1) < _NEARLY:
            return short
    return pixel_m


def write_mask(polygon: shapely.Polygon, grid: GeoBox, path: Path) -> int:
    """Write a mask of one component: 1 water, 0 dry, uint8, no nodata, islands left dry.

    What a narrow channel loses on the grid, and is cut off by it, is left out, so that nothing but the largest
    component is there. Pixels that meet at a corner are one component.

    Args:
        polygon: Water in the CRS of the grid.
        grid: The pixels.
        path: The GeoTIFF to be, replaced only once the new one is whole.

    Returns:
        Number of water pixels.

    Raises:
        OutputError: The folder is missing or the disk is full.
    """
    strips = _Strips(Burning.of(polygon, grid), grid)
    largest = strips.largest()
    count = 0
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": grid.shape[0], "width": grid.shape[1], "count": 1, "dtype": "uint8",
        "crs": None if grid.crs is None else grid.crs.to_wkt(),
        "transform": grid.affine,
        "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "BIGTIFF": "IF_SAFER",
    }  # fmt: skip
    with _faults(path), _whole_or_not(path) as part, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # The grid of pixels is one without CRS.
        with rasterio.open(part, "w", **profile) as raster:
            for strip, (window, labels) in enumerate(strips):
                water = largest[strip][labels]
                count += int(np.count_nonzero(water))
                raster.write(water.astype(np.uint8), 1, window=window)
    return count


@dataclass(frozen=True)
class _Strips:
    """A polygon on a grid, some rows at a time, each with components of its own."""

    burning: Burning
    grid: GeoBox

    def __iter__(self) -> Iterator[tuple[Window, Labels]]:
        height, width = self.grid.shape
        rows = max(512, STRIP_PX // max(width, 1) // 512 * 512)
        for top in range(0, height, rows):
            window = Window(0, top, width, min(rows, height - top))
            labels, _ = ndimage.label(self.burning.rows(top, window.height), _AROUND)
            yield window, labels

    def largest(self) -> list[npt.NDArray[np.bool_]]:
        """Which labels of each strip are the largest component of the whole raster; label 0 is dry."""
        sizes = [np.zeros(1, np.int64)]
        pairs = [np.empty((0, 2), np.int64)]
        count, above = 0, np.zeros(self.grid.shape[1], np.int64)
        for _, labels in self:
            pairs.append(_meeting(above, np.where(labels[0] > 0, labels[0] + count, 0)))
            above = np.where(labels[-1] > 0, labels[-1] + count, 0)
            sizes.append(np.bincount(labels.ravel())[1:])
            count += len(sizes[-1])
        one, other = np.concatenate(pairs).T
        graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(count + 1, count + 1))
        _, component = connected_components(graph, directed=False)
        total = np.bincount(component, np.concatenate(sizes))
        kept = np.split((component == total.argmax())[1:], np.cumsum([len(some) for some in sizes[1:]])[:-1])
        return [np.concatenate([[False], some]) for some in kept]


def _meeting(above: Longs, below: Longs) -> Longs:
    """Pairs of labels that meet between two rows, at corners too, shape (k, 2); 0 is dry."""
    edged = np.pad(above, 1)
    pairs = np.concatenate([np.stack([edged[shift : shift + len(below)], below], 1) for shift in range(3)])
    return np.asarray(np.unique(pairs[(pairs > 0).all(axis=1)], axis=0))

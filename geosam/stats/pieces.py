"""Polygons on a raster's grid, cut into the windows that the raster is read by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geosam.scene.header import Box

Geometries = NDArray[np.object_]
Longs = NDArray[np.int64]

_EDGE_PARTS = 256
"""An edge is cut into this many parts of the layer's extent before it is reprojected: straight lines bend."""


@dataclass(frozen=True)
class Piece:
    """What of the polygons lies in one window."""

    box: Box
    index: Longs
    """Of the polygons, shape (n,)."""
    shapes: Geometries
    """Their parts in the window, on the grid, shape (n,)."""


def on_grid(polygons: gpd.GeoSeries, geobox: GeoBox) -> Geometries:
    """Polygons in pixels of a raster: x is the column, y the row with its sign turned, so that y points up.

    Valid polygons or multipolygons, empty where the raster's CRS does not reach; shape (n,).
    """
    assert geobox.crs is not None, "a layer without CRS is refused when it is opened"
    crs = geobox.crs.proj
    there = polygons if polygons.crs == crs else _dense(polygons).to_crs(crs)
    to_pixels = ~geobox.affine

    def placed(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            col, row = to_pixels @ (xy[:, 0], xy[:, 1])
        return np.stack([col, -row], axis=1)

    shapes = np.asarray(shapely.transform(shapely.force_2d(there.to_numpy()), placed), object)
    lost = ~np.isfinite(shapely.bounds(shapes)).all(axis=1) & ~shapely.is_empty(shapes)
    shapes[lost] = shapely.Polygon()
    return areal(shapes)


def areal(shapes: Geometries) -> Geometries:
    """Valid polygons and multipolygons: what of shapes has an area."""
    mended = np.where(shapely.is_valid(shapes), shapes, shapely.make_valid(shapes))
    for at in np.flatnonzero(~np.isin(shapely.get_type_id(mended), (3, 6))):
        parts = shapely.get_parts(shapely.get_parts(mended[at]))
        mended[at] = shapely.multipolygons(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON])
    return np.asarray(mended, object)


def pieces(shapes: Geometries, shape: tuple[int, int], window: tuple[int, int]) -> Iterator[Piece]:
    """The windows that hold something of the polygons, from top to bottom and from left to right.

    Halves of halves: a polygon is never cut by all windows, only by those that lie near it.

    Args:
        shapes: As :func:`on_grid` gives them.
        shape: Height and width of the raster.
        window: Height and width of a window.
    """
    rows, cols = (-(-side // step) for side, step in zip(shape, window, strict=True))

    def halved(index: Longs, parts: Geometries, span: tuple[int, int, int, int]) -> Iterator[Piece]:
        box = _box(span, shape, window)
        index, parts = _within(index, parts, box)
        if len(index) == 0:
            return
        top, bottom, left, right = span
        if bottom - top > 1:
            middle = (top + bottom) // 2
            yield from halved(index, parts, (top, middle, left, right))
            yield from halved(index, parts, (middle, bottom, left, right))
        elif right - left > 1:
            middle = (left + right) // 2
            yield from halved(index, parts, (top, bottom, left, middle))
            yield from halved(index, parts, (top, bottom, middle, right))
        else:
            yield Piece(box, index, parts)

    yield from halved(np.arange(len(shapes)), shapes, (0, rows, 0, cols))


def _box(span: tuple[int, int, int, int], shape: tuple[int, int], window: tuple[int, int]) -> Box:
    top, bottom, left, right = span
    row, col = top * window[0], left * window[1]
    return Box(row, col, min(bottom * window[0], shape[0]) - row, min(right * window[1], shape[1]) - col)


def _within(index: Longs, shapes: Geometries, box: Box) -> tuple[Longs, Geometries]:
    """Those that lie in a box, and what of them does."""
    west, south, east, north = box.col, -(box.row + box.height), box.col + box.width, -box.row
    bounds = shapely.bounds(shapes)
    with np.errstate(invalid="ignore"):  # NaN of what is empty
        near = (bounds[:, 0] < east) & (bounds[:, 2] > west) & (bounds[:, 1] < north) & (bounds[:, 3] > south)
        beyond = (bounds[:, 0] < west) | (bounds[:, 2] > east) | (bounds[:, 1] < south) | (bounds[:, 3] > north)
    parts = shapes.copy()
    cut = near & beyond
    parts[cut] = areal(shapely.intersection(shapes[cut], shapely.box(west, south, east, north)))
    kept = near & ~shapely.is_empty(parts)
    return index[kept], parts[kept]


def _dense(polygons: gpd.GeoSeries) -> gpd.GeoSeries:
    west, south, east, north = polygons.total_bounds
    step = max(east - west, north - south) / _EDGE_PARTS
    return polygons.segmentize(step) if step > 0 else polygons

"""Strips of a water mask to a GeoDataFrame of water bodies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from odc.geo.geobox import GeoBox

from geosam.options import VectorOptions
from geosam.vector.corners import Bools, CornerFinder, Corners, Floats
from geosam.vector.ground import Ground, ground_of
from geosam.vector.rings import Rings, rings_of, trace
from geosam.vector.simplify import simplified

Geometries = npt.NDArray[np.object_]

DEFAULTS = VectorOptions()

_CHUNK = 1 << 16
"""Polygons whose coordinates are changed in one go."""


class Strip(NamedTuple):
    """Full-width rows of a water mask."""

    row_off: int
    """First row of the strip in the raster."""
    water: Bools
    """True where there is water, shape (h, width)."""
    probability: npt.NDArray[np.floating] | None = None
    """Probability of water, 0 to 1, same shape; read only where there is water."""


def polygonize(
    strips: Iterable[Strip | tuple[int, Bools, npt.NDArray[np.floating] | None]],
    geobox: GeoBox,
    options: VectorOptions = DEFAULTS,
    *,
    scene: str = "",
    model: str = "",
    has_crs: bool = True,
) -> gpd.GeoDataFrame:
    """Water bodies of a raster that comes in strips: the same polygons as one pass over the whole raster.

    Pixels that share an edge are one body. Memory is that of the result plus one strip.

    Args:
        strips: From top to bottom, of any heights; rows left out are dry.
        geobox: Georeference of the raster.
        options: ``min_area_m2``, ``max_hole_m2`` and ``simplify_m``, in this order of use; the
            threshold has been applied by whoever made ``water``.
        scene: Value of the column ``scene``.
        model: Value of the column ``model``.
        has_crs: False: the geometry is in pixels (x right, y down) and so are areas and lengths.

    Returns:
        One valid Polygon a row, islands as holes, in the raster's CRS, the largest first; columns
        ``id`` (1 to n), ``area_m2``, ``perimeter_m`` (banks of islands included), ``probability``
        (mean over the body's pixels; NaN where none was given), ``scene``, ``model``, ``geometry``.
    """
    finder = CornerFinder(int(geobox.shape[1]))
    for strip in strips:
        finder.add(*strip)
    ground = ground_of(geobox, has_crs)
    bodies = _bodies(finder.finish(), ground, options)
    if options.simplify_m > 0 and len(bodies.polygons):
        bodies = _simplified(bodies, ground, options.simplify_m)
    return _frame(bodies, ground, scene, model)


@dataclass(frozen=True)
class _Bodies:
    polygons: Geometries
    """Outlines in (column, row), shape (n,)."""
    area_m2: Floats
    perimeter_m: Floats
    probability: Floats

    def take(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> _Bodies:
        return _Bodies(self.polygons[which], self.area_m2[which], self.perimeter_m[which], self.probability[which])


def _bodies(corners: Corners, ground: Ground, options: VectorOptions) -> _Bodies:
    parts: list[_Bodies] = []
    filled: list[Geometries] = []
    for rings in trace(corners):
        area, length = ground.measure(rings)
        outer = rings.outer()
        kept = outer | (area >= (options.max_hole_m2 or 0.0))
        filled.append(shapely.polygons(_rings(rings.keep(~kept))))
        parts.append(_measured(rings.keep(kept), area[kept], length[kept], corners.probability[rings.body[outer]]))
    return _without_drowned(
        _concatenated(parts), np.concatenate([np.zeros(0, object), *filled]), options.min_area_m2 or 0.0
    )


def _rings(rings: Rings) -> Geometries:
    index = np.repeat(np.arange(len(rings.body)), np.diff(rings.offsets))
    geometries: Geometries = shapely.linearrings(rings.xy, indices=index)
    return geometries


def _measured(rings: Rings, area: Floats, length: Floats, probability: Floats) -> _Bodies:
    """Polygons of the rings, their areas (holes taken off) and perimeters (holes added)."""
    outer = rings.outer()
    body = np.cumsum(outer) - 1
    # astype: for no rings at all bincount counts in whole numbers
    total = np.bincount(body, np.where(outer, area, -area)).astype(np.float64)
    return _Bodies(rings.polygons(), total, np.bincount(body, length).astype(np.float64), probability)


def _concatenated(parts: list[_Bodies]) -> _Bodies:
    parts = [_Bodies(np.zeros(0, object), np.zeros(0), np.zeros(0), np.zeros(0)), *parts]
    return _Bodies(
        np.concatenate([part.polygons for part in parts]),
        np.concatenate([part.area_m2 for part in parts]),
        np.concatenate([part.perimeter_m for part in parts]),
        np.concatenate([part.probability for part in parts]),
    )


def _without_drowned(bodies: _Bodies, filled: Geometries, min_area_m2: float) -> _Bodies:
    """Drop bodies below the least area, and ponds on islands that were filled."""
    keep = bodies.area_m2 >= min_area_m2
    if len(filled):
        first = shapely.get_point(shapely.get_exterior_ring(bodies.polygons), 0)
        # The first vertex of the filled island's own body is never on the island's bank.
        keep[shapely.STRtree(first).query(filled, predicate="covers")[1]] = False
    return bodies.take(keep)


def _simplified(bodies: _Bodies, ground: Ground, tolerance_m: float) -> _Bodies:
    rings = rings_of(bodies.polygons)
    rings = simplified(rings, ground.plane(rings.xy), tolerance_m)
    return _measured(rings, *ground.measure(rings), bodies.probability)


def _moved(polygons: Geometries, function: Callable[[Floats], Floats]) -> Geometries:
    """Polygons with their coordinates changed, some at a time: all coordinates at once would double the memory."""
    starts = range(0, len(polygons), _CHUNK)
    parts = [shapely.transform(polygons[start : start + _CHUNK], function) for start in starts]
    return np.concatenate([np.zeros(0, object), *parts])


def _frame(bodies: _Bodies, ground: Ground, scene: str, model: str) -> gpd.GeoDataFrame:
    # Largest first; bodies of one size keep the order of their first corners, whatever the strips.
    bodies = bodies.take(np.argsort(-bodies.area_m2, kind="stable"))
    polygons = _moved(bodies.polygons, ground.world)
    if ground.affine.determinant > 0:  # y runs down: what was counter-clockwise on the screen is clockwise in (x, y)
        polygons = shapely.reverse(polygons)
    count = len(polygons)
    columns = {
        "id": np.arange(1, count + 1),
        "area_m2": bodies.area_m2.round(6),
        "perimeter_m": bodies.perimeter_m.round(6),
        "probability": bodies.probability.round(4),
        "scene": pd.Series([scene] * count, dtype="str"),
        "model": pd.Series([model] * count, dtype="str"),
    }
    return gpd.GeoDataFrame(columns, geometry=polygons, crs=ground.crs)

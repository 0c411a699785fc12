"""Strips of a water mask to a GeoDataFrame of water bodies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from odc.geo.geobox import GeoBox

from geosam.options import VectorOptions
from geosam.vector.corners import Bools, Floats, Longs, find_boundary
from geosam.vector.ground import Ground, ground_of
from geosam.vector.ordered import Crew, crew
from geosam.vector.rings import Rings, trace
from geosam.vector.simplify import simplified

Geometries = npt.NDArray[np.object_]

DEFAULTS = VectorOptions()

_CHUNK = 1 << 20
"""Vertices turned into polygons in one go; one polygon is never cut."""


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
    threads: int | None = None,
) -> gpd.GeoDataFrame:
    """Water bodies of a raster that comes in strips: the same polygons as one pass over the whole raster.

    Pixels that share an edge are one body. Memory is about twice that of the result, plus some strips.

    Args:
        strips: From top to bottom, of any heights; rows left out are dry. Arrays must not be changed afterwards:
            they are looked at while the next ones come.
        geobox: Georeference of the raster.
        options: ``min_area_m2``, ``max_hole_m2`` and ``simplify_m``, in this order of use; the
            threshold has been applied by whoever made ``water``.
        scene: Value of the column ``scene``.
        model: Value of the column ``model``.
        has_crs: False: the geometry is in pixels (x right, y down) and so are areas and lengths.
        threads: That work side by side; None: one a processor, up to 8. The result is the same.

    Returns:
        One valid Polygon a row, islands as holes, in the raster's CRS, the largest first; columns
        ``id`` (1 to n), ``area_m2``, ``perimeter_m`` (banks of islands included), ``probability``
        (mean over the body's pixels; NaN where none was given), ``scene``, ``model``, ``geometry``.
    """
    with crew(threads) as hands:
        return polygonize_by(hands, strips, geobox, options, scene, model, has_crs)


def polygonize_by(
    crew: Crew,
    strips: Iterable[Strip | tuple[int, Bools, npt.NDArray[np.floating] | None]],
    geobox: GeoBox,
    options: VectorOptions,
    scene: str,
    model: str,
    has_crs: bool,
) -> gpd.GeoDataFrame:
    """As :func:`polygonize`, by a crew that may have other work too."""
    ground = ground_of(geobox, has_crs)
    boundary = find_boundary(strips, int(geobox.shape[1]), crew)
    bodies = _bodies(trace(boundary, crew), boundary.probability, ground, options, crew)
    if options.simplify_m > 0 and len(bodies.area_m2):
        rings = simplified(bodies.rings, ground.plane(bodies.rings.xy), options.simplify_m)
        bodies = _measured(rings, *ground.measure(rings, crew), bodies.probability)
    return _frame(bodies, ground, scene, model, crew)


@dataclass(frozen=True)
class _Bodies:
    rings: Rings
    """Outlines in (column, row)."""
    area_m2: Floats
    """Shape (bodies,), like the rest."""
    perimeter_m: Floats
    probability: Floats

    def keep(self, kept: Bools) -> _Bodies:
        rings = self.rings.keep(kept[np.cumsum(self.rings.outer()) - 1])
        return _Bodies(rings, self.area_m2[kept], self.perimeter_m[kept], self.probability[kept])


def _bodies(rings: Rings, probability: Floats, ground: Ground, options: VectorOptions, crew: Crew) -> _Bodies:
    """Bodies large enough, small islands filled together with the ponds on them."""
    area, length = ground.measure(rings, crew)
    kept = rings.outer() | (area >= (options.max_hole_m2 or 0.0))
    solid = rings.keep(kept)
    bodies = _measured(solid, area[kept], length[kept], probability)
    large = bodies.area_m2 >= (options.min_area_m2 or 0.0)
    return bodies.keep(large & ~_drowned(solid, rings.keep(~kept)))


def _measured(rings: Rings, area: Floats, length: Floats, probability: Floats) -> _Bodies:
    """Bodies of the rings, their areas (holes taken off) and perimeters (holes added)."""
    outer = rings.outer()
    body = np.cumsum(outer) - 1
    # astype: for no rings at all bincount counts in whole numbers
    total = np.bincount(body, np.where(outer, area, -area)).astype(np.float64)
    return _Bodies(rings, total, np.bincount(body, length).astype(np.float64), probability)


def _drowned(rings: Rings, filled: Rings) -> Bools:
    """True for bodies that lie within these holes, shape (bodies,).

    A body is met once in every hole round it, so the work grows with the bodies and how deep they are nested.
    """
    first = rings.xy[rings.offsets[rings.first[:-1]]]
    drowned = np.zeros(len(first), bool)
    if len(filled.body):
        index = np.repeat(np.arange(len(filled.body)), np.diff(filled.offsets))
        islands = shapely.polygons(shapely.linearrings(filled.xy, indices=index))
        # The first vertex of the filled island's own body is never on the island's bank.
        drowned[shapely.STRtree(shapely.points(first)).query(islands, predicate="covers")[1]] = True
    return drowned


def _frame(bodies: _Bodies, ground: Ground, scene: str, model: str, crew: Crew) -> gpd.GeoDataFrame:
    # Largest first; bodies of one size keep the order of their first corners, whatever the strips.
    order = np.argsort(-bodies.area_m2, kind="stable")
    count = len(order)
    columns = {
        "id": np.arange(1, count + 1),
        "area_m2": bodies.area_m2[order].round(6),
        "perimeter_m": bodies.perimeter_m[order].round(6),
        "probability": bodies.probability[order].round(4),
        "scene": pd.Series([scene] * count, dtype="str"),
        "model": pd.Series([model] * count, dtype="str"),
    }
    return gpd.GeoDataFrame(columns, geometry=_polygons(bodies.rings, order, ground, crew), crs=ground.crs)


def _polygons(rings: Rings, order: Longs, ground: Ground, crew: Crew) -> Geometries:
    """Polygons in the CRS, in this order, outer rings counter-clockwise."""
    vertices = np.diff(rings.offsets[rings.first])[order]
    batch = (np.cumsum(vertices) - vertices) // _CHUNK
    batches = np.split(order, np.flatnonzero(np.diff(batch)) + 1)
    parts = list(crew.map(lambda bodies: rings.polygons(bodies, ground.world), batches if len(order) else []))
    polygons = np.concatenate([np.zeros(0, object), *parts])
    # y runs down: what was counter-clockwise on the screen is clockwise in (x, y)
    return shapely.reverse(polygons) if ground.affine.determinant > 0 else polygons

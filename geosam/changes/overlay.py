"""Land that became water, water that became land, and water that stayed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely

from geosam.changes.pair import Pair
from geosam.rivers.banks import Floats, Geometries
from geosam.rivers.source import single_polygons

_LEAST_PX = 0.01
"""Slivers under so many square pixels come from arithmetic, where two CRSs or a shift are between the dates."""


class Patches(NamedTuple):
    """Pieces of one kind."""

    polygons: Geometries
    """In the CRS of the early water, the largest first, shape (n,)."""
    areas_m2: Floats
    """Shape (n,)."""


def overlaid(pair: Pair, pixel_m: float) -> dict[str, Patches]:
    """Eroded, accreted and stable water.

    The overlay is done in the layer's own coordinates, where outlines that follow the same pixels are the same to the
    last bit; on the plane they would leave slivers along every bank.

    Args:
        pair: The water.
        pixel_m: Size of a pixel.
    """
    early, late = (shapely.union_all(drawn.polygons) for drawn in (pair.early, pair.late))
    found = {
        "eroded": shapely.difference(late, early),
        "accreted": shapely.difference(early, late),
        "stable": shapely.intersection(early, late),
    }
    return {name: _patches(pair, shape, _LEAST_PX * pixel_m**2) for name, shape in found.items()}


def _patches(pair: Pair, shape: shapely.Geometry, least_m2: float) -> Patches:
    parts = single_polygons(np.array([shape], object))
    areas = np.asarray(shapely.area(pair.plane.to_metres(parts)), np.float64)
    order = np.argsort(-areas, kind="stable")
    order = order[areas[order] > least_m2]
    return Patches(parts[order], areas[order])

"""The water along a river: polygons of the reaches that its centreline is cut into."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from geosam.options import RiverOptions
from geosam.rivers import river_products
from geosam.rivers.layers import Layers
from geosam.rivers.plane import plane_of
from geosam.stats.pieces import Geometries, areal

_PER_WIDTH = 2
_FEWEST, _MOST = 4, 64
"""Points on a reach that its water is nearest to: two a width, and so many at least and at most."""

COLUMNS = ["reach", "water", "line", "role", "from_m", "to_m"]


def reach_waters(water: gpd.GeoDataFrame, along_m: float | None) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """Water by reach: what of a river's water lies nearest to each piece of its centrelines.

    Args:
        water: Polygons in any CRS.
        along_m: Length of a piece in metres, about: a line is cut into equal ones. None: ten times the river's width.

    Returns:
        Polygons of the reaches in the CRS of ``water``, with :data:`COLUMNS` and ``area_m2``; and the bodies that are
        no rivers (lakes, ponds), with ``water`` and ``area_m2``.
    """
    layers = river_products(water, RiverOptions(reach_m=along_m)).layers
    bodies = layers.water.rename(columns={"id": "water"})
    still = bodies[bodies["kind"] != "river"] if len(bodies) else bodies
    if len(layers.reaches) == 0:
        empty = pd.DataFrame({name: pd.Series(dtype=float) for name in [*COLUMNS, "area_m2"]})
        return gpd.GeoDataFrame(empty, geometry=gpd.GeoSeries([], crs=water.crs)), still
    return _cut(layers, bodies), still


def _cut(layers: Layers, bodies: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    plane = plane_of(bodies.geometry.to_numpy(), bodies.crs)
    reaches = layers.reaches.reset_index(drop=True)
    lines = plane.to_metres(reaches.geometry.to_numpy())
    shapes = np.full(len(reaches), shapely.Polygon(), object)
    for number, polygon in zip(bodies["water"], plane.to_metres(bodies.geometry.to_numpy()), strict=True):
        mine = np.flatnonzero(reaches["water"] == number)
        if len(mine):
            shapes[mine] = _nearest(polygon, lines[mine], _points(reaches.iloc[mine]))
    rows = reaches[COLUMNS[1:]].assign(reach=np.arange(1, len(reaches) + 1), area_m2=shapely.area(shapes))
    table = gpd.GeoDataFrame(rows[[*COLUMNS, "area_m2"]], geometry=plane.to_layer(shapes), crs=bodies.crs)
    return table[table["area_m2"] > 0].reset_index(drop=True)


def _points(reaches: gpd.GeoDataFrame) -> NDArray[np.int64]:
    """Points for each reach: as many for all of one line, so that the cut between two lies at their common end."""
    of_line = reaches.groupby("line")
    width, length = (of_line[name].transform("mean") for name in ("width_mean_m", "length_m"))
    wanted = np.ceil(_PER_WIDTH * length / width.where(width > 0, length))
    return np.asarray(wanted.clip(_FEWEST, _MOST), np.int64)


def _nearest(polygon: shapely.Polygon, lines: Geometries, points: NDArray[np.int64]) -> Geometries:
    """The parts of a water body that are nearest to each line, in metres, shape (n,)."""
    owner = np.repeat(np.arange(len(lines)), points)
    shares = np.concatenate([(np.arange(count) + 0.5) / count for count in points])
    places = shapely.line_interpolate_point(lines[owner], shares, normalized=True)
    if len(lines) == 1:
        return np.array([polygon], object)
    cells = shapely.get_parts(shapely.voronoi_polygons(shapely.multipoints(places), extend_to=polygon))
    cell, point = shapely.STRtree(places).query(cells, predicate="contains")[[0, 1]]
    parts = [shapely.coverage_union_all(cells[cell[owner[point] == at]]) for at in range(len(lines))]
    return areal(shapely.intersection(np.array(parts, object), polygon))

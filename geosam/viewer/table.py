"""Tables of polygons that a person edits: read from files, joined, cut, measured, written as a run writes them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geosam.errors import OptionsError
from geosam.prompts.opening import SNAP
from geosam.scene import Scene
from geosam.scene.vectors import read_vector
from geosam.vector import polygonize_raster
from geosam.vector.ground import ground_of
from geosam.vector.ordered import crew
from geosam.vector.rings import Rings
from geosam.viewer.place import moved

Shapes = NDArray[np.object_]

COLUMNS = ("id", "area_m2", "perimeter_m", "probability", "scene", "model")
"""What every row has, as the rows of a run."""
GRID_PX = 1 / SNAP
"""Outlines that are joined or cut are brought to this grid: GeoJSON's seven decimals leave gaps of a centimetre
between polygons that shared an edge of pixels."""


def read_table(option: str, source: str | Path | gpd.GeoDataFrame, scene: Scene) -> gpd.GeoDataFrame:
    """Polygons in pixels of the scene's working grid, one a row, with :data:`COLUMNS` and what else they have.

    Args:
        option: What the file was given as, named in messages: ``RIVERS``.
        source: Any vector file, a mask or probability raster, or a table; no row is no error.
        scene: Gives the grid.

    Raises:
        OptionsError: It cannot be read or placed, or holds something else than polygons.
    """
    frame = source if isinstance(source, gpd.GeoDataFrame) else _read(option, str(source))
    name = "the table" if isinstance(source, gpd.GeoDataFrame) else str(source)
    shapes = _in_pixels(f"{option} {name}", frame, scene)
    table = pd.DataFrame(frame.drop(columns=frame.geometry.name))
    there = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    _check_kinds(f"{option} {name}", shapes[there])
    placed = gpd.GeoDataFrame(table[there].reset_index(drop=True), geometry=shapes[there], crs=None)
    return _completed(placed, scene)


def in_scene(table: gpd.GeoDataFrame, scene: Scene) -> gpd.GeoDataFrame:
    """The table as a run returns it: in the scene's CRS, or in pixels where it has none."""
    if not scene.has_crs:
        return table.set_geometry(table.geometry, crs=None)
    assert scene.geobox.crs is not None
    shapes = moved(scene.geobox.affine, table.geometry.to_numpy())
    return table.set_geometry(gpd.GeoSeries(shapes, index=table.index, crs=scene.geobox.crs.proj))


def joined(table: gpd.GeoDataFrame, more: gpd.GeoDataFrame, scene: Scene) -> gpd.GeoDataFrame:
    """The union: each new polygon takes up those that it touches along a line or overlaps.

    A polygon that takes up others keeps the id and the further columns of the largest of them; its probability is
    their mean by area.
    """
    for place in range(len(more)):
        table = _with_one(table, more.iloc[[place]], scene)
    return table


def without(table: gpd.GeoDataFrame, cut: shapely.Geometry, least_px: float, scene: Scene) -> gpd.GeoDataFrame:
    """The polygons less an area.

    Args:
        table: In pixels.
        cut: In pixels.
        least_px: Parts smaller than this that the cut leaves are dropped.
        scene: Gives ground measures.
    """
    if cut.is_empty or len(table) == 0:
        return table
    hit = np.flatnonzero(shapely.intersects(table.geometry.to_numpy(), cut))
    kept = table.drop(index=table.index[hit])
    parts = [_parts_left(table.iloc[[row]], cut, least_px) for row in hit]
    numbered = _numbered([part for own in parts for part in own], int(table["id"].max()))
    return _stacked([kept, *(_measured(part, scene) for part in numbered)], table)


def dropped(table: gpd.GeoDataFrame, number: int) -> gpd.GeoDataFrame:
    """The table without the polygon of this id."""
    return table[table["id"] != number].reset_index(drop=True)


def _with_one(table: gpd.GeoDataFrame, one: gpd.GeoDataFrame, scene: Scene) -> gpd.GeoDataFrame:
    shape = one.geometry.iloc[0]
    near = np.flatnonzero(shapely.intersects(table.geometry.to_numpy(), shapely.buffer(shape, GRID_PX)))
    whole = shapely.union_all([*table.geometry.to_numpy()[near], shape], grid_size=GRID_PX)
    parts = list(shapely.get_parts(whole))
    # What only meets the new polygon in a corner stays a polygon of its own, untouched.
    body = max(parts, key=lambda part: float(shapely.area(shapely.intersection(part, shape))))
    taken = [row for row in near if shapely.area(shapely.intersection(table.geometry.iloc[row], body)) > 0]
    swallowed = table.iloc[taken]
    body = shapely.union_all([*swallowed.geometry.to_numpy(), shape], grid_size=GRID_PX)
    if len(taken):
        row = swallowed.iloc[[int(np.argmax(shapely.area(swallowed.geometry.to_numpy())))]].copy()
    else:
        row = one.copy()
        row["id"] = int(table["id"].max() if len(table) else 0) + 1
    row["probability"] = _mean_probability([*swallowed.itertuples(), *one.itertuples()])
    row["scene"], row["model"] = one["scene"].iloc[0], one["model"].iloc[0]
    row = row.set_geometry(gpd.GeoSeries([body], index=row.index))
    return _stacked([table.drop(index=swallowed.index), _measured(row, scene)], table)


def _mean_probability(rows: list[Any]) -> float:
    """Mean by area of the rows that have one, rounded as a run rounds it."""
    known = [(row.probability, row.geometry.area) for row in rows if np.isfinite(row.probability)]
    area = sum(area for _, area in known)
    return round(float(sum(mean * area for mean, area in known)) / area, 4) if known else float("nan")


def _parts_left(row: gpd.GeoDataFrame, cut: shapely.Geometry, least_px: float) -> list[gpd.GeoDataFrame]:
    """What a cut leaves of one polygon, the largest part first."""
    left = shapely.get_parts(shapely.difference(row.geometry.iloc[0], cut, grid_size=GRID_PX))
    left = left[(shapely.get_dimensions(left) == 2) & (shapely.area(left) >= least_px)]
    left = left[np.argsort(-shapely.area(left), kind="stable")]
    return [
        row.assign(id=row["id"] if place == 0 else 0).set_geometry(gpd.GeoSeries([part], index=row.index))
        for place, part in enumerate(left)
    ]


def _numbered(rows: list[gpd.GeoDataFrame], last: int) -> list[gpd.GeoDataFrame]:
    """Rows of id 0 get numbers after the last."""
    out = []
    for row in rows:
        last += int(row["id"].iloc[0] == 0)
        out.append(row if row["id"].iloc[0] else row.assign(id=last))
    return out


def _stacked(tables: list[gpd.GeoDataFrame], like: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    filled = [table for table in tables if len(table)]
    if not filled:
        return like.iloc[:0]
    return gpd.GeoDataFrame(pd.concat(filled, ignore_index=True), geometry="geometry", crs=None)


def _measured(table: gpd.GeoDataFrame, scene: Scene) -> gpd.GeoDataFrame:
    """With area and perimeter as a run measures them."""
    area, perimeter = measures(table.geometry.to_numpy(), scene)
    return table.assign(area_m2=area.round(6), perimeter_m=perimeter.round(6))


def measures(shapes: Shapes, scene: Scene) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Area in m² and perimeter in m (banks of islands included) of polygons in pixels, shape (n,) each."""
    parts, whole = shapely.get_parts(shapes, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    if len(rings) == 0:
        return np.zeros(len(shapes)), np.zeros(len(shapes))
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    offsets = np.append(0, np.cumsum(np.bincount(ring)))
    lines, owner = Rings(xy, offsets, part), whole[part]
    with crew(1) as hands:
        area, length = ground_of(scene.geobox, scene.has_crs).measure(lines, hands)
    signed = np.where(lines.outer(), area, -area)
    count = len(shapes)
    sums = (np.bincount(owner, values, count).astype(np.float64) for values in (signed, length))
    return next(sums), next(sums)


def _completed(table: gpd.GeoDataFrame, scene: Scene) -> gpd.GeoDataFrame:
    """With the columns of a run, those that it lacks measured or left open."""
    area, perimeter = measures(table.geometry.to_numpy(), scene)
    count = len(table)
    lacking = {
        "area_m2": area.round(6),
        "perimeter_m": perimeter.round(6),
        "probability": np.full(count, np.nan),
        "scene": pd.Series([scene.name] * count, dtype="str"),
        "model": pd.Series([""] * count, dtype="str"),
    }
    for name, values in lacking.items():
        if name not in table:
            table[name] = values
    table["probability"] = pd.to_numeric(table["probability"], errors="coerce").astype(np.float64)
    numbers = pd.to_numeric(table["id"], errors="coerce") if "id" in table else pd.Series(dtype=float)
    fit = "id" in table and numbers.notna().all() and numbers.is_unique and (numbers > 0).all()
    table["id"] = numbers.astype(np.int64) if fit else np.arange(1, count + 1)
    others = [name for name in table.columns if name not in (*COLUMNS, "geometry")]
    return table[[*COLUMNS, *others, "geometry"]]


def _read(option: str, path: str) -> gpd.GeoDataFrame:
    """A vector file, or the polygons of a mask raster."""
    if not Path(path).exists() and "://" not in path and not path.startswith("/vsi"):
        raise OptionsError(f"{option} {path} does not exist. Give a vector file of polygons, or a mask raster.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path):
                pass
        return polygonize_raster(path, allow_no_crs=True)
    except RasterioError:
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of mixed types in a column.
            table = read_vector(path)
    except Exception as error:  # pyogrio, pyarrow and GDAL each raise their own
        reason = " ".join(str(error).split()).rstrip(".")[:200]
        raise OptionsError(f"{option} {path} is not a vector file that can be read ({reason}).") from None
    if not isinstance(table, gpd.GeoDataFrame) or table.active_geometry_name is None:
        raise OptionsError(f"{option} {path} holds no geometry. Give a vector file of polygons, or a mask raster.")
    return table


def _in_pixels(what: str, frame: gpd.GeoDataFrame, scene: Scene) -> Shapes:
    """Geometries in pixels of the working grid, valid."""
    known = frame.crs is not None and "Undefined" not in str(frame.crs.name)  # What a GeoPackage calls none.
    if known and not scene.has_crs:
        raise OptionsError(
            f"{what} has a CRS ({frame.crs.name}) and {scene.source} has none. Give polygons in pixel coordinates, in "
            "a file without CRS (.gpkg, .fgb or .parquet)."
        )
    if scene.has_crs and not known:
        raise OptionsError(
            f"{what} has no CRS, so its place on {scene.source} is unknown. Save it with its CRS, then open it again."
        )
    if scene.geobox.crs is not None and scene.has_crs:
        shapes = moved(~scene.geobox.affine, frame.geometry.to_crs(scene.geobox.crs.proj).to_numpy())
    else:
        shapes = shapely.force_2d(frame.geometry.to_numpy())
    broken = ~shapely.is_valid(shapes) & ~shapely.is_missing(shapes)
    shapes[broken] = shapely.make_valid(shapes[broken], method="structure")
    out: Shapes = shapes
    return out


def _check_kinds(what: str, shapes: Shapes) -> None:
    other = [kind for kind in dict.fromkeys(shape.geom_type for shape in shapes) if "Polygon" not in kind]
    if other:
        raise OptionsError(f"{what} holds a {other[0]}. Give a file with nothing but polygons.")

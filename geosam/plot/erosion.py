"""What a river took and what it left between two dates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
import shapely
from matplotlib.patches import Patch

from geosam.errors import SceneError
from geosam.plot.canvas import MAX_SIDE_PX, Picture, canvases, look
from geosam.plot.drawing import area_text, draw_shapes
from geosam.plot.layers import layer_names, read_layers, shapes
from geosam.plot.sheet import sheet
from geosam.scene import Scene

LAYERS: dict[str, tuple[str, str]] = {
    "stable": ("#5aa5d6", "stable water"),
    "eroded": ("#d55e00", "eroded, now water"),
    "accreted": ("#e8c547", "accreted, now land"),
}
"""Layers of a change, in the order of drawing: colour, and what the legend says."""


def change(
    changes: str | Path | Mapping[str, gpd.GeoDataFrame],
    scene: Scene | str | Path | None = None,
    *,
    max_side_px: int = MAX_SIDE_PX,
) -> Picture:
    """Water that stayed, land that a river took, and land that it left.

    Args:
        changes: GeoPackage of ``geosam change`` with the layers eroded, accreted and stable, or such tables by name.
        scene: The ortho to draw on; None: blank paper.
        max_side_px: Longest side that is read of the ortho, in pixels.

    Raises:
        SceneError: The file cannot be read, or lacks a layer.
    """
    tables = _tables(changes)
    name = Path(changes).stem if isinstance(changes, str | Path) else "change"
    ground = look(scene, max_side_px) if scene is not None else sheet(name, list(tables.values()))
    (canvas,) = canvases(ground, [ground.name], grey=True)
    areas = {layer: _area_m2(table) for layer, table in tables.items()}
    handles = []
    for layer, (colour, said) in LAYERS.items():
        geometries = shapes(canvas.ground, tables[layer]).geometry.values
        draw_shapes(canvas, geometries, face=colour, edge=colour, width=0.3, alpha=0.85)
        handles.append(Patch(color=colour, alpha=0.85, label=f"{said}: {area_text(areas[layer], max(areas.values()))}"))
    canvas.legend([*handles])
    canvas.title(f"{ground.name}: {_balance(areas)}")
    return canvas.figure


def _balance(areas: Mapping[str, float]) -> str:
    more = areas["eroded"] - areas["accreted"]
    if abs(more) < 1e-3 * (areas["stable"] + areas["eroded"]):
        return "as much water as before"
    return f"{area_text(abs(more))} {'more' if more > 0 else 'less'} water than before"


def _tables(changes: str | Path | Mapping[str, gpd.GeoDataFrame]) -> dict[str, gpd.GeoDataFrame]:
    there = set(changes) if isinstance(changes, Mapping) else set(layer_names(changes))
    missing = [layer for layer in LAYERS if layer not in there]
    if missing:
        where = "the tables" if isinstance(changes, Mapping) else str(changes)
        raise SceneError(f"{where} has no layer {' or '.join(missing)}. Give the GeoPackage that geosam change wrote.")
    if isinstance(changes, Mapping):
        return {layer: changes[layer] for layer in LAYERS}
    return read_layers(changes, tuple(LAYERS))


def _area_m2(table: gpd.GeoDataFrame) -> float:
    """Area of a layer on the ground: as it says, else by the ellipsoid."""
    if "area_m2" in table:
        return float(table["area_m2"].sum())
    if table.crs is None:
        return float(shapely.area(np.asarray(table.geometry.values, object)).sum())
    geod = pyproj.CRS(table.crs).get_geod() or pyproj.Geod(ellps="WGS84")
    return float(sum(abs(geod.geometry_area_perimeter(shape)[0]) for shape in table.to_crs("EPSG:4326").geometry))

"""Where a river went between two dates: what it took and left, how far its course moved, bends it cut off."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from matplotlib.artist import Artist
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from geosam.changes import Change
from geosam.errors import SceneError
from geosam.plot.canvas import MAX_SIDE_PX, Canvas, Picture, canvases, look
from geosam.plot.drawing import area_text, counted, draw_shapes, length_text
from geosam.plot.erosion import LAYERS
from geosam.plot.layers import layer_names, read_layers, shapes
from geosam.plot.sheet import sheet
from geosam.scene import Scene

_LINES = ("migration", "displacements", "cutoffs", "courses")
_COURSE, _CUTOFF = {"early": "#777777", "late": "#000000"}, "#d6278f"
_MAP = "viridis_r"
_MOST = 95
"""Percentile of the displacements at which the colours end, so that one of them does not pale all others."""


def migration(
    changes: Change | str | Path,
    scene: Scene | str | Path | None = None,
    *,
    max_side_px: int = MAX_SIDE_PX,
) -> Picture:
    """A map of what ``geosam change`` found.

    Land that the river took and left, the main courses of both dates, between them lines in the colour of how far the
    river moved there, in metres a year where the years are known, and the loops that it cut off.

    Args:
        changes: GeoPackage of ``geosam change``, or its :class:`~geosam.changes.Change`.
        scene: The ortho to draw on; None: blank paper.
        max_side_px: Longest side that is read of the ortho, in pixels.

    Raises:
        SceneError: The file cannot be read, or lacks a layer.
    """
    tables = _tables(changes)
    ground = look(scene, max_side_px) if scene is not None else sheet("", list(tables.values()))
    (canvas,) = canvases(ground, [_title(tables)], grey=True, bar=len(tables["displacements"]) > 0)
    handles = [*_draw_areas(canvas, tables), *_draw_courses(canvas, tables["courses"])]
    _draw_displacements(canvas, tables["displacements"])
    canvas.legend([*handles, *_draw_cutoffs(canvas, tables["cutoffs"])])
    return canvas.figure


def _tables(changes: Change | str | Path) -> Mapping[str, gpd.GeoDataFrame]:
    if isinstance(changes, Change):
        return changes.layers()
    missing = sorted({*LAYERS, *_LINES} - set(layer_names(changes)))
    if missing:
        raise SceneError(
            f"{changes} has no layer {' or '.join(missing)}. Give the GeoPackage that geosam change wrote."
        )
    return read_layers(changes, (*LAYERS, *_LINES))


def _title(tables: Mapping[str, gpd.GeoDataFrame]) -> str:
    reaches = tables["migration"]
    known = reaches[reaches["migration_m"].notna() & (reaches["river"] == 1)]
    if len(known) == 0:
        return "the largest river could not be followed" if len(reaches) else "no river"
    mean = float(np.average(known["migration_m"], weights=known["length_m"]))
    rate = float(np.average(known["migration_m_per_year"], weights=known["length_m"]))
    a_year = f", {length_text(rate)} a year" if np.isfinite(rate) else ""
    length = length_text(float(known["length_m"].sum()))
    return f"{length} of the largest river moved by {length_text(mean)} on average{a_year}"


def _draw_areas(canvas: Canvas, tables: Mapping[str, gpd.GeoDataFrame]) -> list[Artist]:
    areas = {layer: float(tables[layer]["area_m2"].sum()) for layer in LAYERS}
    handles: list[Artist] = []
    for layer, (colour, said) in LAYERS.items():
        geometries = shapes(canvas.ground, tables[layer]).geometry.values
        draw_shapes(canvas, geometries, face=colour, edge=colour, width=0.2, alpha=0.6)
        text = area_text(areas[layer], max(areas.values()))
        handles.append(Patch(color=colour, alpha=0.6, label=f"{said}: {text}"))
    return handles


def _draw_courses(canvas: Canvas, courses: gpd.GeoDataFrame) -> list[Artist]:
    handles: list[Artist] = []
    placed = shapes(canvas.ground, courses)
    for date, colour in _COURSE.items():
        chosen = placed[placed["date"] == date]
        _lines(canvas, chosen, colour, 1.2)
        if len(chosen):
            length = length_text(float(chosen["length_m"].sum()))
            handles.append(Line2D([], [], color=colour, linewidth=1.2, label=f"{date} courses: {length}"))
    return handles


def _draw_displacements(canvas: Canvas, moved: gpd.GeoDataFrame) -> None:
    if len(moved) == 0:
        return
    a_year = moved["right_m_per_year"].notna().all()
    values = np.abs(moved["right_m_per_year" if a_year else "right_m"].to_numpy())
    lines = LineCollection(
        [np.asarray(line.coords) for line in shapes(canvas.ground, moved).geometry],
        array=values, cmap=_MAP, linewidths=1.0, zorder=2,
    )  # fmt: skip
    most = max(float(np.percentile(values, _MOST)), 1e-9)
    lines.set_clim(0, most)
    canvas.axes.add_collection(lines, autolim=False)
    canvas.bar(
        lines, "movement of the course, " + ("m a year" if a_year else "m"),
        extend="max" if values.max() > most else "neither",
    )  # fmt: skip


def _draw_cutoffs(canvas: Canvas, cutoffs: gpd.GeoDataFrame) -> list[Artist]:
    if len(cutoffs) == 0:
        return []
    _lines(canvas, shapes(canvas.ground, cutoffs), _CUTOFF, 2.4)
    text = f"{counted(len(cutoffs), 'cut-off')}: {length_text(float(cutoffs['length_m'].sum()))}"
    return [Line2D([], [], color=_CUTOFF, linewidth=2.4, label=text)]


def _lines(canvas: Canvas, table: gpd.GeoDataFrame, colour: str, width: float) -> None:
    for line in shapely.simplify(np.asarray(table.geometry.values, object), 0.25):
        xy = shapely.get_coordinates(line)
        canvas.axes.plot(xy[:, 0], xy[:, 1], color=colour, linewidth=width, zorder=3)

"""Width along a river: a map of its cross-sections, and a chart of them against the distance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from geosam.errors import OptionsError, SceneError
from geosam.plot.canvas import Canvas, Picture, background, canvas_on, fitted, look, seen
from geosam.plot.drawing import RIVER, counted, draw_shapes, length_text
from geosam.plot.layers import Found, Layer, OnDisk, layer_names, read_layers, shapes
from geosam.plot.sheet import sheet
from geosam.rivers import RiverProducts, river_products
from geosam.scene import Scene

_WETTED, _ISLANDS = "#0072b2", "#e6a75f"
_PARTS = ("water", "centrelines", "widths")
_TALL = 1.4
"""Height to width of the map from which on the chart stands beside it, not below."""


@dataclass(frozen=True)
class _River:
    """One river of a network, as tables; lengths in metres."""

    name: str
    water: gpd.GeoDataFrame
    lines: gpd.GeoDataFrame
    main: gpd.GeoDataFrame
    """The row of its main course."""
    sections: gpd.GeoDataFrame
    """Cross-sections of the main course by distance, those at a river's mouth left out."""


def width(
    network: Layer | RiverProducts,
    scene: Scene | str | Path | None = None,
    *,
    river: int = 1,
    max_side_px: int = 1400,
) -> Picture:
    """Width along the main course of a river, on a map and as a chart.

    The map has the cross-sections in the colour of the wetted width, and distances along the course; the chart has the
    same distances below. Cross-sections at the river's mouth, where there is no width, are left out of both.

    Args:
        network: GeoPackage of ``geosam rivers``, its :class:`~geosam.rivers.RiverProducts`, or water polygons or a
            mask, of which the network is then made.
        scene: The ortho to draw the map on; None: on blank paper.
        river: Which river, by its ``id``; 1 has the largest network.
        max_side_px: Longest side that is read of the ortho, in pixels.

    Raises:
        SceneError: The file cannot be read, or holds no river.
        OptionsError: There is no such river.
    """
    one = _chosen(_name_of(network), _tables(network), river)
    ground = look(scene, max_side_px) if scene is not None else sheet(one.name, [one.water])
    figure, on_map, on_chart = _page(seen(ground))
    figure.suptitle(fitted(_title(one), figure.get_figwidth()), fontsize="large")
    canvas = canvas_on(figure, on_map, ground, background(ground, grey=True), "")
    _draw_map(canvas, one)
    _draw_chart(on_chart, one, tall=_is_tall(seen(ground)))
    _draw_marks(canvas, one, on_chart)
    return figure


def _tables(network: Layer | RiverProducts) -> dict[str, gpd.GeoDataFrame]:
    if isinstance(network, RiverProducts):
        return dict(network.layers)
    if isinstance(network, gpd.GeoDataFrame):
        return dict(river_products(network).layers)
    if isinstance(network, Found):
        return dict(river_products(network.polygons).layers)
    path = network.path if isinstance(network, OnDisk) else network
    if {"widths", "centrelines"} <= set(layer_names(path)):
        return read_layers(path, _PARTS)
    return dict(river_products(path).layers)


def _name_of(network: Layer | RiverProducts) -> str:
    if isinstance(network, RiverProducts):
        return Path(str(network.report["source"])).stem
    return Path(network).stem if isinstance(network, str | Path) else "river"


def _chosen(name: str, tables: dict[str, gpd.GeoDataFrame], river: int) -> _River:
    """One river of the tables.

    Raises:
        SceneError: There is none at all.
        OptionsError: There is none of that number.
    """
    lines = tables["centrelines"]
    mains = lines[lines["role"] == "main"] if len(lines) else lines
    if len(mains) == 0:
        raise SceneError(f"{name} holds no river, so there is no width to draw. Look at the water with geosam plot.")
    if river not in set(mains["water"]):
        known = ", ".join(str(number) for number in sorted(set(mains["water"]))[:10])
        raise OptionsError(f"{name} has no river {river}. Its rivers are {known}.")
    main = mains[mains["water"] == river].iloc[:1]
    sections = tables["widths"]
    good = (sections["line"] == main["id"].iloc[0]) & ~sections["at_mouth"].astype(bool)
    return _River(
        name,
        tables["water"][tables["water"]["id"] == river],
        lines[lines["water"] == river],
        main,
        sections[good].sort_values("distance_m"),
    )


def _title(river: _River) -> str:
    length = length_text(float(river.main["length_m"].iloc[0]))
    if len(river.sections) == 0:
        return f"{river.name}: {length} of main course, no width measured"
    wetted = float(river.sections["wetted_m"].mean())
    return f"{river.name}: {length} of main course, {length_text(wetted)} wide on average"


def _is_tall(shape: tuple[float, float]) -> bool:
    return shape[0] > _TALL * shape[1]


def _page(shape: tuple[float, float]) -> tuple[Picture, Axes, Axes]:
    """A figure with room for the map, and for the chart below it or, of a tall map, beside it."""
    height, width = shape
    if _is_tall(shape):
        across = 7.5 * width / height + 1.6
        figure = Picture(figsize=(across + 6.5, 9.0), layout="constrained")
        ((left, right),) = figure.subfigures(1, 2, squeeze=False, width_ratios=(across, 6.5))
        # The chart is no higher than it has to be.
        on_chart = right.add_subplot(right.add_gridspec(3, 1, height_ratios=(1, 2.4, 1))[1])
        return figure, left.add_subplot(), on_chart
    high = min(7.6 * height / width, 8.0) + 0.7
    figure = Picture(figsize=(9.0, high + 3.2), layout="constrained")
    on_map, on_chart = figure.subplots(2, 1, height_ratios=(high, 2.9))
    return figure, on_map, on_chart


def _draw_map(canvas: Canvas, river: _River) -> None:
    water = shapes(canvas.ground, river.water)
    draw_shapes(canvas, water.geometry.values, face=RIVER, edge="#5b8db8", width=0.6, alpha=0.18)
    lines = shapes(canvas.ground, river.lines)
    _draw_lines(canvas, lines[lines["role"] != "main"], "#666666", 0.8)
    sections = shapes(canvas.ground, river.sections)
    drawn = LineCollection(_vertices(sections), cmap="viridis", linewidths=1.1, alpha=0.95, zorder=2.5)
    unit, factor = _width_unit(river)
    drawn.set_array(river.sections["wetted_m"].to_numpy(float) / factor)
    canvas.axes.add_collection(drawn, autolim=False)
    _draw_lines(canvas, lines[lines["role"] == "main"], "#111111", 1.3)
    if len(sections):
        canvas.axes.figure.colorbar(
            drawn, ax=canvas.axes, label=f"wetted width in {unit}", shrink=0.8, aspect=28, pad=0.02
        )
    others = len(lines) - 1
    handles = [Line2D([], [], color="#111111", linewidth=1.3, label="main course, with its distances")]
    if others:
        handles.append(Line2D([], [], color="#666666", linewidth=0.8, label=counted(others, "other channel")))
    canvas.legend([*handles], columns=1 if _is_tall(seen(canvas.ground)) else 3)


def _draw_lines(canvas: Canvas, lines: gpd.GeoDataFrame, colour: str, thick: float) -> None:
    canvas.axes.add_collection(
        LineCollection(_vertices(lines), colors=colour, linewidths=thick, zorder=3, capstyle="round"), autolim=False
    )


def _vertices(lines: gpd.GeoDataFrame) -> list[Any]:
    return [shapely.get_coordinates(part) for line in lines.geometry for part in shapely.get_parts(line)]


def _draw_chart(axes: Axes, river: _River, *, tall: bool) -> None:
    unit, factor = _unit(river)
    at = river.sections["distance_m"].to_numpy(float) / factor
    across, width_factor = _width_unit(river)
    wetted, total = (river.sections[name].to_numpy(float) / width_factor for name in ("wetted_m", "total_m"))
    # A gap without cross-sections (mouths, the edge of the scene) must not be bridged by a straight line.
    gaps = np.flatnonzero(np.diff(at) > 3.5 * np.median(np.diff(at))) + 1 if len(at) > 2 else np.empty(0, int)
    at, wetted, total = (np.insert(some, gaps, np.nan) for some in (at, wetted, total))
    axes.fill_between(at, wetted, total, color=_ISLANDS, alpha=0.6, linewidth=0)
    axes.plot(at, wetted, color=_WETTED, linewidth=1.4)
    handles: list[Any] = [Line2D([], [], color=_WETTED, label="wetted width, all channels")]
    if np.nanmax(total - wetted, initial=0.0) > 0:
        handles.append(Patch(color=_ISLANDS, alpha=0.6, label="islands: total width is the upper edge"))
    if np.isfinite(wetted).any():
        mean = float(np.nanmean(wetted))
        axes.axhline(mean, color="#444444", linewidth=0.9, linestyle="--")
        text = f"mean {length_text(mean * width_factor)}"
        handles.append(Line2D([], [], color="#444444", linestyle="--", label=text))
    length = float(river.main["length_m"].iloc[0]) / factor
    axes.set(xlabel=f"distance along the main course in {unit}", ylabel=f"width in {across}", xlim=(0, length))
    axes.set_ylim(0, max(1e-6, float(np.nanmax(total, initial=0.0))) * 1.08)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=1 if tall else 3,
        frameon=False,
        borderaxespad=0.2,
        columnspacing=1.2,
    )


def _unit(river: _River) -> tuple[str, float]:
    """Of distances along the river."""
    return _unit_of(float(river.main["length_m"].iloc[0]))


def _width_unit(river: _River) -> tuple[str, float]:
    """Of widths, which the map and the chart share."""
    return _unit_of(float(np.nanmax(river.sections["total_m"].to_numpy(float), initial=0.0)))


def _unit_of(most_m: float) -> tuple[str, float]:
    """Name of the unit that suits lengths up to so many metres, and its metres."""
    return ("km", 1000.0) if most_m >= 2000 else ("m", 1.0)


def _draw_marks(canvas: Canvas, river: _River, chart: Axes) -> None:
    """The chart's distances on the map, so that one can be found in the other."""
    unit, factor = _unit(river)
    line = shapes(canvas.ground, river.main).geometry.iloc[0]
    length = float(river.main["length_m"].iloc[0]) / factor
    for tick in [tick for tick in chart.get_xticks() if -1e-9 <= tick <= length]:
        at = shapely.line_interpolate_point(line, tick / length, normalized=True)
        canvas.axes.plot(at.x, at.y, "o", color="white", markeredgecolor="#111111", markersize=5, zorder=4)
        canvas.axes.annotate(
            f"{tick:g} {unit}", (at.x, at.y), xytext=(5, 5), textcoords="offset points", fontsize=8, zorder=5,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
        )  # fmt: skip

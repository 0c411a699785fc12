"""Marks on a map: filled water, points, and what the legend says of them."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import shapely
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from geosam.plot.canvas import Canvas
from geosam.plot.layers import Layer, is_raster, patch, shapes, water
from geosam.plot.sheet import Ground
from geosam.prompts import DRY, WATER

# Told apart without seeing red and green (after Wong 2011, doi:10.1038/nmeth.1618).
RIVER, BANK = "#1f9bff", "#ffffff"
AGREED, INVENTED, MISSED = "#0072b2", "#e69f00", "#d6278f"
WATER_POINT, DRY_POINT = "#1f9bff", "#e69f00"


def draw_water(canvas: Canvas, layer: Layer, name: str) -> Artist:
    """Water, filled and outlined, islands left open. Returns its legend entry."""
    if is_raster(layer):
        return fill(canvas, water(canvas.ground, layer), RIVER, name, alpha=0.45)
    frame = shapes(canvas.ground, layer)
    draw_shapes(canvas, frame.geometry.values, face=RIVER, edge=BANK, width=0.9, alpha=0.4)
    pixels, whole = _seen(canvas.ground, frame), shapely.area(frame.geometry.values)
    # The area that the layer says is that on the ground; a part of a polygon has its part of it.
    square_metres = (
        frame["area_m2"].to_numpy(float) * np.divide(pixels, whole, out=np.zeros_like(whole), where=whole > 0)
        if "area_m2" in frame
        else pixels * canvas.ground.pixel_area_m2
    )
    text = area_text(float(square_metres.sum())) if canvas.ground.has_crs else f"{pixels.sum():,.0f} px"
    shown = counted(int((pixels > 0).sum()), "polygon")
    return Patch(facecolor=RIVER, edgecolor="#888888", alpha=0.6, label=f"{name}: {text} in {shown}")


def _seen(ground: Ground, frame: gpd.GeoDataFrame) -> NDArray[np.float64]:
    """Area of each polygon inside the picture in pixels, shape (n,)."""
    height, width = ground.shape
    polygons = np.array(frame.geometry.values, object)
    low, high = np.split(shapely.bounds(polygons), 2, axis=1)
    beyond = ~((low >= 0) & (high <= (width, height))).all(axis=1) & ~shapely.is_empty(polygons)
    # Only those that leave the picture are cut, and mended before: clipping asks for rings that do not cross.
    polygons[beyond] = shapely.intersection(shapely.make_valid(polygons[beyond]), shapely.box(0, 0, width, height))
    return np.asarray(shapely.area(polygons), np.float64)


def draw_shapes(
    canvas: Canvas, geometries: NDArray[np.object_], *, face: str, edge: str, width: float, alpha: float
) -> None:
    """Polygons in pixels of the map, filled and outlined."""
    # A vertex every half pixel is all a picture can show, and rivers of large scenes have millions.
    seen = shapely.simplify(np.asarray(geometries, object), 0.5, preserve_topology=True)
    for shape in seen[~shapely.is_empty(seen) & (shapely.get_dimensions(seen) == 2)]:
        canvas.axes.add_patch(patch(shape, face=face, edge=edge, width=width, alpha=alpha))


def fill(
    canvas: Canvas, where: NDArray[np.bool_], colour: str, name: str, *, alpha: float, like: float | None = None
) -> Artist:
    """Colour the pixels of a mask, bool (h, w). Returns its legend entry, its area in the unit that suits ``like``."""
    canvas.show(coloured(where, colour, alpha), interpolation="nearest")
    area = float(where.sum()) * canvas.ground.pixel_area_m2
    text = area_text(area, like) if canvas.ground.has_crs else f"{where.sum():,} px"
    return Patch(facecolor=colour, alpha=alpha, label=f"{name}: {text}")


def coloured(where: NDArray[np.bool_], colour: str, alpha: float) -> NDArray[np.float32]:
    """A mask as a picture, float32 (h, w, 4), transparent where it is False."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    image = np.zeros((*where.shape, 4), np.float32)
    image[where] = (red, green, blue, alpha)
    return image


def scatter(axes: Axes, xy: NDArray[np.floating], labels: NDArray[np.int64]) -> list[Artist]:
    """Water and dry points; padding is left out. Returns their legend entries."""
    handles: list[Artist] = []
    for label, name, colour, marker in ((WATER, "water", WATER_POINT, "o"), (DRY, "dry", DRY_POINT, "X")):
        chosen = xy[labels == label]
        axes.scatter(
            chosen[:, 0], chosen[:, 1], c=colour, marker=marker, s=36, edgecolors="white", linewidths=0.8, zorder=3
        )
        text = f"{name}: {counted(len(chosen), 'point')}"
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle="", markeredgecolor="white", label=text))
    return handles


def counted(count: int, what: str) -> str:
    """``1 polygon``, ``2,000 polygons``."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def area_text(square_metres: float, like: float | None = None) -> str:
    """An area in m², ha or km²: in the unit that suits it, or that suits ``like``, so that areas can be compared."""
    large = square_metres if like is None else like
    if large >= 1e6:
        return f"{_three(square_metres / 1e6)} km²"
    return f"{_three(square_metres / 1e4)} ha" if large >= 1e4 else f"{square_metres:,.0f} m²"


def length_text(metres: float) -> str:
    """A length in m or km."""
    return f"{_three(metres / 1000)} km" if metres >= 1000 else f"{_three(metres)} m"


def _three(value: float) -> str:
    """Three figures, never as a power of ten."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}" if abs(value) < 0.1 else f"{value:.3g}"

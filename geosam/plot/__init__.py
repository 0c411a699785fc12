"""Pictures of a scene and what was found in it: one call each, and none reads more of the scene than it shows.

Every function takes a scene (a :class:`~geosam.scene.Scene` or a path), returns a matplotlib figure that shows
itself in a notebook, and leaves pyplot alone; :func:`width` and :func:`change` take vector layers, and a scene to draw
them on if there is one. :func:`save` writes it::

    save(overlay("ortho.tif", "rivers.geojson"), "overlay.png")
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from geosam.plot.canvas import MAX_SIDE_PX, Picture, canvases, look, save
from geosam.plot.courses import migration
from geosam.plot.drawing import (
    AGREED,
    BANK,
    INVENTED,
    MISSED,
    RIVER,
    coloured,
    draw_water,
    fill,
    scatter,
)
from geosam.plot.erosion import change
from geosam.plot.layers import Layer, shapes, values_of, water
from geosam.plot.network import width
from geosam.prompts import WATER, Prompts
from geosam.prompts.files import LABELS, plain
from geosam.scene import Scene

__all__ = [
    "Picture",
    "before_after",
    "change",
    "error",
    "migration",
    "overlay",
    "probability",
    "prompts",
    "save",
    "tile",
    "width",
]


def overlay(scene: Scene | str | Path, rivers: Layer | None = None, *, max_side_px: int = MAX_SIDE_PX) -> Picture:
    """Rivers over the ortho: filled, outlined, islands left open.

    Args:
        scene: The ortho.
        rivers: Polygons in any CRS, a vector file, a mask raster, or the result of a run; None draws the ortho alone.
        max_side_px: Longest side that is read, in pixels.
    """
    small = look(scene, max_side_px)
    (canvas,) = canvases(small, [small.name])
    if rivers is not None:
        canvas.legend([draw_water(canvas, rivers, "rivers")])
    return canvas.figure


def before_after(
    scene: Scene | str | Path,
    before: Layer,
    after: Layer,
    *,
    titles: tuple[str, str] = ("first guess", "result"),
    max_side_px: int = MAX_SIDE_PX,
) -> Picture:
    """Two results over the same ortho, side by side: the coarse mask and the rivers, or two models.

    Args:
        scene: The ortho.
        before: Left: polygons, a vector file, a mask raster, or a coarse mask.
        after: Right: the same kinds.
        titles: Title of each side.
        max_side_px: Longest side that is read, in pixels.
    """
    small = look(scene, max_side_px)
    for canvas, layer in zip(canvases(small, list(titles)), (before, after), strict=True):
        canvas.legend([draw_water(canvas, layer, "water")])
    return canvas.figure


def probability(scene: Scene | str | Path, raster: str | Path, *, max_side_px: int = MAX_SIDE_PX) -> Picture:
    """How sure the model is, from 0 (dry) to 1 (water); what it did not look at stays uncoloured.

    Args:
        scene: The ortho.
        raster: Probability of water, from ``geosam segment --probability``.
        max_side_px: Longest side that is read, in pixels.
    """
    small = look(scene, max_side_px)
    (canvas,) = canvases(small, [small.name], grey=True, bar=True)
    values = values_of(small, raster)
    shown = np.ma.masked_invalid(values)
    # Pale where it is dry: a dark veil over the whole ortho would hide it.
    opacity = np.where(np.isfinite(values), 0.25 + 0.65 * np.nan_to_num(values), 0.0)
    image = canvas.show(shown, cmap="YlGnBu", vmin=0, vmax=1, alpha=opacity)
    canvas.bar(image, "probability of water")
    return canvas.figure


def error(scene: Scene | str | Path, rivers: Layer, truth: Layer, *, max_side_px: int = MAX_SIDE_PX) -> Picture:
    """Where a result agrees with a reference, where it invents water, and where it misses some.

    Areas and IoU in the legend are counted on the picture's own pixels, so they are approximate for large scenes;
    ``geosam evaluate`` counts every pixel.

    Args:
        scene: The ortho.
        rivers: The result: polygons in any CRS, a vector file, or a mask raster.
        truth: The reference: the same kinds.
        max_side_px: Longest side that is read, in pixels.
    """
    small = look(scene, max_side_px)
    (canvas,) = canvases(small, [small.name], grey=True)
    found, true = water(small, rivers), water(small, truth)
    parts = {
        "found and true": (found & true, AGREED),
        "found, not true": (found & ~true, INVENTED),
        "true, not found": (true & ~found, MISSED),
    }
    large = max(int(where.sum()) for where, _ in parts.values()) * small.pixel_area_m2
    canvas.legend(
        [fill(canvas, where, colour, name, alpha=0.75, like=large) for name, (where, colour) in parts.items()]
    )
    canvas.title(f"{small.name}: IoU {_iou(found, true):.3f}")
    return canvas.figure


def prompts(scene: Scene | str | Path, points: Layer, *, max_side_px: int = MAX_SIDE_PX) -> Picture:
    """Control points over the whole ortho.

    Args:
        scene: The ortho.
        points: Points with a column ``label`` (water or dry, or 1 and 0), from ``geosam prompts``.
        max_side_px: Longest side that is read, in pixels.
    """
    small = look(scene, max_side_px)
    (canvas,) = canvases(small, [small.name])
    frame = shapes(small, points)
    frame = frame[frame.geom_type == "Point"]
    said = frame["label"] if "label" in frame else np.full(len(frame), WATER)
    labels = np.array([LABELS.get(plain(value), WATER) for value in said], np.int64)
    canvas.legend(scatter(canvas.axes, shapely.get_coordinates(frame.geometry.values), labels))
    return canvas.figure


def tile(
    image: NDArray[np.uint8],
    given: Prompts,
    *,
    water: NDArray[np.bool_] | None = None,
    title: str = "",
) -> Picture:
    """The prompts of one tile, as the model is given them.

    Args:
        image: The tile, uint8 (h, w, 3).
        given: Its prompts; points as (x, y) pixels of the tile.
        water: Coarse or found water, bool (h, w), drawn translucent below the points.
        title: Title of the picture.
    """
    figure = Picture(figsize=(6, 6.4), layout="constrained")
    axes = figure.subplots()
    height, width = image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0))
    axes.set_title(title)
    axes.set_axis_off()
    if water is not None:
        axes.imshow(coloured(water, RIVER, 0.35), extent=(0, width, height, 0))
    for x0, y0, x1, y1 in given.boxes if given.boxes is not None else ():
        axes.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=BANK, linewidth=1.2)
    handles = scatter(axes, given.points.reshape(-1, 2), given.labels.reshape(-1))
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, -0.01), ncols=2, frameon=False, borderaxespad=0)
    return figure


def _iou(found: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    union = int((found | true).sum())
    return int((found & true).sum()) / union if union else 1.0

"""A photograph with its water, and beside it how near everything in it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geosam.plot.canvas import MAX_SIDE_PX, Picture, canvases, look
from geosam.plot.drawing import draw_water
from geosam.plot.layers import Layer
from geosam.scene import Scene


def depth(
    scene: Scene | str | Path,
    nearness: NDArray[np.float32],
    rivers: Layer | None = None,
    *,
    max_side_px: int = MAX_SIDE_PX,
) -> Picture:
    """The photograph with its water, and relative depth, side by side.

    Args:
        scene: The photograph.
        nearness: Of the whole photograph at any resolution, 0 (far) to 1 (near), float (h, w), as
            :func:`geosam.models.depth.relative_depth` gives it.
        rivers: Water polygons, a vector file, or a mask; None: the photograph alone.
        max_side_px: Longest side that is read, in pixels.
    """
    small = look(scene, max_side_px)
    photo, deep = canvases(small, [small.name, "relative depth"])
    if rivers is not None:
        photo.legend([draw_water(photo, rivers, "water")])
    image = deep.show(nearness, cmap="magma", vmin=0, vmax=1)
    bar = deep.figure.colorbar(image, ax=deep.axes, label="relative depth of this photograph, without unit", shrink=0.7)
    bar.set_ticks([0, 1], labels=["far", "near"])
    return photo.figure

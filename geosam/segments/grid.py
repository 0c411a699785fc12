"""Where a tile is clicked: a grid of points over all of it, and over zoomed crops of it for small things.

Source: the automatic mask generation of Kirillov et al. (2023), Segment Anything, appendix B.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

CROP_OVERLAP = 512 / 1500
"""Overlap of the two crops a side of the first layer, as a share of the tile; it is halved layer by layer."""


@dataclass(frozen=True)
class View:
    """A square of a tile, looked at by itself."""

    left: int
    """First column in the tile, pixels."""
    top: int
    """First row in the tile, pixels."""
    height: int
    """Pixels of the tile."""
    width: int
    """Pixels of the tile."""
    layer: int = 0
    """0: the whole tile; n: one of 2^n crops a side."""


def views(height: int, width: int, layers: int) -> list[View]:
    """The tile and its crops, each layer's row by row; crops of one layer are of one size.

    Args:
        height: Of the tile, pixels.
        width: Of the tile, pixels.
        layers: Layers of crops.
    """
    found = [View(0, 0, height, width)]
    for layer in range(1, layers + 1):
        sides = [_crop(length, layer, min(height, width)) for length in (height, width)]
        starts = [
            [i * (length - side) // (2**layer - 1) for i in range(2**layer)]
            for length, side in zip((height, width), sides, strict=True)
        ]
        found += [View(left, top, sides[0], sides[1], layer) for top, left in product(*starts)]
    return found


def _crop(length: int, layer: int, short: int) -> int:
    """Side of a crop: 2^layer of them cover ``length`` with the layer's overlap."""
    count = int(2**layer)
    overlap = int(CROP_OVERLAP * short * 2 / count)
    return math.ceil((overlap * (count - 1) + length) / count)


def grid(side_px: int, a_side: int) -> NDArray[np.float32]:
    """Points spread evenly over a square, row by row.

    Args:
        side_px: Side of the square, pixels.
        a_side: Points a side.

    Returns:
        float32 (a_side^2, 2) as (x, y); (0, 0) is the outer corner of the first pixel. They are half a pixel right
        of and below the middles of the grid's cells, as those of Segment Anything's own generator are.
    """
    places = (np.arange(a_side, dtype=np.float32) + np.float32(0.5)) * np.float32(side_px / a_side) + np.float32(0.5)
    x, y = np.meshgrid(places, places)
    return np.stack([x.ravel(), y.ravel()], axis=1)

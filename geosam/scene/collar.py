"""Borders without data that a file does not declare: black wedges beside a turned orthoimage."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from rasterio.windows import Window

from geosam.scene.header import Reader

if TYPE_CHECKING:
    from geosam.scene.ortho import Scene

CORNER_PX = 32
"""Side of the squares that are looked at."""


def with_nodata(reader: Reader, value: float) -> Reader:
    """The same pixels, of which those of a value are no data in every band."""
    source = cast(Any, reader)
    return cast(Reader, replace(source, header=replace(reader.header, nodata=(value,) * reader.header.count)))


def black_corners(scene: Scene) -> tuple[str, ...]:
    """A word where a corner is exactly black and valid: a collar looks like dark water.

    Only a word, since dark water under a strong stretch is exactly black as well.
    """
    height, width = (min(CORNER_PX, side) for side in scene.shape)
    corners = {
        f"{down} {across}": scene.read(Window(left, top, width, height), ("red", "green", "blue"))
        for down, top in (("top", 0), ("bottom", scene.shape[0] - height))
        for across, left in (("left", 0), ("right", scene.shape[1] - width))
    }
    black = [name for name, block in corners.items() if block.valid.all() and not np.any(block.values)]
    if not black:
        return ()
    return (
        f"{scene.source} is exactly black in its {' and '.join(black)} corner, which counts as image. "
        "If it is a border without data, say --nodata 0.",
    )

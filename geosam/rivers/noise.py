"""Water that is none: specks without number, in which looking for rivers would take hours and find nothing."""

from __future__ import annotations

import shapely

from geosam.errors import SceneError
from geosam.rivers.source import Source

_NOISE_PX = 30.0
"""Outlines of noise are shorter than so many pixels each, on average, and ..."""
_NOISE_WIDTH_PX = 2.0
"""... their water is narrower than so many. A creek of one pixel is as narrow, and its outline is long."""


def refuse_noise(source: Source) -> None:
    """Refuse water whose outlines are those of noise.

    Raises:
        SceneError: They are.
    """
    if len(source.polygons) == 0:
        return
    outlines = shapely.get_rings(source.polygons)
    length = float(shapely.length(outlines).sum())
    width_px = 2 * float(shapely.area(source.polygons).sum()) / length / source.pixel_m
    if width_px < _NOISE_WIDTH_PX and length < _NOISE_PX * source.pixel_m * len(outlines):
        raise SceneError(
            f"{source.name} looks like noise: {len(outlines):,} outlines around water that is {width_px:.1f} pixels "
            "wide on average. Clean the mask, or leave specks out with --min-area."
        )

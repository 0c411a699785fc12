"""Outlines and areas of segments, which may lie one over another, by the tracing of rasters without overlaps.

Masks are put one below the other on a sheet, which is traced strip by strip as a scene is; then each ring goes back to
where its mask came from. A sheet is as wide as its widest mask, and its rows are made when they are traced.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geosam.segments.runs import Bools, Longs, Runs
from geosam.vector import Strip
from geosam.vector.corners import find_boundary
from geosam.vector.ground import Ground
from geosam.vector.ordered import Crew
from geosam.vector.rings import Rings, trace

STRIP_PX = 1 << 22
"""Pixels of a sheet that are made at once."""
SHEET_PX = 1 << 26
"""Pixels of a sheet, unless one mask alone is larger."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outlines:
    """What is drawn of n masks."""

    shapes: NDArray[np.object_]
    """MultiPolygons in the scene's CRS, shape (n,); holes are holes, and every component is a part."""
    area_m2: Floats
    perimeter_m: Floats
    """Banks of holes included."""


def outlines(masks: Sequence[Runs], ground: Ground, crew: Crew) -> Outlines:
    """Outlines of masks, which may overlap.

    Args:
        masks: None of them empty, in pixels of the scene.
        ground: Of the scene.
        crew: Who traces and measures.
    """
    count = len(masks)
    shapes = np.empty(count, object)
    area, perimeter = np.zeros(count), np.zeros(count)
    for which in _sheets(masks):
        rings, owner = _traced([masks[i] for i in which], crew)
        sizes, lengths = ground.measure(rings, crew)
        sign = np.where(rings.outer(), 1.0, -1.0)
        area[which] = np.bincount(owner[rings.body], sign * sizes, len(which))
        perimeter[which] = np.bincount(owner[rings.body], lengths, len(which))
        polygons = rings.polygons(np.arange(len(owner)), ground.world)
        if ground.affine.determinant > 0:  # As in geosam.vector: outer rings counter-clockwise in the CRS.
            polygons = shapely.reverse(polygons)
        order = np.argsort(owner, kind="stable")
        shapes[which] = shapely.multipolygons(polygons[order], indices=owner[order])
    return Outlines(shapes, area.round(6), perimeter.round(6))


def _sheets(masks: Sequence[Runs]) -> Iterator[Longs]:
    """Masks of similar width together, each sheet within :data:`SHEET_PX`."""
    if not masks:
        return
    boxes = np.array([mask.box for mask in masks], np.int64)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1] + 1
    begun: list[int] = []
    rows = 0
    for i in np.argsort(-width, kind="stable").tolist():
        # The first mask of a sheet is its widest; one half as wide would waste half of its rows.
        full = begun and ((rows + height[i]) * width[begun[0]] > SHEET_PX or 2 * width[i] < width[begun[0]])
        if full:
            yield np.array(begun)
            begun, rows = [], 0
        begun.append(i)
        rows += int(height[i])
    yield np.array(begun)


def _traced(masks: Sequence[Runs], crew: Crew) -> tuple[Rings, Longs]:
    """Rings of a sheet's masks in pixels of the scene, and of each body whose it is."""
    boxes = np.array([mask.box for mask in masks], np.int64)
    tops = np.concatenate([[0], np.cumsum(boxes[:, 3] - boxes[:, 1] + 1)])
    width = int((boxes[:, 2] - boxes[:, 0]).max())
    rings = trace(find_boundary(_strips(masks, boxes, tops, width), width, crew), crew)
    first = rings.xy[rings.offsets[rings.first[:-1]], 1]
    owner: Longs = np.searchsorted(tops, first, "right") - 1
    shift = np.stack([boxes[:, 0], boxes[:, 1] - tops[:-1]], axis=1)[owner[rings.body]]
    moved: Any = rings.xy + np.repeat(shift, np.diff(rings.offsets), axis=0)
    return Rings(moved.astype(np.int32), rings.offsets, rings.body), owner


def _strips(masks: Sequence[Runs], boxes: Longs, tops: Longs, width: int) -> Iterator[Strip]:
    size = [len(mask.begin) for mask in masks]
    left, top = (np.repeat(values, size) for values in (boxes[:, 0], tops[:-1] - boxes[:, 1]))
    row = np.concatenate([mask.row for mask in masks]) + top
    start = np.concatenate([mask.start for mask in masks]) - left
    stop = np.concatenate([mask.stop for mask in masks]) - left
    rows = max(STRIP_PX // width, 1)
    for first in range(0, int(tops[-1]), rows):
        low, high = np.searchsorted(row, (first, first + rows))
        height = min(rows, int(tops[-1]) - first)
        yield Strip(first, _drawn(row[low:high] - first, start[low:high], stop[low:high], (height, width)))


def _drawn(row: Longs, start: Longs, stop: Longs, shape: tuple[int, int]) -> Bools:
    steps = np.zeros((shape[0], shape[1] + 1), np.int8)
    steps[row, start] = 1
    steps[row, stop] = -1
    return np.cumsum(steps[:, :-1], axis=1, dtype=np.int8).view(np.bool_)

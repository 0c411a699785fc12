"""From the boundary to rings of whole water bodies, in whole pixels, without a loop over rings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from geosam.vector.corners import Bools, Boundary, Floats, Ints, Longs, ranges
from geosam.vector.ordered import Crew
from geosam.vector.paths import Paths, Walk, joined, paths_of, walk

BATCH_CORNERS = 500_000
"""Corners walked along, or vertices copied, in one go, about 150 bytes each while it lasts."""


@dataclass(frozen=True)
class Rings:
    """Closed rings of whole water bodies; the first ring of a body is its outer one, the others are holes."""

    xy: Ints
    """Vertices, (column, row) of pixel corners, every ring closed, shape (n, 2)."""
    offsets: Longs
    """Where each ring starts in ``xy``, and its end, shape (rings + 1,)."""
    body: Longs
    """Water body of each ring, ascending, shape (rings,)."""

    def outer(self) -> Bools:
        """True for the outer ring of each body, shape (rings,)."""
        outer: Bools = np.diff(self.body, prepend=-1) != 0
        return outer

    @cached_property
    def first(self) -> Longs:
        """First ring of each body, and the number of rings, shape (bodies + 1,)."""
        return np.append(np.flatnonzero(self.outer()), len(self.body))

    def keep(self, kept: Bools) -> Rings:
        """Only these rings."""
        if kept.all():
            return self
        lengths = np.diff(self.offsets)
        offsets = np.concatenate([[0], np.cumsum(lengths[kept])])
        return Rings(self.xy[np.repeat(kept, lengths)], offsets, self.body[kept])

    def polygons(self, bodies: Longs, change: Callable[[Any], Floats]) -> npt.NDArray[np.object_]:
        """One shapely Polygon a body, shape (len(bodies),).

        Args:
            bodies: Which bodies, by their place among the outer rings.
            change: From (column, row) to the polygons' (x, y), shape (n, 2).
        """
        first, after = self.first[bodies], self.first[bodies + 1]
        ring, _ = ranges(first, after)
        size = self.offsets[ring + 1] - self.offsets[ring]
        xy = np.empty((int(size.sum()), 2))
        for place, part in gathered(self.xy, self.offsets[ring], size):
            xy[place] = change(part)
        offsets = (np.append(0, np.cumsum(size)), np.append(0, np.cumsum(after - first)))
        polygons: npt.NDArray[np.object_] = shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy, offsets)
        return polygons


def trace(boundary: Boundary, crew: Crew) -> Rings:
    """Rings of all water bodies, in (column, row).

    Water lies on the left when the raster is looked at with row 0 at the top. Rings begin with their
    first edge in raster order; memory is 8 bytes a vertex beside some batches and the paths.
    """
    if not boundary.edges:
        return Rings(np.zeros((0, 2), np.int32), np.zeros(1, np.int64), np.zeros(0, np.int64))
    xy, bands, filled = np.empty((2 * boundary.edges, 2), np.int32), [], 0
    for paths in crew.map(lambda band: paths_of(boundary.edges_of(band)), boundary.bands(BATCH_CORNERS // 2)):
        xy[filled : filled + len(paths.xy)] = paths.xy
        bands.append(replace(paths, xy=paths.xy[:0], start=paths.start + filled))
        filled += len(paths.xy)
    return _rings(xy, bands)


def _rings(xy: Ints, bands: list[Paths]) -> Rings:
    steps = walk(joined(bands))
    start, size, body = (np.concatenate([getattr(band, name) for band in bands]) for name in ("start", "size", "body"))
    body = body[steps.first].astype(np.int64)
    # The ring that holds a body's first edge is its outer one, and rings come by their first edge.
    ring = np.argsort(body, kind="stable")
    return Rings(*_closed(xy, start, size, steps, ring), body[ring])


def _closed(xy: Ints, start: Longs, size: Longs, steps: Walk, ring: Longs) -> tuple[Ints, Longs]:
    """Put the paths of every ring together and close it; rings in the order of ``ring``."""
    place, _ = ranges(steps.start[ring], (steps.start + steps.size)[ring])
    path, ends = steps.order[place], np.cumsum(steps.size[ring])
    # The closing vertex, the ring's first one again, is a path of one vertex.
    begin = np.insert(start[path], ends, start[steps.first[ring]])
    length = np.insert(size[path], ends, 1)
    offsets = np.concatenate([[0], np.cumsum(length)[ends + np.arange(len(ends))]])
    out = np.empty((int(offsets[-1]), 2), np.int32)
    for where, part in gathered(xy, begin, length):
        out[where] = part
    return out, offsets


def gathered(xy: Ints, start: Longs, size: Longs) -> Iterator[tuple[slice, Ints]]:
    """Vertices of several ranges one after the other, some at a time, and where they belong in the whole."""
    nth, which = ranges(np.zeros_like(size), -(-size // BATCH_CORNERS))  # a long range in parts
    start, size = start[which] + nth * BATCH_CORNERS, np.minimum(size[which] - nth * BATCH_CORNERS, BATCH_CORNERS)
    stops = np.cumsum(size)
    cuts = np.unique(np.searchsorted(stops, np.arange(0, int(stops[-1]), BATCH_CORNERS), "right"))
    for low, high in zip(cuts, [*cuts[1:], len(stops)], strict=True):
        at, _ = ranges(start[low:high], (start + size)[low:high])
        yield slice(int(stops[low] - size[low]), int(stops[high - 1])), xy[at]

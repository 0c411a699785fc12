"""Rasterises polygons by the pixel-centre rule, any window alone, with the same result as the whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray


@dataclass(frozen=True)
class Edges:
    """Polygon edges in pixel coordinates, horizontal ones left out.

    Crossings are computed in scene coordinates, whatever the window, so a window of the scene
    equals the same window of the whole to the bit; GDAL's own rasteriser is the oracle in the tests.
    """

    top: NDArray[np.float64]
    """Upper end, shape (n, 2), x y."""
    bottom: NDArray[np.float64]
    """Lower end, shape (n, 2), x y; larger y than ``top``."""

    @classmethod
    def of(cls, geometry: shapely.Geometry) -> Edges:
        """Edges of a valid polygon or multipolygon (holes included), in pixel coordinates."""
        rings = shapely.get_rings(shapely.get_parts(geometry)) if not shapely.is_empty(geometry) else []
        pieces = [shapely.get_coordinates(ring) for ring in rings]
        start = np.concatenate([p[:-1] for p in pieces]) if pieces else np.zeros((0, 2))
        end = np.concatenate([p[1:] for p in pieces]) if pieces else np.zeros((0, 2))
        down = (start[:, 1] < end[:, 1])[:, None]
        top, bottom = np.where(down, start, end), np.where(down, end, start)
        keep = top[:, 1] != bottom[:, 1]
        return cls(top[keep], bottom[keep])

    def fill(self, row: int, col: int, height: int, width: int) -> NDArray[np.bool_]:
        """True where the pixel's centre lies inside, shape (height, width); the window may lie anywhere."""
        first = np.clip(np.ceil(self.top[:, 1] - 0.5), row, row + height).astype(np.int64)
        last = np.clip(np.ceil(self.bottom[:, 1] - 0.5), row, row + height).astype(np.int64)
        near = (last > first) & (np.minimum(self.top[:, 0], self.bottom[:, 0]) < col + width)
        if not near.any():
            return np.zeros((height, width), bool)
        count = (last - first)[near]
        edge = np.repeat(np.flatnonzero(near), count)
        y = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
        (x0, y0), (x1, y1) = self.top[edge].T, self.bottom[edge].T
        x = (y + 0.5 - y0) * ((x1 - x0) / (y1 - y0)) + x0
        c = np.clip(np.ceil(x - 0.5), col, col + width).astype(np.int64) - col
        turns = np.bincount((y - row) * (width + 1) + c, minlength=height * (width + 1))
        turns = turns.reshape(height, width + 1)[:, :width].astype(np.uint8)
        return (np.cumsum(turns, axis=1, dtype=np.uint8) & 1).astype(bool)

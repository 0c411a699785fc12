"""Fields: parcels with crops and the lines of plough and mower."""

from __future__ import annotations

import numpy as np

from geosam.synth.ground import Ground
from geosam.synth.noise import F32, lattice, smoothstep
from geosam.synth.style import Colour

_PLOUGHED: Colour = (0.23, 0.19, 0.16, 0.24)
_STRAW: Colour = (0.66, 0.60, 0.42, 0.60)
_KINDS = 1024


class Parcels:
    """A turned grid of parcels over a window's core, each with a crop and lines.

    Args:
        ground: The window.
        forest: Share of forest, shape (h, w); parcels stop there.
        away: Distance to the bank in metres, shape (h, w); parcels keep away.
    """

    def __init__(self, ground: Ground, forest: F32, away: F32) -> None:
        style, s = ground.plan.style, ground.plan.seed
        self._size = max(style.parcel_m / style.gsd_m, 24.0)
        u, v = self._grid(ground)
        iv = np.floor(v)
        # Each row of parcels is moved on a little: corners of four are rare in the field.
        u += np.float32(0.37) * iv
        iu = np.floor(u)
        self._key = (iu.astype(np.int32) * 73 + iv.astype(np.int32) * 179) & (_KINDS - 1)
        table = np.random.default_rng([s & 0xFFFFFFFF, 61])
        crops = np.array([*style.grass[:2], *style.soil[:2], _PLOUGHED, _STRAW])
        self._tint = (crops[table.integers(0, 6, _KINDS)] * table.uniform(0.8, 1.2, (_KINDS, 1))).astype(np.float32)
        used = (table.random(_KINDS) < style.fields).astype(np.float32)[self._key]
        edge = np.minimum(np.minimum(u - iu, 1 - u + iu), 0.6 * np.minimum(v - iv, 1 - v + iv)) * np.float32(self._size)
        keep = ground.near_m(10.0)
        self.share: F32 = used * smoothstep(edge, 0.6, 2.2) * (1 - forest) * smoothstep(away, 0.6 * keep, keep)
        strength = table.choice([0.0, 0.05, 0.14], _KINDS, p=[0.3, 0.4, 0.3]).astype(np.float32)[self._key]
        wave = max(style.row_m / style.gsd_m, 2.6)
        self._shade = 1 + np.sin(v * np.float32(0.6 * self._size * 2 * np.pi / wave)) * strength

    def _grid(self, ground: Ground) -> tuple[F32, F32]:
        """Parcel coordinates of the core: turned, and bent a little."""
        area, s = ground.area, ground.plan.seed
        turn = float(lattice(s + 60, np.array([0]), np.array([0]))[0, 0]) * np.pi
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        y = (np.arange(area.height, dtype=np.float32) + area.row)[:, None]
        x = (np.arange(area.width, dtype=np.float32) + area.col)[None, :]
        bend = 6 * ground.patches(s + 61, 200.0, 2)
        return (x * cos + y * sin + bend) / np.float32(self._size), (y * cos - x * sin + bend) / np.float32(
            0.6 * self._size
        )

    def colour(self, band: int) -> F32:
        """Field colour of one band, lines included, shape (h, w)."""
        painted: F32 = self._tint[:, band][self._key] * self._shade
        return painted

"""Cut a scene into overlapping squares of the model's own input size, and weigh them for blending.

Tiles are spread evenly: the last one ends at the border instead of hanging over it, so no tile
is resized and none is padded, except where the whole scene is smaller than a tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geosam.errors import OptionsError


@dataclass(frozen=True)
class Tile:
    """One square of the scene."""

    index: int
    """Position in row-major order; seeds the tile's prompts."""
    row: int
    """Tile row, from the top."""
    col: int
    """Tile column, from the left."""
    window: Window
    """Square of tile_px pixels; hangs over right or bottom only where the scene is smaller than a tile."""


@dataclass(frozen=True)
class TilePlan:
    """Every tile of a scene, and how neighbours share their overlap."""

    shape: tuple[int, int]
    """Scene height and width, pixels."""
    tile_px: int
    """Side of a tile, pixels."""
    overlap_px: int
    """Neighbouring tiles share at least this many pixels."""
    tops: tuple[int, ...]
    """First row of each tile row, rising."""
    lefts: tuple[int, ...]
    """First column of each tile column, rising."""

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def tile(self, row: int, col: int) -> Tile:
        """The tile at a tile row and a tile column."""
        window = Window(self.lefts[col], self.tops[row], self.tile_px, self.tile_px)
        return Tile(row * len(self.lefts) + col, row, col, window)

    def row(self, row: int) -> tuple[Tile, ...]:
        """The tiles of one tile row, from left to right."""
        return tuple(self.tile(row, col) for col in range(len(self.lefts)))

    def rows(self) -> Iterator[tuple[Tile, ...]]:
        """Tile rows from top to bottom."""
        return (self.row(row) for row in range(len(self.tops)))

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """Every tile, row by row."""
        return tuple(tile for row in self.rows() for tile in row)

    def weights(self, tile: Tile) -> NDArray[np.float32]:
        """Blend weights of a tile.

        Returns:
            Weights above zero, shape (tile_px, tile_px). Over all tiles they sum to one (to 1e-6) at
            every pixel of the scene. Products of a row and a column profile, so that no
            normalising array as large as the scene is ever needed.
        """
        return np.outer(*self.profiles(tile))

    def profiles(self, tile: Tile) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The profiles by row and by column, each (tile_px,), whose products are a tile's :meth:`weights`."""
        return self._row_profiles[tile.row], self._col_profiles[tile.col]

    @cached_property
    def _row_profiles(self) -> NDArray[np.float32]:
        return _profiles(self.tops, self.shape[0], self.tile_px)

    @cached_property
    def _col_profiles(self) -> NDArray[np.float32]:
        return _profiles(self.lefts, self.shape[1], self.tile_px)


def plan_tiles(shape: tuple[int, int], tile_px: int, overlap_px: int | None = None) -> TilePlan:
    """The fewest evenly spread tiles that cover a scene with the overlap asked for.

    Args:
        shape: Scene height and width, pixels.
        tile_px: Side of a tile, the model's input size, pixels.
        overlap_px: Pixels that neighbours share at least; None: an eighth of the tile.

    Raises:
        OptionsError: The overlap is negative or not smaller than the tile.
    """
    overlap_px = tile_px // 8 if overlap_px is None else overlap_px
    if not 0 <= overlap_px < tile_px:
        raise OptionsError(
            f"the overlap must be at least 0 and less than the model's tile of {tile_px} px, got {overlap_px} px. "
            f"Give --overlap a smaller number, for example {tile_px // 8}."
        )
    tops, lefts = (_starts(length, tile_px, overlap_px) for length in shape)
    return TilePlan(shape, tile_px, overlap_px, tops, lefts)


def _starts(length: int, tile_px: int, overlap_px: int) -> tuple[int, ...]:
    """First pixels of evenly spread tiles along one axis; integers only, so that every machine agrees."""
    slack = length - tile_px
    if slack <= 0:
        return (0,)
    steps = -(-slack // (tile_px - overlap_px))
    return tuple((2 * i * slack + steps) // (2 * steps) for i in range(steps + 1))


def _profiles(starts: tuple[int, ...], length: int, tile_px: int) -> NDArray[np.float32]:
    """Weights along one axis, shape (tiles, tile_px): raised cosines over the overlaps, summing to one."""
    tapers = np.ones((len(starts), tile_px))
    for i in range(1, len(starts)):
        shared = starts[i - 1] + tile_px - starts[i]
        # A raised cosine, not a straight ramp: a model is at its worst in the last few pixels
        # of its tile, and the cosine gives those next to nothing.
        rise = np.sin(np.pi / 2 * (np.arange(shared) + 0.5) / max(shared, 1)) ** 2
        tapers[i, :shared] *= rise
        tapers[i - 1, tile_px - shared :] *= rise[::-1]
    total = np.zeros(max(length, tile_px))
    for start, taper in zip(starts, tapers, strict=True):
        total[start : start + tile_px] += taper
    for start, taper in zip(starts, tapers, strict=True):
        taper /= total[start : start + tile_px]
    return tapers.astype(np.float32)

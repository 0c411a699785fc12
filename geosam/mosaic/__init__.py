"""Tile probabilities to one raster of the scene, out of core.

The tile grid cuts the scene into cells: cell (r, c) runs from the top left corner of tile (r, c)
to the top left corners of its neighbours below and to the right. A cell is final once every tile
that reaches into it has reported, and is then quantised and compressed at once. So the memory held is
the overlap with the tile row above, plus the tiles of one batch: far below scene width x tile
height, and nothing at all where it is dry.

What a pixel gets:
    - the mean of the tiles that ran there, by their weights, scaled up where a neighbour did not run
      (averaging in a zero for a skipped tile would halve the river at the seam);
    - 0 where no tile ran and the coarse mask knows the ground to be dry;
    - NaN where the scene has no data, and where only failed tiles reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from geosam.mosaic.cells import Axis, Cell, Votes, decode
from geosam.mosaic.raster import write_raster
from geosam.mosaic.store import StripStore
from geosam.tiling import Tile, TilePlan

__all__ = ["Mosaic", "Strip"]

_STRIP_PX = 8_000_000
"""Pixels of one strip handed to a reader: 32 MB of float32, whatever the width of the scene."""


class Strip(NamedTuple):
    """Full-width rows of the finished mosaic."""

    row_off: int
    """First row of the strip in the scene."""
    probability: NDArray[np.float32]
    """Probability of water, shape (h, width), multiples of 1/256; NaN is nodata."""


@dataclass
class Mosaic:
    """The probability raster of a run, in the making or finished.

    Tiles report row by row from ``first_row``; within a tile row in any order. Every tile reports
    once: :meth:`add`, :meth:`add_dry` or :meth:`add_nothing`; then the row is closed with :meth:`finish_row`.
    """

    store: StripStore
    plan: TilePlan
    geobox: GeoBox
    first_row: int
    """Tile row at which a run starts: above zero when finished strips were found."""
    end_row: int | None = None
    """Tile row before which a run of a part stops; None: the mosaic is whole."""
    new_cell: Callable[[tuple[int, int], int], Votes] = Cell
    """Makes a cell of a shape into which so many tiles reach; another than numpy's gathers votes on a device."""
    _cells: dict[tuple[int, int], Votes] = field(default_factory=dict)
    _finished: dict[tuple[int, int], bytes | Future[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rows = Axis(self.plan.tops, self.plan.shape[0], self.plan.tile_px)
        self._cols = Axis(self.plan.lefts, self.plan.shape[1], self.plan.tile_px)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        plan: TilePlan,
        geobox: GeoBox,
        signature: Mapping[str, Any] | None = None,
        *,
        resume: bool = False,
    ) -> Mosaic:
        """Start a mosaic in a work folder, or go on with the strips that an earlier run finished.

        Args:
            folder: Work folder, made if missing; by custom ``<out>.work`` beside the output.
            plan: The tile grid.
            geobox: Georeference of the scene, of the plan's shape.
            signature: JSON values that say what the run depends on; see ``predict.signature``.
            resume: Keep finished strips. Without it an earlier work folder is thrown away.

        Raises:
            OutputError: The folder cannot be written, or holds strips of another run.
        """
        grid = {"shape": list(plan.shape), "tops": list(plan.tops), "lefts": list(plan.lefts)}
        store = StripStore.open(Path(folder), {**(signature or {}), "tile grid": grid}, len(plan.tops), resume)
        mosaic = cls(store, plan, geobox, 0)
        mosaic._begin()
        return mosaic

    @classmethod
    def part(cls, store: StripStore, plan: TilePlan, geobox: GeoBox, strips: range) -> Mosaic:
        """A mosaic in which only some strips are made, bit for bit as in the making of the whole.

        Args:
            store: Takes the strips; it may be shared with other machines.
            plan: The tile grid of the whole.
            geobox: Georeference of the whole.
            strips: Those to make, one behind the other. The tiles above that reach into the first run, too.
        """
        store.done = strips.start
        first = Axis(plan.tops, plan.shape[0], plan.tile_px).first_reaching(strips.start)
        return cls(store, plan, geobox, first, strips.stop)

    def refresh(self) -> None:
        """Look on the disk again: other machines may have finished strips."""
        self.store.count()
        self._begin()

    def _begin(self) -> None:
        # The strip to be finished next needs the tiles above that reach into it: they run again.
        self.first_row = self.store.done if self.finished else self._rows.first_reaching(self.store.done)

    @property
    def rows(self) -> range:
        """Tile rows that a run goes through."""
        return range(self.first_row, len(self.plan.tops) if self.end_row is None else self.end_row)

    @property
    def finished(self) -> bool:
        """True once every strip is on disk."""
        return self.store.done == len(self.plan.tops)

    @property
    def records(self) -> list[dict[str, Any]]:
        """What :meth:`finish_row` was told about the tile rows above ``first_row``; nothing in a part."""
        above = range(self.first_row) if self.end_row is None else ()
        return [self.store.header(row)["record"] for row in above]

    @property
    def held_px(self) -> int:
        """Pixels held uncompressed just now."""
        return sum(cell.held_px for cell in self._cells.values())

    def add(self, tile: Tile, probability: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        """Blend in a tile that ran.

        Args:
            tile: The tile.
            probability: Probability of water, shape (tile_px, tile_px), in [0, 1].
            valid: True where the scene has data, same shape; elsewhere the tile has no say.
        """
        weight = self.plan.weights(tile) * valid
        self.gather(tile, weight * probability, weight)
        self.report(tile)

    def reserve(self, tile: Tile) -> None:
        """Make room for a tile's votes, so that :meth:`gather` needs none."""
        for cell, inside, _ in self._pieces(tile):
            self._cell(cell).grow(inside[0].stop)

    def gather(self, tile: Tile, votes: Any, weight: Any) -> None:
        """Add a tile's votes, without counting it off.

        Args:
            tile: The tile.
            votes: Probability of water times weight, float32 (h, w) of at least what the scene holds of the tile;
                such arrays as :attr:`new_cell` takes.
            weight: By :meth:`geosam.tiling.TilePlan.weights`, 0 where the tile has no say; same shape.
        """
        for cell, inside, place in self._pieces(tile):
            self._cell(cell).vote(inside, votes[place], weight[place])

    def add_dry(self, tile: Tile, valid: NDArray[np.bool_] | bool) -> None:
        """Note a tile that did not run because it is dry: 0 where valid, and only where no other tile ran."""
        own = self._cell((tile.row, tile.col)) if tile.row >= self.store.done else None
        if own is not None:
            own.dry = valid if isinstance(valid, bool) else valid[: own.shape[0], : own.shape[1]]
        self.report(tile)

    def add_nothing(self, tile: Tile) -> None:
        """Note a tile without data, or one that failed: nodata, except where another tile ran."""
        self.report(tile)

    def finish_row(self, row: int, record: Mapping[str, Any] | None = None) -> None:
        """Write the strip of a tile row; it then survives the run.

        Raises:
            OutputError: The disk is full or the folder is gone.
        """
        if row < self.store.done:
            self.store.pass_over(row, dict(record or {}))
            return
        cells = [self._finished.pop((row, col)) for col in range(len(self.plan.lefts))]
        whole = [cell if isinstance(cell, bytes) else cell.result() for cell in cells]
        self.store.write(row, whole, dict(record or {}))

    def read(self, window: Window) -> NDArray[np.float32]:
        """Probability in a window of the finished mosaic.

        Args:
            window: Inside the scene, integer offsets.

        Returns:
            Multiples of 1/256, shape (height, width); NaN is nodata.
        """
        out = np.full((int(window.height), int(window.width)), np.nan, np.float32)
        top, left = int(window.row_off), int(window.col_off)
        for rows in self._rows.meet(top, out.shape[0]):
            for cols in self._cols.meet(left, out.shape[1]):
                cell = decode(self.store.cell(rows.cell, cols.cell), self._shape(rows.cell, cols.cell))
                place = rows.outer, cols.outer
                out[place] = cell if isinstance(cell, float) else cell[rows.inner, cols.inner]
        return out

    def strips(self, max_px: int | None = None, *, skip_constant: bool = False) -> Iterator[Strip]:
        """The finished mosaic from top to bottom, in full-width strips.

        Args:
            max_px: Pixels of a strip, at most; None: 8 million.
            skip_constant: Leave out strips that hold nothing but zeros and nodata; they cost nothing then.
        """
        height, width = self.plan.shape
        step = max(1, min(height, (max_px or _STRIP_PX) // width))
        for top in range(0, height, step):
            rows = min(step, height - top)
            if not (skip_constant and self._is_constant(top, rows)):
                yield Strip(top, self.read(Window(0, top, width, rows)))

    def _is_constant(self, top: int, rows: int) -> bool:
        """True if every cell that the rows meet is stored as a mere mark."""
        return all(max(self.store.header(meeting.cell)["sizes"]) <= 1 for meeting in self._rows.meet(top, rows))

    def write_probability(self, path: str | Path) -> Path:
        """Write a cloud-optimised GeoTIFF, float32, multiples of 1/256, NaN nodata; whole or not at all.

        Raises:
            OutputError: The folder is missing or the disk is full.
        """
        return write_raster(Path(path), self.geobox, self.read, "float32", float("nan"), "probability of water")

    def write_mask(self, path: str | Path, threshold: float) -> Path:
        """Write a cloud-optimised GeoTIFF, uint8: 1 above the threshold, 0 below, 255 nodata; whole or not at all.

        Raises:
            OutputError: The folder is missing or the disk is full.
        """

        def water(window: Window) -> NDArray[np.uint8]:
            probability = self.read(window)
            return np.where(np.isnan(probability), 255, probability > threshold).astype(np.uint8)

        return write_raster(Path(path), self.geobox, water, "uint8", 255, f"water above {threshold:g}")

    def discard(self) -> None:
        """Remove the work folder: the run is over and its outputs are written."""
        self.store.discard()

    def _pieces(self, tile: Tile) -> Iterator[tuple[tuple[int, int], tuple[slice, slice], tuple[slice, slice]]]:
        """Cells a tile reaches into: which, where in the cell, where in the tile."""
        px = self.plan.tile_px
        for rows in self._rows.meet(self.plan.tops[tile.row], px):
            for cols in self._cols.meet(self.plan.lefts[tile.col], px):
                if rows.cell >= self.store.done:
                    yield (rows.cell, cols.cell), (rows.inner, cols.inner), (rows.outer, cols.outer)

    def _cell(self, at: tuple[int, int]) -> Votes:
        if at not in self._cells:
            waiting = self._rows.reaching(at[0]) * self._cols.reaching(at[1])
            self._cells[at] = self.new_cell(self._shape(*at), waiting)
        return self._cells[at]

    def report(self, tile: Tile) -> None:
        """Count the tile off in every cell it reaches, and put finished cells away compressed."""
        for at, _, _ in self._pieces(tile):
            cell = self._cell(at)
            cell.waiting -= 1
            if cell.waiting == 0:
                self._finished[at] = self._cells.pop(at).encode()

    def _shape(self, row: int, col: int) -> tuple[int, int]:
        return self._rows.size(row), self._cols.size(col)

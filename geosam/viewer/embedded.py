"""Embeddings of a scene's tiles: made ahead, in the background, where the view is; kept as long as there is room."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from geosam.options import SegmentOptions
from geosam.predict.reading import NoCoarse, Reader
from geosam.prompts import no_prompts
from geosam.scene import Scene
from geosam.tiling import Tile, TilePlan, plan_tiles

if TYPE_CHECKING:
    from geosam.models import PromptableModel

KEPT_TILES = 96
"""Tiles whose embeddings are kept: 300 MB of river-tiny's."""
AHEAD_TILES = 24
"""Tiles of a view that are embedded ahead, the nearest to its middle first."""


@dataclass(frozen=True)
class Embedded:
    """One tile, ready to be asked about."""

    tile: Tile
    valid: NDArray[np.bool_]
    """Shape (tile_px, tile_px): True where the scene has data."""
    embedding: Any
    """Of this tile alone, from the model; None where the tile has no data."""


class EmbeddedTiles:
    """Tiles of one scene through the first, dear half of a model, each once.

    Args:
        scene: On the grid that it is run at.
        model: Embeds.
        options: The tile grid is that of a run with these options.
    """

    def __init__(self, scene: Scene, model: PromptableModel, options: SegmentOptions) -> None:
        self.model = model
        self.plan: TilePlan = plan_tiles(scene.shape, model.tile_px, options.tiles.overlap_px)
        # The very reader of a run, so that a tile's image is the same; what it would ask is not used.
        self._reader = Reader(
            scene, NoCoarse(), model.understands | {"none"}, options, lambda *_: no_prompts(),
            getattr(model, "step_px", None), None,
        )  # fmt: skip
        self._kept: OrderedDict[int, Future[Embedded]] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="geosam-embed")

    def get(self, tile: Tile) -> Embedded:
        """A tile, at once where it was made ahead; else it is made now, before all that wait.

        Raises:
            RunError: The scene could not be read there.
        """
        with self._lock:
            future = self._kept.get(tile.index)
            mine = future is None or future.cancel() or _failed(future)
            if mine:
                future = self._kept[tile.index] = Future()
                future.set_running_or_notify_cancel()
            self._kept.move_to_end(tile.index)
        assert future is not None
        if mine:
            self._make_now(future, tile)
        return future.result()

    def look_at(self, tiles: Sequence[Tile]) -> None:
        """Make these tiles ahead, in this order; those that an earlier view still waits for are forgotten."""
        with self._lock:
            for index in [index for index, future in self._kept.items() if future.cancel()]:
                del self._kept[index]
            for tile in tiles[:AHEAD_TILES]:
                if tile.index not in self._kept:
                    self._kept[tile.index] = self._pool.submit(self._embedded, tile)
            for tile in reversed(tiles[:AHEAD_TILES]):
                self._kept.move_to_end(tile.index)
            self._shrink()

    def near(self, bounds: tuple[float, float, float, float], centre: tuple[float, float]) -> list[Tile]:
        """Tiles that a view meets, the nearest first.

        Args:
            bounds: Left, top, right, bottom of the view in pixels.
            centre: Where it is looked at, (x, y) in pixels.
        """
        met = list(self.meeting(*bounds))
        px = self.plan.tile_px

        def distance(tile: Tile) -> float:
            x, y = tile.window.col_off + px / 2 - centre[0], tile.window.row_off + px / 2 - centre[1]
            return float(max(abs(x), abs(y)))

        return sorted(met, key=distance)

    def meeting(self, left: float, top: float, right: float, bottom: float) -> Iterable[Tile]:
        """Tiles that share ground with a box in pixels; a point is a box of no size."""
        px, plan = self.plan.tile_px, self.plan
        rows = [row for row, start in enumerate(plan.tops) if start <= bottom and start + px > top]
        cols = [col for col, start in enumerate(plan.lefts) if start <= right and start + px > left]
        return (plan.tile(row, col) for row in rows for col in cols)

    def progress(self) -> tuple[int, int]:
        """Tiles ready, and tiles ready or waited for."""
        with self._lock:
            return sum(future.done() for future in self._kept.values()), len(self._kept)

    def is_ready(self, tile: Tile) -> bool:
        """Whether a tile can be asked about without waiting."""
        with self._lock:
            future = self._kept.get(tile.index)
        return future is not None and future.done()

    def close(self) -> None:
        """Stop working ahead."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _make_now(self, future: Future[Embedded], tile: Tile) -> None:
        try:
            future.set_result(self._embedded(tile))
        except BaseException as error:
            future.set_exception(error)
        with self._lock:
            self._shrink()

    def _shrink(self) -> None:
        """Forget the tiles that nobody looked at for longest."""
        for index in list(self._kept)[: max(0, len(self._kept) - KEPT_TILES)]:
            if self._kept[index].done():
                del self._kept[index]

    @torch.inference_mode()
    def _embedded(self, tile: Tile) -> Embedded:
        ready = self._reader.read(tile)
        if ready.image is None:
            return Embedded(tile, ready.valid, None)
        image = torch.from_numpy(ready.image[None]).to(self.model.device)
        return Embedded(tile, ready.valid, self.model.embed(image))


def _failed(future: Future[Embedded]) -> bool:
    """Whether a tile could not be made; it is tried again when it is asked for again."""
    return future.done() and future.exception() is not None

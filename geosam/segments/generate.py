"""Every thing in a scene as a segment: points on a grid, tile by tile, and what the model says to each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from geosam import __version__
from geosam.models.clicks import Clicks, clicks_of, masks_a_point
from geosam.models.protocol import PromptableModel
from geosam.options import EverythingOptions, SegmentOptions
from geosam.predict.reading import NoCoarse, Reader, Ready
from geosam.prompts import no_prompts
from geosam.segments.grid import View, grid, views
from geosam.segments.joining import Joiner, Piece, Segment, is_whole
from geosam.segments.masks import Candidate, Found, as_runs, candidates, distinct
from geosam.segments.runs import Box
from geosam.tiling import Tile, TilePlan

if TYPE_CHECKING:
    from geosam.scene import Scene
    from geosam.segments.keeping import Kept

POINTS = {"cpu": 8}
ELSEWHERE = 128
"""Points decoded at once; one of a 1024 px tile holds about 10 MB while it lasts."""

Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Generator:
    """The masks of one tile after the other."""

    model: PromptableModel
    options: EverythingOptions

    def tile(self, image: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None) -> list[Found]:
        """Every mask of a tile, the best first.

        Args:
            image: uint8 (3, h, w) as RGB: a tile of the model's own size, or what a model with ``step_px`` takes.
            valid: bool (h, w), where points may be put and masks may lie; None: everywhere.

        Raises:
            ModelError: The model cannot answer points one by one.
        """
        picture = torch.from_numpy(image)
        clicks = clicks_of(self.model)
        found: list[Candidate] = []
        for view in views(image.shape[1], image.shape[2], self.options.crops):
            found += self._look(picture, view, clicks, valid)
        kept = [as_runs(one, valid) for one in distinct(found, self.options.nms_iou)]
        return [one for one in kept if one.runs.area]

    def _look(self, picture: Tensor, view: View, clicks: Clicks, valid: NDArray[np.bool_] | None) -> list[Candidate]:
        """Masks of a view that pass the filters."""
        tile = (picture.shape[1], picture.shape[2])
        seen = picture[:, view.top : view.top + view.height, view.left : view.left + view.width]
        if view.layer:
            seen = _as_large_as(seen, tile)
        points = self._points(view, tile, valid)
        if not len(points):
            return []
        embeddings = self.model.embed(seen[None].contiguous().to(self.model.device))
        size = self.options.points_per_batch or POINTS.get(self.model.device.type, ELSEWHERE)
        options = self.options.settled(masks_a_point(self.model))
        found: list[Candidate] = []
        for start in range(0, len(points), size):
            logits, predicted = clicks(embeddings, points[start : start + size], options.predicted_iou or 0.0)
            found += candidates(logits, predicted, view, tile, options)
        return found

    def _points(self, view: View, tile: tuple[int, int], valid: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        """Points of a view's grid in the pixels that the network sees, without those on no data."""
        points = grid(self.model.tile_px, self.options.points_per_side)
        points = points[(points[:, 0] < tile[1]) & (points[:, 1] < tile[0])]
        if valid is None:
            return points
        col = view.left + points[:, 0] * view.width / tile[1]
        row = view.top + points[:, 1] * view.height / tile[0]
        on_data = valid[row.astype(int), col.astype(int)]
        kept: NDArray[np.float32] = points[on_data]
        return kept


def _as_large_as(crop: Tensor, tile: tuple[int, int]) -> Tensor:
    """A crop enlarged to the size of its tile, uint8 (3, h, w)."""
    full = F.interpolate(crop[None].float(), tile, mode="bilinear", align_corners=False, antialias=True)
    return full[0].round().clamp(0, 255).to(torch.uint8)


@dataclass
class TileCounts:
    """What became of the tiles."""

    total: int
    run: int = 0
    nodata: int = 0
    failed: int = 0
    first_failure: str = ""


def segments_of(
    scene: Scene,
    generator: Generator,
    plan: TilePlan,
    options: SegmentOptions,
    counts: TileCounts,
    progress: Told | None = None,
    kept: Kept | None = None,
) -> Iterator[list[Segment]]:
    """The segments of a scene, joined across tiles, as soon as no tile that is still to come can change them.

    Args:
        scene: At its working resolution.
        generator: Masks of a tile.
        plan: Tiles of the model's own size.
        options: ``model.batch_size`` and the like are not heeded; the scene's are those it was opened with.
        counts: Is counted up.
        progress: Told tiles done and tiles in all.
        kept: Tiles that a run which was broken off had finished, and where those of this one go; None: nowhere.

    Yields:
        A list after each tile row.
    """
    step_px = getattr(generator.model, "step_px", None) if not generator.options.crops else None
    reader = Reader(scene, NoCoarse(), frozenset({"none"}), options, lambda *_: no_prompts(), step_px)
    joiner = Joiner(scene.shape, generator.options.join_iou)
    with ThreadPoolExecutor(1, thread_name_prefix="geosam-read") as pool:
        for number, row in enumerate(plan.rows()):
            first = number * len(plan.lefts)
            yield list(joiner.row(_row(pool, reader, generator, row, first, counts, progress, kept)))
    yield list(joiner.finish())


def _row(
    pool: ThreadPoolExecutor,
    reader: Reader,
    generator: Generator,
    tiles: tuple[Tile, ...],
    first: int,
    counts: TileCounts,
    progress: Told | None,
    kept: Kept | None,
) -> Iterator[tuple[Box, list[Piece]]]:
    """The pieces of a row of tiles, the next one being read meanwhile."""

    def begin(number: int) -> Future[Ready] | None:
        done = kept is not None and kept.has(first + number)
        return None if done or number == len(tiles) else pool.submit(reader.read, tiles[number])

    coming = begin(0)
    for number, tile in enumerate(tiles):
        ready, coming = coming, begin(number + 1)
        yield _box(tile, reader.scene), _pieces(tile, first + number, ready, reader.scene, generator, counts, kept)
        if progress is not None:
            progress(counts.run + counts.nodata + counts.failed, counts.total)


def _pieces(
    tile: Tile,
    number: int,
    coming: Future[Ready] | None,
    scene: Scene,
    generator: Generator,
    counts: TileCounts,
    kept: Kept | None,
) -> list[Piece]:
    """Masks of a tile in the scene's pixels; of a tile that fails none, and a run that goes on tries it again."""
    if coming is None:
        assert kept is not None
        pieces = kept.pieces(number, _box(tile, scene))
    else:
        try:
            pieces = _found(tile, coming.result(), scene, generator)
        except Exception as error:  # One bad tile must not end an hours-long run; Ctrl-C is no Exception.
            counts.failed += 1
            counts.first_failure = counts.first_failure or _line(tile, error)
            return []
        if kept is not None:
            kept.keep(number, pieces)
    counts.nodata += pieces is None
    counts.run += pieces is not None
    return pieces or []


def _found(tile: Tile, ready: Ready, scene: Scene, generator: Generator) -> list[Piece] | None:
    """Masks of a tile in the scene's pixels; None of one without data."""
    if ready.image is None:
        return None
    valid = ready.valid[: ready.image.shape[1], : ready.image.shape[2]]
    box = _box(tile, scene)
    return [_placed(one, box, scene) for one in generator.tile(ready.image, None if valid.all() else valid)]


def _line(tile: Tile, error: Exception) -> str:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return f"tile at column {tile.window.col_off}, row {tile.window.row_off}: {reason[:200]}"


def _box(tile: Tile, scene: Scene) -> Box:
    left, top = int(tile.window.col_off), int(tile.window.row_off)
    right, bottom = left + int(tile.window.width), top + int(tile.window.height)
    return left, top, min(right, scene.shape[1]), min(bottom, scene.shape[0])


def _placed(found: Found, box: Box, scene: Scene) -> Piece:
    runs = found.runs.shifted(box[1], box[0])
    return Piece(runs, found.predicted_iou, found.stability, found.probability, box, is_whole(runs, box, scene.shape))


def run_notes(generator: Generator, plan: TilePlan) -> str:
    """JSON of what is run, for the segments file."""
    model = generator.model
    said: dict[str, Any] = {
        "geosam": __version__,
        "model": {"name": model.name, "sha256": model.sha256, "dtype": str(model.dtype).removeprefix("torch.")},
        "options": generator.options.settled(masks_a_point(model)).model_dump(mode="json"),
        "overlap_px": plan.overlap_px,
    }
    return json.dumps(said)

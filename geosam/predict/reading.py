"""The reader threads: look at the coarse mask, then read the images of the tiles that run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geosam.options import SegmentOptions
from geosam.predict.hint import Hint
from geosam.prompts import Prompts, no_prompts, sample_prompts
from geosam.prompts.given import GivenPrompts, runs_everywhere, way_of
from geosam.tiling import Tile, TilePlan

if TYPE_CHECKING:
    from geosam.scene import Scene

Sampler = Callable[[NDArray[np.bool_], NDArray[np.bool_], np.random.Generator], Prompts]
"""Prompts of one tile from its coarse water and its valid pixels, both (h, w)."""
Fate = Literal["nodata", "dry", "run", "failed"]
"""What becomes of a tile."""
MOST_LOOKS = 128
"""Tiles looked at ahead of computing, so that a long dry stretch does not pile up: a dry tile that is partly
without data keeps a byte a pixel."""


class CoarseSource(Protocol):
    """What a run needs of a coarse mask."""

    def read(self, window: Window) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Water and validity, bool, of the window's shape; outside the scene is not valid."""
        ...


@dataclass(frozen=True)
class Look:
    """What the coarse mask says of a tile before its image is read."""

    tile: Tile
    fate: Fate
    valid: NDArray[np.bool_] | bool = False


@dataclass(frozen=True)
class Ready:
    """A tile read, or found not to be worth running after all."""

    fate: Fate
    valid: NDArray[np.bool_]
    image: NDArray[np.uint8] | None = None
    """uint8 (3, tile_px, tile_px); of a scene that is smaller, no more than holds it."""
    prompts: Prompts | None = None
    hint: Hint | None = None
    """What the coarse mask adds to the model's say."""


@dataclass(frozen=True)
class Reader:
    """The work of the reader threads."""

    scene: Scene
    coarse: CoarseSource
    understands: frozenset[str]
    options: SegmentOptions
    sampler: Sampler
    step_px: int | None = None
    """Multiples to which the model takes tiles that are smaller than its own; None: only full ones."""
    given: GivenPrompts | None = None
    """A person's prompts, which replace the sampler's or join them as ``options.prompts.which`` says."""

    @property
    def _only_given(self) -> bool:
        return self.given is not None and way_of(self.options) == "given"

    def look(self, tiles: Sequence[Tile]) -> list[Look]:
        """Tell wet tiles from dry ones and from those without data, by the coarse mask alone."""
        if runs_everywhere(self.options):
            return [Look(tile, "run") for tile in tiles]
        return [self._look(tile) for tile in tiles]

    def _look(self, tile: Tile) -> Look:
        try:
            if self.given is not None and self.given.asks(tile.window, tile.index):
                return Look(tile, "run")
            if self._only_given:
                return Look(tile, "nodata")  # Nobody asked: it is not known to be dry.
            water, valid = self.coarse.read(tile.window)
        except Exception:  # Reading it again for the run gives the reason, and counts the tile as failed.
            return Look(tile, "run")
        if water.any():
            return Look(tile, "run")
        inside = valid[
            : int(self.scene.shape[0] - tile.window.row_off), : int(self.scene.shape[1] - tile.window.col_off)
        ]
        if inside.all():
            return Look(tile, "dry", True)
        return Look(tile, "dry", valid) if inside.any() else Look(tile, "nodata")

    def read(self, tile: Tile) -> Ready:
        """Image and prompts of a tile."""
        rgb, valid = self.scene.read_rgb(tile.window)
        if not valid.any():
            return Ready("nodata", valid)
        water, known = self.coarse.read(tile.window)
        prompts = self._prompts(tile, water, known, valid)
        if len(prompts.points) == 0:
            if self._only_given:
                return Ready("nodata", valid)
            if "none" not in self.understands:
                return Ready("dry", valid)
            prompts = replace(no_prompts(), multimask=self.options.prompts.multimask)
        image = _filled(rgb, valid, self.scene.shape, tile.window)
        if self.step_px is not None:  # A small scene's mirror images are no ground to learn anything from.
            height, width = (_rounded_up(side, self.step_px) for side in self.scene.shape)
            image = image[:height, :width]
        image = np.ascontiguousarray(image.transpose(2, 0, 1))
        if self.given is not None and not self._only_given:  # What a person says outranks the index.
            known = known & ~self.given.overruled(tile.window, tile.index, water, prompts)
        return Ready("run", valid, image, prompts, self._hint(water, known))

    def _prompts(
        self, tile: Tile, water: NDArray[np.bool_], known: NDArray[np.bool_], valid: NDArray[np.bool_]
    ) -> Prompts:
        """What is asked of a tile: the sampler's prompts, a person's, or both."""
        if self.given is not None:
            own = self.given.water(tile.window)
            water, known = water | own, known | own
        automatic = None
        if not self._only_given:
            rng = np.random.default_rng([self.options.seed, tile.index])
            automatic = self.sampler(water, valid & known, rng)
        if self.given is not None:
            automatic = self.given.prompts(tile.window, tile.index, water & valid, automatic)
        assert automatic is not None
        return replace(automatic, multimask=self.options.prompts.multimask)

    def _hint(self, water: NDArray[np.bool_], known: NDArray[np.bool_]) -> Hint | None:
        """The coarse mask of a tile, if it comes of bands that the model does not see."""
        trust = float(getattr(self.coarse, "trust", 0.0))
        return Hint(water, known, trust) if trust else None


def _filled(
    rgb: NDArray[np.uint8], valid: NDArray[np.bool_], shape: tuple[int, int], window: Window
) -> NDArray[np.uint8]:
    """Give a model something quiet where there is no image.

    Pixels without data take the mean colour of the tile's valid pixels: black would be an edge, and dark water.
    What hangs over the scene's border mirrors the scene, since a plain area there would be a bank.
    """
    height = min(valid.shape[0], shape[0] - int(window.row_off))
    width = min(valid.shape[1], shape[1] - int(window.col_off))
    seen, data = rgb[:height, :width], valid[:height, :width]
    if not data.all():
        seen = np.where(data[..., None], seen, np.rint(seen[data].mean(axis=0)).astype(np.uint8))
    over = ((0, valid.shape[0] - height), (0, valid.shape[1] - width), (0, 0))
    return np.pad(seen, over, mode="symmetric") if (height, width) != valid.shape else seen


def _rounded_up(side: int, step: int) -> int:
    return -(-side // step) * step


def ahead(
    pool: ThreadPoolExecutor, reader: Reader, plan: TilePlan, rows: range, depth: int
) -> Iterator[tuple[Look, Future[Ready] | None]]:
    """Every tile in order, with up to ``depth`` images being read ahead, and one row looked at ahead."""
    waiting: deque[tuple[Look, Future[Ready] | None]] = deque()
    images = 0
    for look in _looks(pool, reader, plan, rows):
        future = pool.submit(reader.read, look.tile) if look.fate == "run" else None
        waiting.append((look, future))
        images += future is not None
        while images > depth or len(waiting) > MOST_LOOKS:
            first = waiting.popleft()
            images -= first[1] is not None
            yield first
    yield from waiting


def _looks(pool: ThreadPoolExecutor, reader: Reader, plan: TilePlan, rows: range) -> Iterator[Look]:
    futures = deque(pool.submit(reader.look, plan.row(row)) for row in rows[:1])
    for row in rows:
        if row + 1 in rows:
            futures.append(pool.submit(reader.look, plan.row(row + 1)))
        yield from futures.popleft().result()


def default_sampler(options: SegmentOptions) -> Sampler:
    """Control points by ``options.prompts``, or none."""
    if options.prompts.which == "none":
        return lambda water, valid, rng: no_prompts()
    return lambda water, valid, rng: sample_prompts(water, valid, options.prompts, rng)


class NoCoarse:
    """Stands in for a coarse mask where the model runs without one: no water known, every pixel may be valid."""

    def read(self, window: Window) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """No water, all valid; both bool of the window's shape."""
        known = np.ones((int(window.height), int(window.width)), bool)
        return ~known, known

"""What a scene itself tells of a run on it: which of its tiles are wet, and how fast it is read and guessed at.

A small scene is guessed at in full, as a run does. Of a larger one squares of a tile's size are looked at; see
:mod:`geosam.estimate.sampling`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rasterio.windows import Window

from geosam.coarse import coarse_mask
from geosam.coarse.choose import has_index
from geosam.estimate.sampling import Sample, sample
from geosam.models.registry import MODELS
from geosam.options import CoarseOptions, SegmentOptions
from geosam.pipeline.guess import LOOK_SIDE_PX, guess_needed, looks_itself, runs_everywhere
from geosam.prompts.given import way_of
from geosam.prompts.opening import read_given
from geosam.scene.cache import bounded_cache, cache_bytes
from geosam.scene.files import is_remote
from geosam.tiling import TilePlan, plan_tiles

if TYPE_CHECKING:
    from geosam.scene import Scene

WHOLE_PX = 32 * 10**6
"""Pixels of the source that are decoded to guess at a whole scene: about a second on two cores."""
_TIMED_TILES = 4


@dataclass(frozen=True)
class Look:
    """Tiles, wet ones among them, and seconds that this scene takes on this machine."""

    tiles: int
    seen: int
    """Tiles that were looked at, or squares of their size."""
    wet: float
    """Tiles that will run: of all the same share as of those that were seen."""
    wet_low: float
    wet_high: float
    """About nineteen times in twenty there are no fewer and no more; equal to ``wet`` where all tiles were seen."""
    coarse_s: float
    """Seconds of the coarse mask, without those of a model's own look."""
    read_s: float
    """Seconds to read the picture of a tile, in one thread."""
    tiles_of_guess: int | None = 0
    """Tiles that the model looks at for the first guess; None: no guess is made."""


def look_at(scene: Scene, options: SegmentOptions, plan: TilePlan) -> Look:
    """Look at a scene for about a second, or in full where that takes no longer.

    Args:
        scene: At the resolution it is to be run at.
        options: Of the run.
        plan: Its tiles.

    Raises:
        OptionsError: Options contradict each other or do not suit the scene.
        RunError: The scene could not be read.
    """
    with bounded_cache(cache_bytes(scene.decoder.header)):
        if guess_needed(options) is not None:
            return _without_guess(scene, options, plan)
        if options.coarse.method == "learned" or looks_itself(scene, options, _understood(options)):
            return _learned(scene, options, plan)
        small = scene.decoded_px() <= WHOLE_PX and not is_remote(scene.source)
        look = (_whole if small else _sampled)(scene, options, plan)
    if options.tiles.which == "all":
        return replace(look, seen=look.tiles, wet=look.tiles, wet_low=look.tiles, wet_high=look.tiles)
    return _with_given(look, scene, options, plan)


def _without_guess(scene: Scene, options: SegmentOptions, plan: TilePlan) -> Look:
    """Every tile runs, or those that a person has put a prompt into."""
    wet = len(plan) if runs_everywhere(options) else _asked(scene, options, plan)
    return Look(len(plan), len(plan), wet, wet, wet, 0.0, _read_s(scene, _windows(plan)), None)


def _asked(scene: Scene, options: SegmentOptions, plan: TilePlan) -> int:
    given = read_given(options.prompts, scene).pinned(plan.lefts, plan.tops, plan.tile_px)
    return sum(given.asks(tile.window, tile.index) for tile in plan.tiles)


def _with_given(look: Look, scene: Scene, options: SegmentOptions, plan: TilePlan) -> Look:
    """With ``--prompts both``: of the tiles with a prompt, those that are not wet already come on top."""
    if way_of(options) != "both":
        return look
    more = _asked(scene, options, plan) * (1 - look.wet / look.tiles)
    return replace(look, wet=look.wet + more, wet_high=min(look.wet_high + more, look.tiles))


def _learned(scene: Scene, options: SegmentOptions, plan: TilePlan) -> Look:
    """The model guesses, on every tile of a look. What it will find is not known: at best what a rule does."""
    by_rule = options.model_copy(update={"coarse": CoarseOptions(method="auto" if has_index(scene) else "rgb")})
    side = max(scene.shape)
    seen = scene.decimated(side // 2) if side > LOOK_SIDE_PX and scene.has_crs else scene
    tiles = len(plan_tiles(seen.shape, plan.tile_px, plan.overlap_px))
    return replace(look_at(scene, by_rule, plan), tiles_of_guess=tiles, wet_low=0, wet_high=len(plan))


def _understood(options: SegmentOptions) -> tuple[str, ...]:
    """What the model understands by its name; a file's weights are not loaded for it, and taken to need prompts."""
    spec = MODELS.get(options.model.name)
    return spec.understands if spec else ()


def _whole(scene: Scene, options: SegmentOptions, plan: TilePlan) -> Look:
    """Make the coarse mask and count."""
    with tempfile.TemporaryDirectory(prefix="geosam-look-") as folder:
        begun = time.perf_counter()
        mask = coarse_mask(scene, options.coarse, path=Path(folder) / "coarse.tif")
        seconds = time.perf_counter() - begun
        wet = [window for window in _windows(plan) if mask.read(window)[0].any()]
    return Look(len(plan), len(plan), len(wet), len(wet), len(wet), seconds, _read_s(scene, wet or _windows(plan)))


def _sampled(scene: Scene, options: SegmentOptions, plan: TilePlan) -> Look:
    """Look at squares spread over the scene."""
    found: Sample = sample(scene, options.coarse, plan.tile_px)
    wet, low, high = (len(plan) * share for share in (found.share, *found.share_range()))
    return Look(len(plan), found.seen, wet, low, high, found.coarse_s, _read_s(scene, found.places or _windows(plan)))


def _windows(plan: TilePlan) -> list[Window]:
    return [tile.window for tile in plan.tiles]


def _read_s(scene: Scene, windows: Sequence[Window]) -> float:
    """Seconds to read the picture of one of these windows, mean of a few."""
    some = windows[:: max(1, len(windows) // _TIMED_TILES)][:_TIMED_TILES]
    begun = time.perf_counter()
    for window in some:
        scene.read_rgb(window)
    return (time.perf_counter() - begun) / len(some)

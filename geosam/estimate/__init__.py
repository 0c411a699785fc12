"""What a run on a scene will take: seconds by stage, and memory, before it is started.

Three things are measured and none is assumed: this machine with the model that will run (once, then kept;
:mod:`geosam.estimate.machine`), how fast this very scene is read and guessed at, and on how many of its tiles
there is water (:mod:`geosam.estimate.look`). What is left is arithmetic, and stands in this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from geosam.estimate.look import Look, look_at
from geosam.estimate.machine import Calibration, calibration
from geosam.options import SegmentOptions
from geosam.scene import Scene
from geosam.scene.cache import cache_bytes
from geosam.tiling import TilePlan, plan_tiles

__all__ = ["Calibration", "Estimate", "Look", "estimate_run"]

READERS = 2
"""Threads that read images while the model computes; beside a GPU there are more, of which none is counted on."""
STRIP_PX, STRIP_BYTES = 2**23, 3
"""Pixels that a thread of the coarse mask has in hand, and bytes that a pixel takes: its class, and its runs."""
CHUNK_PX, CHUNK_BYTES = 2**20, 32
"""Pixels that it classifies at once, and bytes that a pixel takes: some eight planes of float32."""
CELL_BYTES = 8
"""A pixel of the overlap with the tile row above: votes and weights, float32."""


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to take, on this machine, with nothing else at work."""

    seconds: dict[str, float]
    """By stage: ``start`` (imports, loading, warming up, writing the result), ``open``, ``coarse``, ``predict``,
    ``vectorize``."""
    low_s: float
    """Seconds in all with as few wet tiles as there may be."""
    high_s: float
    """Seconds in all with as many wet tiles as there may be."""
    dry_s: float
    """Seconds in all if no tile runs."""
    all_s: float
    """Seconds in all if every tile runs."""
    memory_mb: int
    """Peak memory of the process in MB (2^20 bytes); of a GPU, only what the process holds on the host."""
    look: Look
    """What the scene itself tells: its tiles, and how many of them are wet."""
    calibration: Calibration
    """What was measured of the machine, with which model, and when."""

    @property
    def total_s(self) -> float:
        """Seconds in all: the one number to go by."""
        return sum(self.seconds.values())


def estimate_run(
    scene: Scene,
    options: SegmentOptions | None = None,
    *,
    opened_in_s: float = 0.0,
    anew: bool = False,
    tell: Callable[[str], None] = lambda message: None,
    measured: Calibration | None = None,
) -> Estimate:
    """What ``geosam segment`` will take on a scene.

    Meant to be right within a factor of two, for a machine that does nothing else. Rasters that are written besides
    the polygons (``--probability``, ``--mask``) come on top.

    Args:
        scene: At the resolution it is to be run at; see :func:`geosam.pipeline.at_working_gsd`.
        options: Of the run.
        opened_in_s: Seconds that opening the scene took, which are a part of the run.
        anew: Measure the machine though it was measured before.
        tell: Given a line if the machine has to be measured, which takes some ten seconds.
        measured: Go by these figures instead of this machine's.

    Returns:
        The estimate; the same scene and calibration give the same wet tiles, and nearly the same seconds.

    Raises:
        ModelError: The model cannot be loaded, or is not on this machine yet.
        OptionsError: Options contradict each other or do not suit the scene.
        RunError: The scene could not be read, or measuring failed.
    """
    options = SegmentOptions() if options is None else options
    measured = calibration(options, anew=anew, tell=tell) if measured is None else measured
    plan = plan_tiles(scene.shape, measured.tile_px, options.tiles.overlap_px)
    look = look_at(scene, options, plan)
    seconds = _seconds(plan, look, measured, look.wet)
    seconds["open"] = opened_in_s

    def total(wet: float) -> float:
        return opened_in_s + sum(_seconds(plan, look, measured, wet).values())

    return Estimate(
        {stage: seconds[stage] for stage in ("start", "open", "coarse", "predict", "vectorize")},
        low_s=total(look.wet_low), high_s=total(look.wet_high), dry_s=total(0), all_s=total(look.tiles),
        memory_mb=memory_mb(scene, plan, measured), look=look, calibration=measured,
    )  # fmt: skip


def _seconds(plan: TilePlan, look: Look, measured: Calibration, wet: float) -> dict[str, float]:
    """Seconds by stage if so many tiles run."""
    tile_s = measured.tile_s + look.read_s / READERS
    dry_s = 0.0 if look.tiles_of_guess is None else measured.dry_tile_s
    mpx = math.prod(plan.shape) / 1e6 if wet else 0.0
    return {
        "start": measured.start_s,
        "coarse": look.coarse_s + (look.tiles_of_guess or 0) * tile_s,
        "predict": wet * tile_s + (look.tiles - wet) * dry_s + len(plan.tops) * measured.row_s,
        "vectorize": wet * measured.vector_tile_s + mpx * measured.vector_s_mpx,
    }


def memory_mb(scene: Scene, plan: TilePlan, measured: Calibration) -> int:
    """Peak memory of a run in MB (2^20 bytes).

    The program with its model and one batch, as measured, and what a scene adds: GDAL's cache, what the threads of
    the coarse mask have in hand, and the overlap with the tile row above. The height of a scene adds nothing.
    """
    px = math.prod(scene.shape)
    source = scene.decoded_px() * scene.count * np.dtype(scene.dtype).itemsize
    cache = min(cache_bytes(scene.decoder.header), source)
    hand = min(STRIP_PX, px) * STRIP_BYTES + min(CHUNK_PX, px) * CHUNK_BYTES
    hands = min(measured.strip_threads, math.ceil(px / STRIP_PX))
    cells = scene.shape[1] * min(plan.overlap_px, scene.shape[0]) * CELL_BYTES
    return round(measured.memory_mb + (cache + hands * hand + cells) / 2**20)

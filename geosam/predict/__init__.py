"""Tiles through a model: look, read ahead, batch, embed, decode, hand on to the mosaic.

Reader threads look at the coarse mask, read the image only of tiles that will run, and sample their prompts:
components and distances are work for a CPU, and a GPU computes meanwhile. The main thread computes. On a GPU
prompts are encoded, tiles decoded and blended there (``blending``), and only the finished mosaic comes off it.
Nothing depends on which thread was first: tiles are handed on in order, their prompts are seeded by their index,
and a batch never spans two tile rows, so that a resumed run makes the same batches.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geosam import __version__
from geosam.errors import ModelError, RunError
from geosam.mosaic import Mosaic
from geosam.options import SegmentOptions
from geosam.predict.batching import Batcher, Tally, TileReport
from geosam.predict.reading import CoarseSource, NoCoarse, Reader, Sampler, ahead, default_sampler
from geosam.prompts import no_prompts
from geosam.tiling import TilePlan, plan_tiles

if TYPE_CHECKING:
    from geosam.models import PromptableModel
    from geosam.prompts.given import GivenPrompts
    from geosam.scene import Scene

__all__ = ["CoarseSource", "Progress", "Sampler", "TileReport", "batch_size", "run", "signature", "unprompted"]

Progress = Callable[[int, int], None]
"""Called with tiles done and tiles in all."""

_READERS, _READERS_MOST = 2, 8
"""Threads that read and sample prompts: beside a CPU that computes more only help where a scene comes over a network,
and cost a dataset handle each; a GPU is done with a tile before two threads have the next one."""
_BATCH_PX = {"cpu": 1 << 20, "mps": 1 << 21, "cuda": 1 << 23}
"""Pixels of a batch by device: 4, 8 and 32 tiles of 512 px; 1, 2 and 8 of 1024 px."""


def run(
    scene: Scene,
    coarse: CoarseSource,
    plan: TilePlan,
    model: PromptableModel,
    options: SegmentOptions,
    mosaic: Mosaic,
    *,
    sampler: Sampler | None = None,
    given: GivenPrompts | None = None,
    progress: Progress | None = None,
) -> TileReport:
    """Run every wet tile of a scene through a model into a mosaic.

    A tile whose coarse window holds no water does not run (with ``tiles.which == "all"`` it does), and its
    image is not read. Where no tile runs, ground that the coarse mask knows is 0 and the rest is nodata.

    Args:
        scene: Where images come from; ``read_rgb`` is called from several threads.
        coarse: Coarse mask on the same grid; ``read`` is called from several threads.
        plan: Tiles of the model's own input size.
        model: Embeds and decodes.
        options: ``prompts``, ``tiles.which``, ``model.batch_size`` and ``seed`` are heeded.
        mosaic: Takes the probabilities; its finished strips are not run again.
        sampler: Prompts of a tile; None: :func:`geosam.prompts.sample_prompts` with ``options.prompts``.
        given: A person's prompts. With ``options.prompts.which`` given only tiles that hold one run, and all
            others are nodata; with both they join the sampler's.
        progress: Called for every tile.

    Returns:
        Counts over the whole scene, finished strips included. Failed tiles do not raise.

    Raises:
        OutputError: The disk is full; finished strips stay for ``--resume``.
    """
    step_px = getattr(model, "step_px", None)
    reader = Reader(scene, coarse, model.understands, options, sampler or default_sampler(options), step_px, given)
    batcher = Batcher(model, batch_size(model, options), mosaic, Tally(mosaic.records), options.model.views)
    pool = ThreadPoolExecutor(_readers(model), thread_name_prefix="geosam-read")
    try:
        for look, future in ahead(pool, reader, plan, mosaic.rows, 2 * batcher.limit):
            batcher.take(look, future)
            if look.tile.col == len(plan.lefts) - 1:
                batcher.finish_row(look.tile.row)
            if progress is not None:
                progress(batcher.tally.done, len(plan))
        batcher.finish()
        if progress is not None:
            progress(batcher.tally.done, len(plan))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        batcher.close()
    return batcher.tally.report(len(plan), batcher.limit)


def unprompted(
    scene: Scene,
    model: PromptableModel,
    options: SegmentOptions,
    path: str | Path,
    *,
    threshold: float | None = None,
    progress: Progress | None = None,
    runner: Callable[..., TileReport] | None = None,
) -> Path:
    """Write what a model finds that is given no prompt: the ``learned`` coarse mask.

    Every tile with data runs. The scene's own grid is used: hand in ``scene.decimated(...)`` for a coarse look.

    Args:
        scene: The scene.
        model: One that understands ``none``.
        options: As for :func:`run`; ``tiles.which`` is taken as ``all``.
        path: GeoTIFF to write.
        threshold: None writes the probability, a number the mask of what is above it; see
            :meth:`Mosaic.write_probability` and :meth:`Mosaic.write_mask`.
        progress: Called for every tile.
        runner: Computes the tiles; None: :func:`run`.

    Raises:
        ModelError: The model needs prompts.
        RunError: Every tile failed.
        OutputError: The raster cannot be written.
    """
    if "none" not in model.understands:
        raise ModelError(f"model {model.name} finds nothing without prompts. Choose another --coarse than learned.")
    path = Path(path)
    options = options.model_copy(update={"tiles": options.tiles.model_copy(update={"which": "all"})})
    plan = plan_tiles(scene.shape, model.tile_px, options.tiles.overlap_px)
    mosaic = Mosaic.open(path.with_name(f"{path.name}.work"), plan, scene.geobox)
    try:
        report = (runner or run)(
            scene, NoCoarse(), plan, model, options, mosaic, sampler=lambda *_: no_prompts(), progress=progress
        )
        if report.failed and not report.run:
            raise RunError(f"{scene.source}: all {report.failed} tiles failed. First: {report.failures[0]}")
        return mosaic.write_probability(path) if threshold is None else mosaic.write_mask(path, threshold)
    finally:
        mosaic.discard()


def batch_size(model: PromptableModel, options: SegmentOptions) -> int:
    """Tiles a batch: as asked for, else by the device and the tile's size."""
    side = getattr(model, "input_px", model.tile_px)  # Of a tile as the network sees it, enlarged perhaps.
    return options.model.batch_size or max(1, _BATCH_PX.get(model.device.type, 1 << 20) // side**2)


def _readers(model: PromptableModel) -> int:
    if model.device.type == "cpu":
        return _READERS
    return max(_READERS, min(_READERS_MOST, (os.cpu_count() or 1) // 2))


def signature(
    scene: Scene, coarse: object, model: PromptableModel, options: SegmentOptions
) -> dict[str, dict[str, Any] | str]:
    """What the probabilities of a run depend on, as JSON values: strips of runs that differ in it do not mix.

    Vector options are left out: another threshold or minimum area may be tried on finished strips.
    """
    source = Path(scene.source)
    stat = source.stat() if source.is_file() else None
    return {
        "geosam version": __version__,
        "scene": {
            "source": scene.source,
            "bytes": stat and stat.st_size,
            "modified": stat and stat.st_mtime_ns,
            "crs": str(scene.geobox.crs),
            "affine": list(scene.geobox.affine)[:6],
            "stretch": str(scene.stretch),
        },
        "coarse mask": {key: getattr(coarse, key, None) for key in ("method", "threshold", "water_fraction", "trust")},
        "model": {"name": model.name, "sha256": model.sha256, "device": model.device.type, "dtype": str(model.dtype)},
        "batch size": str(batch_size(model, options)),
        "set of options": options.model_dump(mode="json", exclude={"vector"}),
    }

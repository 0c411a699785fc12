"""``geosam.everything``: from a scene to a file of all its segments."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd

from geosam import __version__
from geosam.errors import RunError
from geosam.models import load_model
from geosam.models.clicks import clicks_of
from geosam.options import EverythingOptions, SegmentOptions, checked
from geosam.pipeline import Progress, at_working_gsd
from geosam.pipeline.outputs import write_json
from geosam.pipeline.report import peak_memory_mb
from geosam.scene import Scene
from geosam.scene.cache import bounded_cache, cache_bytes
from geosam.segments.colours import columns_of, means
from geosam.segments.files import Writer, check_segments, writing
from geosam.segments.generate import Generator, TileCounts, run_notes, segments_of
from geosam.segments.identity import Identity
from geosam.segments.joining import Segment
from geosam.segments.keeping import Kept, keeping
from geosam.segments.outlines import outlines
from geosam.tiling import TilePlan, plan_tiles
from geosam.vector import check_path
from geosam.vector.ground import Ground, ground_of
from geosam.vector.ordered import Crew, crew

if TYPE_CHECKING:
    import xarray

    from geosam.models import PromptableModel

SPECK_PX = 25
"""Segments under so many working pixels are dropped where no area is given."""
AT_ONCE = 2000
"""Segments that are outlined and written in one go."""


@dataclass(frozen=True)
class Everything:
    """What became of a run."""

    out: Path
    segments: int
    report: dict[str, Any]
    """Tiles, seconds, model, options, warnings; plain JSON values."""


def everything(
    scene: str | Path | xarray.DataArray | Scene,
    out: str | Path,
    *,
    model: str | PromptableModel | None = None,
    options: SegmentOptions | None = None,
    report: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    **given: Any,
) -> Everything:
    """Every thing in a scene as a segment, whatever it is: points on a grid, and what the model says to each.

    >>> geosam.everything("ortho.tif", "segments.gpkg", model="sam-vit-base", points_per_side=16)

    Memory does not grow with the scene, but with its width and with what reaches across all of it. Segments may lie
    one over another: a thing, and its parts.

    Args:
        scene: Path, URL or GDAL name of a raster, an xarray.DataArray with a georeference, or an open scene.
        out: The GeoPackage to be; layer ``segments``, one a row: ``id``, ``predicted_iou``, ``stability``,
            ``probability`` (mean over its pixels), ``area_m2``, ``perimeter_m``, ``tiles`` (that it was seen in),
            ``mean_red`` and so on (by band role, in the band's unit), ``ndwi``, ``mndwi`` and ``ndvi`` (means of what
            the bands allow) or ``exg`` (excess green), ``scene``, ``model``.
        model: A name, hub id or folder, or a loaded model; None: as ``options.model`` says.
        options: How the scene is read and cut, and how the model runs.
        report: JSON report of the run.
        overwrite: Replace outputs that exist.
        resume: Go on from the tiles that a killed run with the same ``out`` finished; the result has the same bytes.
        progress: Told the stage, the work done and the work in all.
        **given: Fields of :class:`~geosam.options.EverythingOptions`, such as ``points_per_side`` and ``crops``.

    Raises:
        SceneError: The raster cannot be used as it is.
        ModelError: The model cannot be loaded, or does not understand points.
        OptionsError: An option is unknown or out of range; ``out`` is no GeoPackage.
        OutputError: An output cannot be written; nothing existing was touched.
        RunError: Every tile failed.
    """
    begun = time.perf_counter()
    wanted = checked(EverythingOptions, given, "everything")
    options = SegmentOptions() if options is None else options
    path = check_segments(out, overwrite)
    if report is not None:
        check_path(Path(report), overwrite)
    opened = scene if isinstance(scene, Scene) else Scene.open(scene, options.scene)
    working = at_working_gsd(opened, options.scene)
    generator = Generator(_loaded(model, options), wanted)
    clicks_of(generator.model)
    plan = plan_tiles(working.shape, generator.model.tile_px, options.tiles.overlap_px)
    counts = TileCounts(len(plan))
    identity, notes = Identity.of(working), run_notes(generator, plan)
    work = keeping(path, working, generator, plan, options, resume)
    with work as kept, writing(path, identity, notes) as writer, bounded_cache(cache_bytes(working.decoder.header)):
        _write(writer, working, generator, plan, options, counts, progress, kept)
        if counts.failed and not counts.run:
            raise RunError(f"{working.source}: all {counts.failed} tiles failed. First: {counts.first_failure}")
    facts = _report(working, generator, plan, counts, writer.rows, time.perf_counter() - begun)
    if report is not None:
        write_json(Path(report), facts)
    return Everything(path, writer.rows, facts)


def _loaded(model: str | PromptableModel | None, options: SegmentOptions) -> PromptableModel:
    if model is None or isinstance(model, str):
        named = options.model if model is None else options.model.model_copy(update={"name": model})
        return load_model(named)
    return model


def _write(
    writer: Writer,
    scene: Scene,
    generator: Generator,
    plan: TilePlan,
    options: SegmentOptions,
    counts: TileCounts,
    progress: Progress | None,
    kept: Kept,
) -> None:
    """Segments to the file, as they come."""
    least = generator.options.min_area_m2
    least = SPECK_PX * scene.pixel_area_m2 if least is None else least
    ground = ground_of(scene.geobox, scene.has_crs)
    tell = (lambda done, total: progress("everything", done, total)) if progress else None
    found = segments_of(scene, generator, plan, options, counts, tell, kept)
    with crew() as hands:
        writer.add(_table([], scene, ground, hands, generator.model.name, 1))
        for some in _batches(found):
            table = _table(some, scene, ground, hands, generator.model.name, writer.rows + 1)
            large = table[table["area_m2"] >= least]
            writer.add(large.assign(id=np.arange(writer.rows + 1, writer.rows + 1 + len(large))))


def _batches(found: Iterable[list[Segment]]) -> Iterator[list[Segment]]:
    """So many at a time as are outlined together, never fewer than a tile row gives."""
    for some in found:
        for start in range(0, len(some), AT_ONCE):
            yield some[start : start + AT_ONCE]


def _table(
    segments: list[Segment], scene: Scene, ground: Ground, hands: Crew, model: str, first: int
) -> gpd.GeoDataFrame:
    masks = [segment.runs for segment in segments]
    drawn = outlines(masks, ground, hands)
    colours = means(scene, masks)
    columns: dict[str, Any] = {"id": np.arange(first, first + len(segments))}
    for name in ("predicted_iou", "stability", "probability"):
        columns[name] = np.array([getattr(segment, name) for segment in segments], float).round(4)
    columns |= {"area_m2": drawn.area_m2, "perimeter_m": drawn.perimeter_m}
    columns["tiles"] = np.array([segment.tiles for segment in segments], np.int64)
    columns |= {name: colours[name].round(4) for name in columns_of(scene)}
    for name, text in (("scene", scene.name), ("model", model)):
        columns[name] = pd.Series([text] * len(segments), dtype="str")
    return gpd.GeoDataFrame(columns, geometry=drawn.shapes, crs=ground.crs)


def _report(
    scene: Scene, generator: Generator, plan: TilePlan, counts: TileCounts, segments: int, seconds: float
) -> dict[str, Any]:
    model = generator.model
    return {
        "geosam": __version__,
        "scene": scene.source,
        "size_px": [scene.shape[1], scene.shape[0]],
        "crs": str(scene.geobox.crs) if scene.has_crs else None,
        "tiles": {name: getattr(counts, name) for name in ("total", "nodata", "run", "failed")},
        "first_failure": counts.first_failure,
        "overlap_px": plan.overlap_px,
        "segments": segments,
        "seconds": round(seconds, 3),
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "peak_memory_mb": peak_memory_mb(),
        "model": {"name": model.name, "sha256": model.sha256},
        "warnings": list(scene.warnings),
        "options": generator.options.model_dump(mode="json"),
    }

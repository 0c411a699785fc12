"""The control points of a whole scene as a vector layer."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from geosam.coarse import CoarseMask
from geosam.options import SegmentOptions
from geosam.pipeline.guess import at_working_gsd, first_guess
from geosam.pipeline.report import Progress
from geosam.prompts import WATER, sample_prompts
from geosam.scene import Scene
from geosam.tiling import Tile, TilePlan, plan_tiles
from geosam.vector import check_output, write_rivers


def write_prompts(
    scene: str | Path | Scene,
    options: SegmentOptions | None = None,
    out: str | Path = "prompts.geojson",
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Write the points that :func:`geosam.segment` would prompt the model with.

    Args:
        scene: Path, URL or GDAL name, or an open scene.
        options: As for a run; the seed and the tile grid are heeded, so the points are the run's own.
        out: .geojson, .gpkg, .fgb or .parquet.
        overwrite: Replace an existing file.
        progress: Told the stage, work done and work in all.

    Returns:
        Points written and water bodies prompted.
    """
    import geopandas as gpd

    from geosam.models import load_model

    options = SegmentOptions() if options is None else options
    check_output(out, overwrite)
    opened = scene if isinstance(scene, Scene) else Scene.open(scene, options.scene)
    check_output(out, overwrite, has_crs=opened.has_crs)
    working, model = at_working_gsd(opened, options.scene), load_model(options.model)
    tell = progress or (lambda stage, done, total: None)
    with tempfile.TemporaryDirectory(prefix="geosam-") as folder:
        coarse = first_guess(working, model, options, Path(folder), lambda d, t: tell("coarse", d, t))
        plan = plan_tiles(working.shape, model.tile_px, options.tiles.overlap_px)
        rows = list(_rows(working, coarse, plan, options))
    columns = ["label", "tile", "body", "x", "y"]
    table = gpd.pd.DataFrame(rows, columns=columns)
    points = gpd.points_from_xy(table.pop("x"), table.pop("y"))
    layer = gpd.GeoDataFrame(table, geometry=points, crs=working.geobox.crs if working.has_crs else None)
    write_rivers(layer, out, overwrite)
    return len(layer), len({(row[1], row[2]) for row in rows})


def _rows(
    scene: Scene, coarse: CoarseMask, plan: TilePlan, options: SegmentOptions
) -> Iterator[tuple[str, int, int, float, float]]:
    for tile in (tile for row in plan.rows() for tile in row):
        water, valid = coarse.read(tile.window)
        if water.any():
            yield from _tile_rows(scene, tile, water, valid, options)


def _tile_rows(
    scene: Scene, tile: Tile, water: Any, valid: Any, options: SegmentOptions
) -> Iterator[tuple[str, int, int, float, float]]:
    """Points of a tile in the scene's CRS: label, tile, body, x, y."""
    rng = np.random.default_rng([options.seed, tile.index])
    prompts = sample_prompts(water, valid, options.prompts, rng)
    for body in range(len(prompts)):
        for (x, y), label in zip(prompts.points[body], prompts.labels[body], strict=True):
            if label >= 0:
                east, north = scene.geobox.affine @ (float(x) + tile.window.col_off, float(y) + tile.window.row_off)
                yield "water" if label == WATER else "dry", tile.index, body, east, north

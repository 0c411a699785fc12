"""Run as a process of its own: small runs on made-up scenes, timed.

They go the whole way of ``geosam segment``, so that what is measured is what will run: loading, reading, prompts, the
model, blending, outlines. Nothing is left out because it was thought to be cheap.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from geosam.errors import GeosamError
from geosam.mosaic import Mosaic
from geosam.options import CoarseOptions, SceneOptions, SegmentOptions, TileOptions
from geosam.pipeline import segment
from geosam.pipeline.report import peak_memory_mb
from geosam.tiling import plan_tiles
from geosam.vector import Strip, polygonize

LAND, WATER = (60, 80, 60, 150), (50, 70, 60, 20)
"""Red, green, blue and near infrared of grass and of a river: an index parts them, as where there is infrared."""
DRY_TILES = 16
ROWS = 8
STRIP_SIDE_PX = 2048
SLOW_S = 10.0
"""A model that takes this long for its first batch is not asked for more of them."""
_PLACE = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)


def main(begun: float) -> None:
    """Read options as JSON from stdin, measure, and print figures, or an error, as a line of JSON.

    Args:
        begun: When the process began, by :func:`time.perf_counter`.
    """
    options = SegmentOptions.model_validate_json(sys.stdin.read())
    try:
        with tempfile.TemporaryDirectory(prefix="geosam-estimate-") as folder:
            found = probe(options, Path(folder), begun)
    except GeosamError as error:
        found = {"error": str(error)}
    print(json.dumps(found))


def probe(options: SegmentOptions, folder: Path, begun: float) -> dict[str, Any]:
    """Figures of a :class:`~geosam.estimate.machine.Calibration`.

    Raises:
        ModelError: The model cannot be loaded.
    """
    from geosam.models import load_model
    from geosam.predict import batch_size

    model = load_model(options.model)
    runs = _Runs(of_the_probe(options), folder, model)
    batch = batch_size(model, options)
    first = runs.on_river(batch)
    started_s, read_mb = time.perf_counter() - begun, _read_mb()
    # A first batch warms up: kernels are chosen and memory is asked for.
    timed, tiles = (first, batch) if first["predict"] > SLOW_S else (runs.on_river(2 * batch), 2 * batch)
    memory_mb = peak_memory_mb()
    row_s = runs.row_s()
    tile_s = max(timed["predict"] - row_s, 1e-6) / tiles
    return {
        "model": model.name, "sha256": model.sha256, "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."), "tile_px": model.tile_px, "batch_size": batch,
        "strip_threads": min(8, os.cpu_count() or 1),
        "start_s": max(started_s - batch * tile_s, 0.0), "tile_s": tile_s,
        "dry_tile_s": max(runs.on_land() - row_s, 0.0) / DRY_TILES, "row_s": row_s,
        "vector_tile_s": timed["vectorize"] / tiles, "vector_s_mpx": _vector_s_mpx(),
        "memory_mb": memory_mb, "read_mb": read_mb,
    }  # fmt: skip


def of_the_probe(options: SegmentOptions) -> SegmentOptions:
    """The options of the run to be estimated, on a scene of ours, of which every tile is to run."""
    which = "none" if options.prompts.which == "none" else "auto"
    no_files = {"points_file": None, "boxes_file": None, "mask_file": None}
    return SegmentOptions(
        scene=SceneOptions(bands="red=1,green=2,blue=3,nir=4", gsd="native"),
        coarse=CoarseOptions(),
        prompts=options.prompts.model_copy(update={"which": which, **no_files}),
        tiles=TileOptions(which="all"),
        model=options.model,
    )


class _Runs:
    """Runs on scenes of one row of tiles."""

    def __init__(self, options: SegmentOptions, folder: Path, model: Any) -> None:
        self.options, self.folder, self.model = options, folder, model

    def on_river(self, tiles: int) -> dict[str, float]:
        """Seconds by stage where every tile runs."""
        return self._seconds(self.options, self._scene(tiles, wet=True))

    def on_land(self) -> float:
        """Seconds of :data:`DRY_TILES` that are only looked at."""
        dry = self.options.tiles.model_copy(update={"which": "water"})
        prompts = self.options.prompts.model_copy(update={"which": "auto"})
        options = self.options.model_copy(update={"tiles": dry, "prompts": prompts})
        return self._seconds(options, self._scene(DRY_TILES, wet=False))["predict"]

    def row_s(self) -> float:
        """Seconds that a row of tiles takes for itself."""
        px = self.model.tile_px
        plan = plan_tiles((ROWS * px, px), px, 0)
        mosaic = Mosaic.open(self.folder / "rows", plan, GeoBox(plan.shape, _PLACE, "EPSG:32632"))
        begun = time.perf_counter()
        for tile in plan.tiles:
            mosaic.add_nothing(tile)
            mosaic.finish_row(tile.row)
        return (time.perf_counter() - begun) / ROWS

    def _seconds(self, options: SegmentOptions, scene: Path) -> dict[str, float]:
        report = segment(scene, options, out=self.folder / "out.gpkg", model=self.model, overwrite=True).report
        seconds: dict[str, float] = report["seconds"]
        return seconds

    def _scene(self, tiles: int, wet: bool) -> Path:
        """A winding river from end to end of a row of tiles, a sixth of it water; or the land without it."""
        px = self.model.tile_px
        width = px + (tiles - 1) * (px - px // 8)
        middle = px * (0.5 + 0.3 * np.sin(np.arange(width) * 3.7 / px))
        river = (np.abs(np.arange(px)[:, None] - middle) < px / 12) & wet
        noise = np.random.default_rng(0).integers(-8, 9, (px, width), np.int16)
        path = self.folder / "scene.tif"
        profile = {"driver": "GTiff", "count": 4, "dtype": "uint8", "height": px, "width": width}
        with rasterio.open(path, "w", **profile, tiled=True, crs="EPSG:32632", transform=_PLACE) as file:
            for band, (land, water) in enumerate(zip(LAND, WATER, strict=True), start=1):
                file.write((np.where(river, water, land) + noise).astype(np.uint8), band)
        return path


def _vector_s_mpx() -> float:
    """Seconds to find that a million pixels have no water."""
    values = np.zeros((STRIP_SIDE_PX, STRIP_SIDE_PX), np.float32)
    begun = time.perf_counter()
    polygonize([Strip(0, values > 0.5, values)], GeoBox(values.shape, _PLACE, "EPSG:32632"))
    return (time.perf_counter() - begun) / (values.size / 1e6)


def _read_mb() -> int:
    """What this process had to wait for from the disk, MB; 0 where the system does not count it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_inblock * 512 // 2**20

"""Writes a scene and its truth, square by square."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from geosam.errors import OutputError
from geosam.synth.options import SynthOptions
from geosam.synth.scene import BLOCK, RiverScene

FILES = ("scene.tif", "truth.tif", "truth.gpkg", "scene.json")
"""What :func:`write_scene` leaves in the folder."""


@dataclass(frozen=True)
class Written:
    """What a scene on disk holds."""

    water_px: int
    """Pixels of water."""
    water_fraction: float
    """Their share of the pixels with data, 0 to 1."""
    polygons: int
    """Polygons in ``truth.gpkg``."""


_Square = tuple[Window, NDArray[Any], NDArray[np.uint8]]


def write_scene(
    options: SynthOptions,
    folder: str | Path,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Make a scene on disk: ``scene.tif``, ``truth.tif`` (0, 1; 255 in the collar), ``truth.gpkg``, ``scene.json``.

    Only a few squares of 512 px are in memory at a time, whatever the scene's size. Everything is
    made under another name in the same folder and renamed when it is whole.

    Args:
        options: What to make.
        folder: Made if it is missing; its parent must exist.
        overwrite: Replace the four files if they exist.
        progress: Called with (squares done, squares in all).

    Returns:
        How much water it holds.

    Raises:
        OutputError: A file exists, the parent folder is missing, or the disk refuses.
    """
    folder = Path(folder)
    _refuse(folder, overwrite)
    made_folder = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".synth-", dir=folder) as work:
            facts = _write_all(RiverScene(options), Path(work), progress)
            for name in FILES:
                os.replace(Path(work) / name, folder / name)
        return facts
    except (OSError, rasterio.errors.RasterioError) as error:
        if made_folder:
            shutil.rmtree(folder, ignore_errors=True)
        raise OutputError(f"{folder} cannot be written: {error}. Give a writable --out with enough room.") from error


def _refuse(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file. Give a folder to --out.")
    if not folder.parent.is_dir():
        raise OutputError(f"{folder.parent} does not exist. Make it, or give another --out.")
    found = [name for name in FILES if (folder / name).exists()]
    if found and not overwrite:
        raise OutputError(f"{folder / found[0]} exists. Give another --out, or --overwrite to replace it.")


def _write_all(scene: RiverScene, work: Path, progress: Callable[[int, int], None] | None) -> Written:
    wet = _write_rasters(scene, work, progress)
    frame: geopandas.GeoDataFrame = scene.truth
    with warnings.catch_warnings():
        # A scene without CRS was asked for; its truth has none either.
        warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
        frame.to_file(work / "truth.gpkg", layer="truth", driver="GPKG")
    (work / "scene.json").write_text(scene.options.model_dump_json(indent=2) + "\n", encoding="utf-8")
    c = 2 * scene.options.collar_px
    data = (scene.shape[0] - c) * (scene.shape[1] - c)
    return Written(wet, wet / data, len(frame))


def _write_rasters(scene: RiverScene, work: Path, progress: Callable[[int, int], None] | None) -> int:
    """Write the picture and the truth; the number of water pixels."""
    wet, total = 0, -(-scene.shape[0] // BLOCK) * -(-scene.shape[1] // BLOCK)
    picture = _profile(scene, scene.count, scene.options.dtype, scene.nodata)
    with (
        # GDAL's block cache would fill with squares that are never read again.
        rasterio.Env(GDAL_CACHEMAX=64, GDAL_NUM_THREADS="ALL_CPUS"),
        rasterio.open(work / "scene.tif", "w", **picture) as pixels,
        rasterio.open(work / "truth.tif", "w", **_profile(scene, 1, "uint8", 255)) as truth,
    ):
        _describe(pixels, scene)
        truth.set_band_description(1, "water")
        for done, (window, bands, water) in enumerate(_squares(scene), 1):
            pixels.write(bands, window=window)
            truth.write(water, 1, window=window)
            wet += int((water == 1).sum())
            if progress is not None:
                progress(done, total)
    return wet


def _profile(scene: RiverScene, count: int, dtype: str, nodata: float | None) -> dict[str, Any]:
    return {
        "driver": "GTiff", "height": scene.shape[0], "width": scene.shape[1], "count": count, "dtype": dtype,
        "crs": scene.crs, "transform": scene.transform, "nodata": nodata, "tiled": True, "blockxsize": BLOCK,
        "blockysize": BLOCK, "compress": "deflate", "zlevel": 1, "bigtiff": "IF_SAFER", "interleave": "pixel",
    }  # fmt: skip


def _describe(file: Any, scene: RiverScene) -> None:
    names = ("red", "green", "blue", "nir")[: scene.count]
    for k, name in enumerate(names, 1):
        file.set_band_description(k, name)
    # GDAL before 3.10 has no word for infrared; the description says it there.
    last = (getattr(ColorInterp, "nir", ColorInterp.undefined),) if scene.count == 4 else ()
    file.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, *last)


def _squares(scene: RiverScene) -> Iterator[_Square]:
    """Every square in file order, painted by a few threads, with no more than a few waiting."""
    workers = max(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 1)
    height, width = scene.shape
    windows = (
        Window(c, r, min(BLOCK, width - c), min(BLOCK, height - r))
        for r in range(0, height, BLOCK)
        for c in range(0, width, BLOCK)
    )
    with ThreadPoolExecutor(min(workers, 8)) as pool:
        waiting: list[Future[_Square]] = [pool.submit(_square, scene, w) for w in islice(windows, 2 * workers)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(_square, scene, w) for w in islice(windows, 1)]


def _square(scene: RiverScene, window: Window) -> _Square:
    return window, scene.render(window), scene.water(window)

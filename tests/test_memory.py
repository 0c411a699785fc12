"""Memory follows the byte budgets of the stages, neither the scene's length nor its width.

Traced are numpy's arrays and Python's own objects; GDAL's cache has a limit of its own, which is looked at as well.
"""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio._env import get_gdal_config
from rasterio.transform import from_origin
from rasterio.windows import Window

from geosam import mosaic as mosaic_room
from geosam.coarse import mask as mask_room
from geosam.coarse.clean import Limits
from geosam.coarse.rules import BAND_RULES
from geosam.evaluate import compare
from geosam.options import SceneOptions, SegmentOptions
from geosam.pipeline import Rivers, segment
from geosam.prompts import Prompts
from geosam.scene import Scene
from geosam.scene.cache import CACHE_BYTES, ONCE_BYTES
from geosam.vector import corners as corners_room
from geosam.vector import polygonize_raster
from geosam.vector import raster as raster_room

SMALL, TALL, WIDE = (1024, 512), (4096, 512), (1024, 2048)
"""(rows, cols): half a Mpx, and four times as much. A byte a pixel held is 2 MB, and the stages take 1."""
SHAPES = pytest.mark.parametrize("shape", [TALL, WIDE], ids=["tall", "wide"])


def raster(path: Path, shape: tuple[int, int], bands: int) -> Path:
    """A raster in blocks of 32 px with one pond in the first rows: what is found does not grow with the shape."""
    profile = {"driver": "GTiff", "height": shape[0], "width": shape[1], "count": bands, "dtype": "uint8"}
    layout = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate", "nodata": 255}
    place = {"crs": "EPSG:32610", "transform": from_origin(450_000, 5_300_000, 2.0, 2.0)}
    dry, wet = ((0,), (1,)) if bands == 1 else ((60, 80, 60, 150), (60, 90, 60, 20))
    with rasterio.open(path, "w", **profile, **layout, **place) as out:
        for row in range(0, shape[0], 64):
            values = np.broadcast_to(np.array(dry, np.uint8)[:, None, None], (bands, 64, shape[1])).copy()
            if row == 0:
                values[:, 8:40, 50:150] = np.array(wet, np.uint8)[:, None, None]
            out.write(values, window=Window(0, row, shape[1], 64))
        if bands == 4:
            out.descriptions = ("red", "green", "blue", "nir")
    return path


def peak(work: Callable[[], object]) -> int:
    """Most bytes that Python and numpy held at once; run the work once before, so that all is imported."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@SHAPES
def test_the_coarse_mask_does_not_hold_the_scene(
    shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, small in (("TILE_PX", 32), ("_STRIP_PX", 2**17), ("_CHUNK_PX", 2**14)):
        monkeypatch.setattr(mask_room, name, small)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)

    def taken(size: tuple[int, int]) -> int:
        path = raster(tmp_path / f"{size[0]}.tif", size, 4)
        scene = Scene.open(path, SceneOptions(gsd="native"))
        made = scene, BAND_RULES["ndwi"], 0.2, Limits(40.0, 20.0), tmp_path / "coarse.tif", lambda done, total: None
        assert mask_room._make(*made) == (32 * 100, size[0] * size[1])
        return peak(lambda: mask_room._make(*made))

    assert taken(shape) < 2 * taken(SMALL)


@SHAPES
def test_polygons_are_made_without_holding_the_mask(
    shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raster_room, "STRIP_PX", 2**18)
    monkeypatch.setattr(raster_room, "_PART_PX", 2**16)
    monkeypatch.setattr(corners_room, "CHUNK_PX", 2**16)

    def taken(size: tuple[int, int]) -> int:
        path = raster(tmp_path / f"{size[0]}.tif", size, 1)
        assert polygonize_raster(path).area_m2[0] == pytest.approx(32 * 100 * 4.0, rel=0.01)
        return peak(lambda: polygonize_raster(path))

    assert taken(shape) < 2 * taken(SMALL)


def test_gdal_caches_no_more_than_the_stage_allows_in_every_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rasterio's limits are the process's: threads that set one each would put back each other's."""
    monkeypatch.delenv("GDAL_CACHEMAX", raising=False)
    before, seen = get_gdal_config("GDAL_CACHEMAX"), []
    classify = mask_room._classified

    def spied(*given: object) -> object:
        found = classify(*given)  # type: ignore[arg-type]
        seen.append(get_gdal_config("GDAL_CACHEMAX"))
        return found

    monkeypatch.setattr(mask_room, "_classified", spied)
    monkeypatch.setattr(mask_room, "TILE_PX", 32)
    scene = Scene.open(raster(tmp_path / "scene.tif", (512, 256), 4), SceneOptions(gsd="native"))
    progress: list[int] = []
    mask_room._make(
        scene, BAND_RULES["ndwi"], 0.2, Limits(40.0, 20.0), tmp_path / "coarse.tif",
        lambda done, total: progress.append(get_gdal_config("GDAL_CACHEMAX")),
    )  # fmt: skip
    assert set(seen) == {CACHE_BYTES}
    assert (progress[0], progress[-1]) == (CACHE_BYTES, ONCE_BYTES)
    assert get_gdal_config("GDAL_CACHEMAX") == before


class SaysWater:
    """A model that finds water wherever it is asked."""

    name, tile_px, sha256, threshold = "wet", 128, "0" * 64, 0.5
    device, dtype, understands = torch.device("cpu"), torch.float32, frozenset({"points", "none"})

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def decode(self, embeddings: torch.Tensor, prompts: list[Prompts]) -> torch.Tensor:
        return torch.full((len(embeddings), 128, 128), 1.0)


@SHAPES
def test_a_run_does_not_hold_the_scene(shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, small in (("TILE_PX", 32), ("_STRIP_PX", 2**17), ("_CHUNK_PX", 2**14)):
        monkeypatch.setattr(mask_room, name, small)
    monkeypatch.setattr(mosaic_room, "_STRIP_PX", 2**17)
    monkeypatch.setattr(corners_room, "CHUNK_PX", 2**16)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    look = Scene.sample
    monkeypatch.setattr(Scene, "sample", lambda scene, roles, max_px=0: look(scene, roles, 2**14))

    def taken(size: tuple[int, int]) -> int:
        path = raster(tmp_path / f"{size[0]}.tif", size, 4)
        options = SegmentOptions.from_mapping(
            {"coarse": {"method": "ndwi", "threshold": 0.2}, "scene": {"gsd": "native"}}
        )

        def run() -> Rivers:
            return segment(path, options, out=tmp_path / "rivers.gpkg", model=SaysWater(), overwrite=True)

        assert len(run().polygons) == 1
        return peak(run)

    assert taken(shape) < 2 * taken(SMALL)


@SHAPES
def test_a_result_is_scored_without_holding_it(shape: tuple[int, int], tmp_path: Path) -> None:
    def taken(size: tuple[int, int]) -> int:
        path = raster(tmp_path / f"{size[0]}.tif", size, 1)
        assert compare(path, path, strip_px=2**17).tally.iou == 1
        return peak(lambda: compare(path, path, strip_px=2**17))

    assert taken(shape) < 2 * taken(SMALL)

"""Raster layers of the page: the ortho in any bands and stretch, the coarse mask, the probability."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject
from rasterio.windows import Window

from geosam.errors import OptionsError
from geosam.scene import Scene, Stretch
from geosam.viewer.place import Place, mapped

TILE_PX = 256
"""Side of the page's own tiles, which have nothing to do with the model's."""
LOOK_PX = 1_000_000
"""Pixels of the sample that a stretch is fitted to."""
WATER_RGB = (31, 155, 255)
QUIET = threading.Lock()
"""Held where warnings are silenced, by rasterio itself too: Python does that for all threads at once."""
BLUES = {sure: (*WATER_RGB, sure) for sure in range(256)}
"""Water of one colour, as opaque as it is sure."""


@dataclass(frozen=True)
class View:
    """How the ortho is shown."""

    bands: tuple[str, ...] = ()
    """Roles of red, green and blue, or of one band; none: as the model sees it."""
    percent: float = 1.0
    """Share of pixels, in percent, that the stretch clips at either end; with bands only."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One tile of a layer."""

    values: NDArray[np.uint8]
    """Shape (3, h, w) as red, green and blue, or (1, h, w) to be coloured by ``colours``."""
    valid: NDArray[np.bool_]
    """Shape (h, w): False where there is nothing to show."""
    colours: dict[int, tuple[int, int, int, int]] | None = None
    """Red, green, blue and alpha of a value."""


class RasterLayer(Protocol):
    """What the page can show as tiles."""

    def picture(self, grid: GeoBox, view: View) -> Picture:
        """The layer on a square of web mercator."""
        ...


class OrthoLayer:
    """The scene itself, read as every other reader of it does: same valid pixels, same stretch."""

    def __init__(self, scene: Scene, place: Place) -> None:
        self._scene, self._place = scene, place
        self._stretches: dict[View, Stretch] = {}

    def picture(self, grid: GeoBox, view: View) -> Picture:
        """See :class:`RasterLayer`."""
        window, times = self._window(grid)
        out = np.zeros((4, *grid.shape), np.uint8)
        if window is None:
            return Picture(out[:3], out[3] > 0)
        height, width = self._scene.shape
        small = self._scene.in_shape((max(1, round(height / times)), max(1, round(width / times))))
        # What is read is no more than a few times the tile, however large the scene.
        part = _scaled(window, small.shape, self._scene.shape)
        rgb, valid = self._read(small, part, view)
        source = np.concatenate([np.moveaxis(rgb, -1, 0), valid[None].astype(np.uint8) * 255])
        scale = Affine.scale(width / small.shape[1], height / small.shape[0])
        affine = self._place.geobox.affine @ scale @ Affine.translation(part.col_off, part.row_off)
        fine = times <= 1 and abs(grid.affine.a) < abs(affine.a)  # Enlarged: pixels are shown as they are.
        with QUIET:
            reproject(
                source, out, src_transform=affine, src_crs=str(self._place.geobox.crs), dst_transform=grid.affine,
                dst_crs=str(grid.crs), resampling=Resampling.nearest if fine else Resampling.bilinear,
            )  # fmt: skip
        return Picture(out[:3], out[3] > 127)

    def stretch(self, view: View) -> Stretch:
        """Band units of black and white, one stretch for the whole scene."""
        if not view.bands:
            return self._scene.stretch
        if view not in self._stretches:
            roles = tuple(dict.fromkeys(view.bands))
            sample = self._scene.sample(roles, LOOK_PX)
            ends = [_ends(sample.values[roles.index(band)][sample.valid], view.percent) for band in _three(view.bands)]
            lows, highs = zip(*ends, strict=True)
            self._stretches[view] = Stretch(lows, highs)
        return self._stretches[view]

    def _read(self, small: Scene, part: Window, view: View) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        if not view.bands:
            return small.read_rgb(part)
        roles = tuple(dict.fromkeys(view.bands))
        block = small.read(part, roles)
        planes = block.values[[roles.index(band) for band in _three(view.bands)]]
        rgb = self.stretch(view).apply(planes)
        rgb[~block.valid] = 0
        return rgb, block.valid

    def _window(self, grid: GeoBox) -> tuple[Window | None, float]:
        """The part of the scene under a tile with a margin for resampling, and how many pixels one of the tile has."""
        under = pixels_under(grid, self._place)
        if under is None:
            return None, 1.0
        low, high = under
        times = max(1.0, float((high - low).max()) / TILE_PX)
        margin = 2 * times
        height, width = self._scene.shape
        left, top = (max(0.0, math.floor(value - margin)) for value in low)
        right, bottom = min(width, math.ceil(high[0] + margin)), min(height, math.ceil(high[1] + margin))
        if right <= left or bottom <= top:
            return None, times
        return Window(left, top, right - left, bottom - top), times


class FileLayer:
    """One band of a raster file in one colour: how opaque says how much."""

    def __init__(self, path: str | Path, scene: Scene, place: Place, *, option: str, is_mask: bool) -> None:
        self._path, self._place, self._mask = str(path), place, is_mask
        self._source: dict[str, object] = {}
        with _opened(option, self._path) as file:
            if file.crs is not None and place.is_real:
                return
            if file.shape != scene.shape:
                raise OptionsError(
                    f"{option} {path} is {file.width} x {file.height} px without a place of its own, and "
                    f"{scene.source} is {scene.shape[1]} x {scene.shape[0]} px. Give a raster on the scene's grid."
                )
            self._source = {"src_crs": str(place.geobox.crs), "src_transform": place.geobox.affine}

    def picture(self, grid: GeoBox, view: View) -> Picture:
        """See :class:`RasterLayer`."""
        how = Resampling.nearest if self._mask else Resampling.bilinear
        with _opened("the layer", self._path) as file:
            options = {"crs": str(grid.crs), "transform": grid.affine, "height": grid.shape[0], "width": grid.shape[1]}
            with WarpedVRT(file, resampling=how, add_alpha=file.nodata is None, **self._source, **options) as warped:
                values = warped.read(1, masked=True)
                inside = warped.dataset_mask() > 0
        known = inside & ~np.ma.getmaskarray(values) & np.isfinite(values.filled(0))
        found = np.where(known, values.filled(0), 0).astype(np.float32)
        sure = found > 0 if self._mask else found.clip(0, 1)
        return Picture(np.rint(sure * np.float32(255)).astype(np.uint8)[None], known, BLUES)


def pixels_under(grid: GeoBox, place: Place) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """The least and the greatest (x, y) of a scene's pixels under a tile, shape (2,) each; None where it has none."""
    height, width = grid.shape
    nodes = np.array(np.meshgrid(np.linspace(0, width, 9), np.linspace(0, height, 9)))
    xy = place.pixels(_from_mercator(mapped(grid.affine, nodes.reshape(2, -1).T)))
    return (xy.min(axis=0), xy.max(axis=0)) if np.isfinite(xy).all() else None


def _opened(option: str, path: str) -> rasterio.DatasetReader:
    try:
        with QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(path)
    except RasterioError as error:
        raise OptionsError(f"{option} {path} is not a raster that can be read ({error}).") from None


def _from_mercator(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    radius = 6_378_137.0
    lon = np.degrees(xy[:, 0] / radius)
    lat = np.degrees(2 * np.arctan(np.exp(xy[:, 1] / radius)) - np.pi / 2)
    return np.stack([lon, lat], axis=1)


def _three(bands: Sequence[str]) -> tuple[str, str, str]:
    return (bands[0], bands[0], bands[0]) if len(bands) == 1 else (bands[0], bands[1], bands[2])


def _ends(values: NDArray[np.float32], percent: float) -> tuple[float, float]:
    if values.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(values, [percent, 100 - percent])
    return float(low), float(max(high, low + 1e-6 * max(1.0, abs(low))))


def _scaled(window: Window, small: tuple[int, int], full: tuple[int, int]) -> Window:
    """A window of the full grid on a smaller one, in whole pixels that hold it."""
    across, down = small[1] / full[1], small[0] / full[0]
    left, top = math.floor(window.col_off * across), math.floor(window.row_off * down)
    right = min(small[1], math.ceil((window.col_off + window.width) * across))
    bottom = min(small[0], math.ceil((window.row_off + window.height) * down))
    return Window(left, top, max(1, right - left), max(1, bottom - top))

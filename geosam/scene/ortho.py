"""The scene itself: a header, a working grid, and reads by window."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from geosam.errors import SceneError
from geosam.options import SceneOptions
from geosam.scene.aoi import Aoi
from geosam.scene.bands import display_bands
from geosam.scene.grid import pixel_size_m, resized, rounded_ratio
from geosam.scene.header import Box, Mask
from geosam.scene.pixels import Decoder
from geosam.scene.resample import Axis, resample
from geosam.scene.sampling import plan_sample
from geosam.scene.stretch import Stretch

if TYPE_CHECKING:
    import xarray

CHUNK_PX = 4 * 2**20
"""Source pixels a band held at once while resampling."""
FINEST = 64
"""Times finer than the file that a working grid may be; more is a slip of units."""


@dataclass(frozen=True)
class Block:
    """The pixels of a window."""

    values: NDArray[np.float32]
    """Shape (bands, h, w), scale and offset applied; 0 where not valid."""
    valid: Mask
    """Shape (h, w); True = data in every band that was asked for."""


@dataclass(frozen=True, repr=False, eq=False)
class Scene:
    """An orthoimage: a cheap, picklable header that reads windows of a working grid.

    The working grid is the file's own, cropped to the area of interest, and coarser or finer
    after :meth:`at_gsd` or :meth:`decimated`. Every window and shape is in its pixels. Reading
    is safe from several threads at once.
    """

    source: str
    """Path, URL or GDAL name as given; ``memory`` or the array's name for an xarray.DataArray."""
    name: str
    """The source without folders and suffix."""
    geobox: GeoBox
    """Shape, affine and CRS of the working grid; without CRS the affine is in pixels, y down."""
    bands: Mapping[str, int]
    """Role to 1-based band: red, green, blue, nir, swir1, swir2 and what else the file names."""
    dtype: str
    """numpy name of the stored values."""
    count: int
    """Bands of the source; a palette counts as four (red, green, blue, alpha)."""
    stretch: Stretch
    """From band units to eight bits, one for the whole scene."""
    has_crs: bool
    """False only with ``allow_no_crs``: then lengths are in pixels."""
    native_gsd_m: float
    """Ground size of the file's own pixels in metres (geometric mean of both axes); NaN without CRS."""
    valid_fraction: float
    """Share of valid pixels in the sample that the stretch was fitted to."""
    warnings: tuple[str, ...] = ()
    """What the user should know, a sentence or two each."""
    decoder: Decoder = field(kw_only=True)
    """Reads the source and tells data from no data."""
    crop: Box = field(kw_only=True)
    """The working grid's place in the source, in its full-resolution pixels."""
    aoi: Aoi | None = field(default=None, kw_only=True)
    """Area of interest; what is outside is not valid."""

    @classmethod
    def open(cls, source: str | Path | xarray.DataArray, options: SceneOptions | None = None) -> Scene:
        """Read the header of a raster and look at a sample of it.

        Args:
            source: Anything GDAL opens (path, URL, /vsi path, ``DRIVER:name``), or an
                xarray.DataArray with dimensions (band, y, x) or (y, x, band) and an odc-geo or
                rioxarray georeference.
            options: Band roles, area of interest and working resolution. ``gsd="auto"`` stays
                native here: which resolution is best depends on the model, so the pipeline chooses.

        Raises:
            SceneError: The raster cannot be used as it is; the message says why and what to do.
        """
        from geosam.scene.opening import open_scene

        return open_scene(source, options or SceneOptions())

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the working grid in pixels."""
        return int(self.geobox.shape[0]), int(self.geobox.shape[1])

    @cached_property
    def pixel_size_m(self) -> tuple[float, float]:
        """Ground length of a pixel along its row and down its column at the scene centre, metres; NaN without CRS."""
        return pixel_size_m(self.geobox)

    @property
    def gsd_m(self) -> float:
        """Ground sampling distance of the working grid in metres: the geometric mean of both axes; NaN without CRS."""
        return math.sqrt(math.prod(self.pixel_size_m))

    @property
    def pixel_area_m2(self) -> float:
        """Ground area of a pixel at the scene centre in square metres; 1.0 without CRS."""
        area = math.prod(self.pixel_size_m)
        return area if math.isfinite(area) else 1.0

    def read(self, window: Window, roles: Sequence[str]) -> Block:
        """Read bands by role.

        Args:
            window: Whole pixels of the working grid; may overhang the scene, where nothing is valid.
            roles: Such as ``("green", "nir")``.

        Raises:
            SceneError: The scene has no such band.
            RunError: The source could not be read there.
        """
        values, valid = self._read(window, [self._band(role) for role in roles])
        return Block(values, valid)

    def read_rgb(self, window: Window) -> tuple[NDArray[np.uint8], Mask]:
        """Read the stretched picture, uint8 (h, w, 3), 0 where not valid, and valid, bool (h, w).

        A colour that the scene lacks is lent by its neighbour in the spectrum: blue by green, green by red.

        Raises:
            RunError: The source could not be read there.
        """
        bands = display_bands(self.bands)
        if self.is_native and self.is_eight_bit:
            return self._read_eight_bit(window, bands)
        values, valid = self._read(window, bands)
        rgb = self.stretch.apply(values)
        rgb[~valid] = 0
        return rgb, valid

    def read_valid(self, window: Window) -> Mask:
        """Where the picture has data, bool (h, w): the same as from :meth:`read_rgb`."""
        bands = display_bands(self.bands)
        everywhere = self.decoder.all_valid(bands)
        if not (everywhere or self.is_native):
            return self._read(window, bands)[1]
        valid = np.zeros((int(window.height), int(window.width)), bool)
        inside, place = self._inside(window)
        if inside is not None:
            shape = (inside.height, inside.width)
            good = np.ones(shape, bool) if everywhere else self.decoder.valid(bands, self._native_box(inside))
            valid[place] = good if self.aoi is None else good & self.aoi.mask(shape, self._to_raster(inside))
        return valid

    def sample(self, roles: Sequence[str], max_px: int = 2_000_000) -> Block:
        """A look at the whole scene that costs O(max_px), however large it is.

        A decimated read where the scene is small or has overviews, else blocks spread evenly over
        the scene, stacked along the rows.

        Returns:
            Values (bands, h, w) and valid (h, w), of at most about ``max_px`` pixels.
        """
        look, windows = plan_sample(self, max_px)
        blocks = [look.read(window, roles) for window in windows]
        return Block(
            np.concatenate([block.values for block in blocks], axis=1),
            np.concatenate([block.valid for block in blocks], axis=0),
        )

    def decimated(self, max_side_px: int) -> Scene:
        """The same ground with at most ``max_side_px`` pixels along the longer side."""
        ratio = max(self.shape) / max_side_px
        if ratio <= 1:
            return self
        return self.in_shape((max(1, round(self.shape[0] / ratio)), max(1, round(self.shape[1] / ratio))))

    def at_gsd(self, gsd_m: float) -> Scene:
        """The same ground in square pixels of about ``gsd_m`` metres, fitted to whole pixels.

        Resolutions within 2 % of the source's own, or of a whole multiple of it, count as that.

        Raises:
            SceneError: The scene has no CRS, or ``gsd_m`` is absurd for it.
        """
        across, down = pixel_size_m(self._native_geobox)
        if not math.isfinite(across * down):
            raise SceneError(f"{self.source} has no CRS, so its pixels have no size in metres. Leave --gsd native.")
        ratios = rounded_ratio(gsd_m / down), rounded_ratio(gsd_m / across)
        shape = (round(self.crop.height / ratios[0]), round(self.crop.width / ratios[1]))
        if max(shape) < 2 or min(ratios) < 1 / FINEST:
            raise SceneError(
                f"--gsd {gsd_m:g} makes {self.source} {shape[1]} x {shape[0]} px. "
                f"Its own is {self.native_gsd_m:.3g} m: give metres near that."
            )
        return self.in_shape((max(1, shape[0]), max(1, shape[1])))

    def in_shape(self, shape: tuple[int, int]) -> Scene:
        """The same ground in (rows, cols) pixels."""
        return self if shape == self.shape else replace(self, geobox=resized(self.geobox, shape))

    def strips(self, rows: int) -> Iterator[Window]:
        """Full-width windows from top to bottom, ``rows`` high; the last may be lower."""
        height, width = self.shape
        for row in range(0, height, rows):
            yield Window(0, row, width, min(rows, height - row))

    @property
    def is_native(self) -> bool:
        """Whether working pixels are the source's own."""
        return self.shape == (self.crop.height, self.crop.width)

    @property
    def is_eight_bit(self) -> bool:
        """Whether the bands of the picture are plain uint8."""
        header = self.decoder.header
        plain = all(header.scales[b - 1] == 1 and header.offsets[b - 1] == 0 for b in display_bands(self.bands))
        return header.dtype == "uint8" and plain

    def decoded_px(self) -> float:
        """Pixels a band that reading the whole working grid decodes."""
        header = self.decoder.header
        height, width = header.levels[self._level()]
        return self.crop.height * self.crop.width * (height / header.shape[0]) * (width / header.shape[1])

    def block_px(self) -> tuple[tuple[int, int], bool]:
        """(rows, cols) of the source's blocks in working pixels, and whether they are strips across the source."""
        block, shape = self.decoder.header.block, self.decoder.header.shape
        rows, cols = block[0] * self.shape[0] / self.crop.height, block[1] * self.shape[1] / self.crop.width
        return (max(1, round(rows)), max(1, round(cols))), block[1] >= shape[1] > 1024

    def __repr__(self) -> str:
        height, width = self.shape
        size = f"{width} x {height} px" + (f" of {self.gsd_m:.3g} m" if self.has_crs else "")
        roles = " ".join(f"{role}={band}" for role, band in self.bands.items())
        crs = self.geobox.crs
        place = "no CRS" if crs is None else f"EPSG:{crs.epsg}" if crs.epsg else crs.proj.name
        return f"Scene({self.name}: {size}, {place}, {self.dtype}, {roles})"

    def _band(self, role: str) -> int:
        if role not in self.bands:
            known = ", ".join(f"{name}={band}" for name, band in self.bands.items())
            raise SceneError(
                f"{self.source} has no band known as {role} (it has {known}). "
                f"Say which band is, for example --bands {known.replace(' ', '')},{role}=N."
            )
        return self.bands[role]

    def _inside(self, window: Window) -> tuple[Box | None, tuple[slice, slice]]:
        """The part of a window inside the scene, and its place in the window's array."""
        row, col = int(window.row_off), int(window.col_off)
        top, left = max(row, 0), max(col, 0)
        bottom, right = min(row + int(window.height), self.shape[0]), min(col + int(window.width), self.shape[1])
        if bottom <= top or right <= left:
            return None, (slice(0, 0), slice(0, 0))
        return Box(top, left, bottom - top, right - left), (
            slice(top - row, bottom - row),
            slice(left - col, right - col),
        )

    def _read(self, window: Window, bands: Sequence[int]) -> tuple[NDArray[np.float32], Mask]:
        shape = (int(window.height), int(window.width))
        inside, place = self._inside(window)
        if inside is None or not bands:
            return np.zeros((len(bands), *shape), np.float32), np.zeros(shape, bool)
        if self.is_native:
            found, good = self.decoder.values(bands, self._native_box(inside))
        else:
            found, good = self._resampled(inside, bands)
        if self.aoi is not None:
            good &= self.aoi.mask(good.shape, self._to_raster(inside))
            np.copyto(found, 0, where=~good)
        if good.shape == shape:
            return found, good
        values, valid = np.zeros((len(bands), *shape), np.float32), np.zeros(shape, bool)
        values[:, *place], valid[place] = found, good
        return values, valid

    def _read_eight_bit(self, window: Window, bands: Sequence[int]) -> tuple[NDArray[np.uint8], Mask]:
        """As through float32, by a table of 256: four times faster, and no float copy of the window."""
        rgb = np.zeros((int(window.height), int(window.width), 3), np.uint8)
        valid = np.zeros(rgb.shape[:2], bool)
        inside, place = self._inside(window)
        if inside is None:
            return rgb, valid
        planes, good = self.decoder.raw(bands, self._native_box(inside))
        if self.aoi is not None:
            good &= self.aoi.mask(good.shape, self._to_raster(inside))
        table = self.stretch.apply(np.broadcast_to(np.arange(256, dtype=np.float32), (3, 1, 256)))[0]
        for index, plane in enumerate(planes):
            rgb[*place, index] = plane if self.stretch.is_identity else table[plane, index]
        if not good.all():
            rgb[place][~good] = 0
        valid[place] = good
        return rgb, valid

    def _native_box(self, inside: Box) -> Box:
        return Box(inside.row + self.crop.row, inside.col + self.crop.col, inside.height, inside.width)

    def _resampled(self, inside: Box, bands: Sequence[int]) -> tuple[NDArray[np.float32], Mask]:
        level = self._level()
        rows, cols = self._axes(level)
        left, right = cols.span(inside.col, inside.width)
        chunk = max(1, int(CHUNK_PX / max(1, right - left) / max(rows.step, 1)))
        parts = []
        for first in range(inside.row, inside.row + inside.height, chunk):
            count = min(chunk, inside.row + inside.height - first)
            top, bottom = rows.span(first, count)
            values, valid = self.decoder.values(bands, Box(top, left, bottom - top, right - left), level)
            parts.append(resample(values, valid, rows.taps(first, count), cols.taps(inside.col, inside.width)))
        return np.concatenate([part[0] for part in parts], axis=1), np.concatenate([part[1] for part in parts])

    def _level(self) -> int:
        """The coarsest overview that is not coarser than the working grid."""
        full, levels = self.decoder.header.shape, self.decoder.header.levels
        down, across = self.crop.height / self.shape[0], self.crop.width / self.shape[1]
        fits = [i for i, (h, w) in enumerate(levels) if full[0] / h <= down * 1.01 and full[1] / w <= across * 1.01]
        return max(fits, key=lambda i: -levels[i][0] * levels[i][1], default=0)

    def _axes(self, level: int) -> tuple[Axis, Axis]:
        header = self.decoder.header
        axes = []
        for full, at_level, start, size, out in zip(
            header.shape,
            header.levels[level],
            (self.crop.row, self.crop.col),
            (self.crop.height, self.crop.width),
            self.shape,
            strict=True,
        ):
            axes.append(Axis(start * at_level / full, size / out * at_level / full, at_level))
        return axes[0], axes[1]

    def _to_raster(self, inside: Box) -> Affine:
        """Pixel of a window to full-resolution pixel of the source."""
        down, across = self.crop.height / self.shape[0], self.crop.width / self.shape[1]
        return (
            Affine.translation(self.crop.col, self.crop.row)
            @ Affine.scale(across, down)
            @ Affine.translation(inside.col, inside.row)
        )

    @property
    def _native_geobox(self) -> GeoBox:
        return resized(self.geobox, (self.crop.height, self.crop.width))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "pixel_size_m"}

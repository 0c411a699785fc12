"""Rasters under the water, read by windows: values in their units, NaN where there is no data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geosam.errors import OptionsError, SceneError
from geosam.scene.files import FileReader
from geosam.scene.header import Box

Floats = NDArray[np.float64]

WINDOW_VALUES = 1 << 20
"""Values that are read in one go, all bands together; statistics take some 200 bytes each while they are made."""


class Values(Protocol):
    """What statistics are made of: a grid that gives windows of one band or several."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        ...

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of the windows that it is best read by."""
        ...

    @property
    def bands(self) -> tuple[str, ...]:
        """Name of each band."""
        ...

    def read(self, box: Box) -> Floats:
        """Values, float64 (bands, h, w); NaN where there is no data."""
        ...


@dataclass(frozen=True)
class RasterLayer:
    """A raster by its header; holds no pixels."""

    name: str
    """As its columns begin."""
    reader: FileReader
    geobox: GeoBox
    numbers: tuple[int, ...]
    """Of the bands with values, from 1; a band of transparency is none."""
    bands: tuple[str, ...]
    """What each of them is called; one alone is not called anything."""

    @classmethod
    def open(cls, path: str, name: str) -> RasterLayer:
        """Read the header.

        Raises:
            SceneError: Missing, not a raster, or without CRS; a line that says which.
        """
        reader = FileReader.open(path)
        header = reader.header
        if header.crs is None:
            raise SceneError(
                f"{path} has no CRS, so its place under the polygons is unknown. Give it one, for example with "
                f"gdal_edit.py -a_srs EPSG:32632 {path}."
            )
        if np.dtype(header.dtype).kind == "c":
            raise SceneError(f"{path} holds complex numbers ({header.dtype}). Give a raster of real ones.")
        numbers = tuple(band for band, color in enumerate(header.colors, 1) if color != "alpha")
        names = _distinct([_slug(header.names[band - 1]) or f"b{band}" for band in numbers])
        geobox = GeoBox(header.shape, header.transform, header.crs)
        return cls(name, reader, geobox, numbers, names if len(names) > 1 else ("",))

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.reader.header.shape

    @property
    def window(self) -> tuple[int, int]:
        """Whole blocks of the file, so that none is decoded twice."""
        return window_of(self.reader.header.block, self.shape, WINDOW_VALUES // self.reader.header.count)

    def read(self, box: Box) -> Floats:
        """Values times the file's scale plus its offset, float64 (bands, h, w); NaN where there is no data.

        Raises:
            RunError: The window cannot be read; the file may be cut off.
        """
        header = self.reader.header
        raw = self.reader.read(range(1, header.count + 1), box)
        seen = np.ones(raw.shape[1:], bool)
        if header.gdal_mask:
            seen &= self.reader.read_mask(box)
        for alpha in np.flatnonzero(np.array(header.colors) == "alpha"):
            seen &= raw[alpha] > 0
        return np.stack([self._values(raw[band - 1], band, seen) for band in self.numbers])

    def _values(self, raw: NDArray[np.generic], band: int, seen: NDArray[np.bool_]) -> Floats:
        header = self.reader.header
        nodata = header.nodata[band - 1]
        values = raw.astype(np.float64)
        good = seen & np.isfinite(values)
        if nodata is not None and np.isfinite(nodata):
            good &= raw != raw.dtype.type(nodata) if raw.dtype.kind == "f" else values != nodata
        return np.where(good, values * header.scales[band - 1] + header.offsets[band - 1], np.nan)


def open_layers(paths: Sequence[str | Path]) -> list[RasterLayer]:
    """Rasters by their files' names, ``thermal.tif`` is ``thermal``; of two alike the second is ``thermal_2``.

    Raises:
        OptionsError: There is none.
        SceneError: One cannot be used.
    """
    if not paths:
        raise OptionsError("there is no raster to take statistics of. Give at least one: --layer thermal.tif.")
    names = _distinct([_slug(Path(path).stem) or "layer" for path in paths])
    return [RasterLayer.open(str(path), name) for path, name in zip(paths, names, strict=True)]


def window_of(block: tuple[int, int], shape: tuple[int, int], pixels: int) -> tuple[int, int]:
    """Height and width of about so many pixels in whole blocks: as wide as that allows, then as high."""
    height, width = (min(side, whole) for side, whole in zip(block, shape, strict=True))
    width = min(width * max(pixels // (height * width), 1), shape[1])
    return min(height * max(pixels // (height * width), 1), shape[0]), width


def _slug(text: str) -> str:
    return re.sub(r"\W+", "_", text.strip().lower()).strip("_")[:40]


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for name in names:
        number, new = 1, name
        while new in found:
            number += 1
            new = f"{name}_{number}"
        found.append(new)
    return tuple(found)

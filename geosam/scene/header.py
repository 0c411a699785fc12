"""What a raster says about itself, and the two things a source of pixels can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from affine import Affine
from numpy.typing import NDArray

Pixels = NDArray[Any]
"""Raw band values in the file's own dtype, shape (bands, h, w)."""
Mask = NDArray[np.bool_]
"""Shape (h, w); True = data."""


@dataclass(frozen=True)
class Box:
    """A window with integer corners, in pixels of one level of a raster."""

    row: int
    col: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The box as (row, col) slices of an array."""
        return slice(self.row, self.row + self.height), slice(self.col, self.col + self.width)


@dataclass(frozen=True)
class Header:
    """A raster without its pixels. Tuples hold one entry a band."""

    shape: tuple[int, int]
    """(height, width) at full resolution."""
    count: int
    """Bands as read: a palette counts as three."""
    dtype: str
    """numpy name of the dtype that holds every band."""
    crs: Any
    """Anything that odc-geo takes for a CRS; None: the raster has none, or no place on the ground."""
    transform: Affine
    """Pixel corner (col, row) to CRS (x, y)."""
    nodata: tuple[float | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    names: tuple[str, ...]
    """Descriptions and name tags of each band, joined; empty where there are none."""
    wavelengths: tuple[float | None, ...]
    """Centre wavelength in micrometres."""
    colors: tuple[str, ...]
    """Colour interpretation, GDAL's word in lower case: red, alpha, undefined, ..."""
    hint: str
    """File name and data set tags in lower case: tells Sentinel-2's B5 from Landsat's."""
    block: tuple[int, int]
    """(rows, cols) that are decoded together."""
    levels: tuple[tuple[int, int], ...]
    """Shape of each level; the first is the raster itself, the others its overviews."""
    palette: tuple[tuple[int, int, int, int], ...] | None = None
    """Red, green, blue, alpha of each index of a paletted raster."""
    gdal_mask: bool = False
    """A mask band or .msk file holds the valid pixels."""


class Reader(Protocol):
    """A source of pixels: a file through GDAL, or an array in memory. Picklable and thread-safe."""

    @property
    def header(self) -> Header:
        """What the source says about itself."""
        ...

    def read(self, bands: Sequence[int], box: Box, level: int = 0) -> Pixels:
        """Raw values of 1-based ``bands``, shape (bands, h, w); ``box`` lies inside the level."""
        ...

    def read_mask(self, box: Box, level: int = 0) -> Mask:
        """The raster's own mask band, shape (h, w); asked only where ``header.gdal_mask``."""
        ...

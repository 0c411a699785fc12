"""From raw values to float32 and valid: nodata, alpha, mask band, NaN, scale and offset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geosam.scene.header import Box, Header, Mask, Pixels, Reader


@dataclass(frozen=True)
class Decoder:
    """Reads boxes of a source and tells data from no data."""

    reader: Reader
    alpha: int | None
    """Band that is 0 where there is no data."""
    shared: tuple[int, ...]
    """Bands that must all hold nodata for a pixel to be without data, where nodata is also a possible value."""

    @property
    def header(self) -> Header:
        """The source's header."""
        return self.reader.header

    def raw(self, bands: Sequence[int], box: Box, level: int = 0) -> tuple[list[Pixels], Mask]:
        """A plane (h, w) a band in the file's dtype, and valid (h, w), NaN and inf not yet looked at."""
        together = self._together(bands)
        wanted = list(dict.fromkeys([*bands, *together, *([] if self.alpha is None else [self.alpha])]))
        planes = dict(zip(wanted, self.reader.read(wanted, box, level), strict=True))
        valid = np.ones((box.height, box.width), bool)
        if self.alpha is not None:
            valid &= planes[self.alpha] > 0
        if self.header.gdal_mask:
            valid &= self.reader.read_mask(box, level)
        for band in dict.fromkeys(bands):
            if not self._ambiguous(band):
                _drop(valid, [planes[band]], [self.header.nodata[band - 1]])
        _drop(valid, [planes[band] for band in together], [self.header.nodata[band - 1] for band in together])
        return [planes[band] for band in bands], valid

    def values(self, bands: Sequence[int], box: Box, level: int = 0) -> tuple[NDArray[np.float32], Mask]:
        """Values with scale and offset, float32 (bands, h, w), 0 where not valid, and valid (h, w)."""
        planes, valid = self.raw(bands, box, level)
        values = np.empty((len(bands), box.height, box.width), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for value, plane, band in zip(values, planes, bands, strict=True):
                value[...] = plane
                if plane.dtype.kind == "f":
                    valid &= np.isfinite(value)
                scale, offset = self.header.scales[band - 1], self.header.offsets[band - 1]
                if (scale, offset) != (1.0, 0.0):
                    value *= scale
                    value += offset
        if not valid.all():
            np.copyto(values, 0, where=~valid)
        return values, valid

    def valid(self, bands: Sequence[int], box: Box, level: int = 0) -> Mask:
        """The second half of :meth:`values` alone, several times faster."""
        planes, valid = self.raw(bands, box, level)
        with np.errstate(over="ignore"):
            for plane in planes:
                if plane.dtype.kind == "f":
                    valid &= np.isfinite(plane.astype(np.float32, copy=False))
        return valid

    def all_valid(self, bands: Sequence[int]) -> bool:
        """Whether the header alone says that every pixel of these bands is data."""
        header = self.header
        masked = self.alpha is not None or header.gdal_mask or np.dtype(header.dtype).kind == "f"
        return not masked and all(header.nodata[band - 1] is None for band in (*bands, *self.shared))

    def _together(self, bands: Sequence[int]) -> tuple[int, ...]:
        """Bands that decide together; none if these bands' nodata is not ambiguous."""
        if not any(self._ambiguous(band) for band in bands):
            return ()
        return tuple(band for band in self.shared if self._ambiguous(band)) or tuple(bands)

    def _ambiguous(self, band: int) -> bool:
        """Whether nodata is also a value that a dark or bright pixel can have: red 0 over clear water is data."""
        nodata = self.header.nodata[band - 1]
        return nodata is not None and (nodata == 0 or self.header.dtype == "uint8")


def _drop(valid: Mask, planes: Sequence[Pixels], nodata: Sequence[float | None]) -> None:
    """Clear ``valid`` where every plane holds its nodata value."""
    empty: Mask | None = None
    for plane, value in zip(planes, nodata, strict=True):
        if value is None:
            continue
        found = _equals(plane, value)
        empty = found if empty is None else empty & found
        if not empty.any():
            return  # the usual case: one band has been looked at, and no pixel is without data
    if empty is not None:
        valid &= ~empty


def _equals(plane: Pixels, nodata: float) -> Mask:
    """Where a plane holds nodata; a value outside an integer dtype is nowhere."""
    if np.isnan(nodata):
        return np.isnan(plane) if plane.dtype.kind == "f" else np.zeros(plane.shape, bool)
    if plane.dtype.kind in "iu":
        limits = np.iinfo(plane.dtype)
        fits = float(nodata).is_integer() and limits.min <= nodata <= limits.max
        return plane == plane.dtype.type(int(nodata)) if fits else np.zeros(plane.shape, bool)
    # tags hold decimals and files hold float32: -3.4028235e+38 must be found again
    with np.errstate(over="ignore"):
        found: Mask = plane == plane.dtype.type(nodata)
        return found | np.isclose(plane, nodata, rtol=1e-6, atol=0) if abs(nodata) > 1e6 else found

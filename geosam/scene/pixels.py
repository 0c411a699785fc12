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

    def raw(self, bands: Sequence[int], box: Box, level: int = 0) -> tuple[Pixels, Mask]:
        """Values as stored, (bands, h, w) in the file's dtype, and valid (h, w), NaN and inf not yet looked at."""
        wanted = dict.fromkeys([*bands, *self._masking(bands)])
        if self.alpha is not None:
            wanted[self.alpha] = None
        at = {band: index for index, band in enumerate(wanted)}
        pixels = self.reader.read(list(wanted), box, level)
        valid = np.ones(pixels.shape[1:], bool)
        if self.alpha is not None:
            valid &= pixels[at[self.alpha]] > 0
        if self.header.gdal_mask:
            valid &= self.reader.read_mask(box, level)
        _drop_nodata(valid, pixels, at, self.header.nodata, [b for b in bands if not self._ambiguous(b)], every=False)
        _drop_nodata(valid, pixels, at, self.header.nodata, self._masking(bands), every=True)
        return pixels[[at[band] for band in bands]], valid

    def values(self, bands: Sequence[int], box: Box, level: int = 0) -> tuple[NDArray[np.float32], Mask]:
        """Values with scale and offset, float32 (bands, h, w), 0 where not valid, and valid (h, w)."""
        pixels, valid = self.raw(bands, box, level)
        with np.errstate(over="ignore", invalid="ignore"):
            values = pixels.astype(np.float32)
        if pixels.dtype.kind == "f":
            valid &= np.isfinite(values).all(axis=0)
        for plane, band in zip(values, bands, strict=True):
            scale, offset = self.header.scales[band - 1], self.header.offsets[band - 1]
            if (scale, offset) != (1.0, 0.0):
                plane *= scale
                plane += offset
        if not valid.all():
            values[:, ~valid] = 0
        return values, valid

    def all_valid(self, bands: Sequence[int]) -> bool:
        """Whether the header alone says that every pixel of these bands is data."""
        header = self.header
        masked = self.alpha is not None or header.gdal_mask or np.dtype(header.dtype).kind == "f"
        return not masked and all(header.nodata[band - 1] is None for band in (*bands, *self.shared))

    def _masking(self, bands: Sequence[int]) -> tuple[int, ...]:
        """Bands that decide together; none if these bands' nodata is not ambiguous."""
        if not any(self._ambiguous(band) for band in bands):
            return ()
        return tuple(band for band in self.shared if self._ambiguous(band)) or tuple(bands)

    def _ambiguous(self, band: int) -> bool:
        """Whether nodata is also a value that a dark or bright pixel can have: red 0 over clear water is data."""
        nodata = self.header.nodata[band - 1]
        return nodata is not None and (nodata == 0 or self.header.dtype == "uint8")


def _drop_nodata(
    valid: Mask,
    pixels: Pixels,
    at: dict[int, int],
    nodata: Sequence[float | None],
    bands: Sequence[int],
    *,
    every: bool,
) -> None:
    """Clear ``valid`` where ``every`` band, or else any band, holds its nodata value."""
    empty = [_equals(pixels[at[band]], value) for band in bands if (value := nodata[band - 1]) is not None]
    if empty:
        valid &= ~(np.logical_and if every else np.logical_or).reduce(empty)


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

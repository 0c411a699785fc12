"""Pixels of one image or label, from a file or from the bytes that a table holds."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geosam.datasets.labels import UInt8, UnreadableError, has_two_values, water_label
from geosam.errors import DatasetError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
RASTER_SUFFIXES = (".tif", ".tiff")
LOW, HIGH = 2.0, 98.0
"""Percentiles of a deeper image that become 0 and 255."""
_opening = threading.Lock()
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Picture:
    """Where the bytes of one picture are."""

    path: Path | None = None
    data: bytes | None = None
    """The encoded file itself; comes before ``path``."""
    name: str = ""
    """What messages call it; empty: its path."""

    def __str__(self) -> str:
        return self.name or str(self.path)

    @property
    def is_raster(self) -> bool:
        """Whether GDAL reads it; a GeoTIFF has bands and depths that PIL does not know."""
        if self.data is not None:
            return self.data[:4] in _TIFF_MAGIC
        return self.path is not None and self.path.suffix.lower() in RASTER_SUFFIXES


def read_rgb(picture: Picture, bands: Sequence[int] | None = None) -> UInt8:
    """The picture as uint8 (h, w, 3).

    ``bands`` stand for red, green and blue, from 1; None: the first three. Grey becomes three equal bands.
    Deeper than eight bits: one gain for the three bands, so that the percentiles 2 and 98 of them all become
    0 and 255; a gain a band would turn brown water grey.

    Raises:
        UnreadableError: The file is damaged, gone, or no picture.
        DatasetError: It has bands or values that are no picture.
    """
    with _telling(picture):
        values = _raster_bands(picture, bands) if picture.is_raster or bands else _picture_bands(picture)
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    return _eight_bits(values, str(picture))


def read_label(picture: Picture, water_ids: Sequence[int] = (), ignore_value: int | None = None) -> UInt8:
    """The label as uint8 (h, w) of 255 water, 0 dry, 128 ignore; see :func:`water_label`."""
    with _telling(picture):
        values = _raster_classes(picture) if picture.is_raster else _picture_classes(picture, bool(water_ids))
    return water_label(values, str(picture), water_ids, ignore_value)


def is_deep(picture: Picture) -> bool:
    """Whether the picture has more than eight bits, by its header alone; False where that cannot be read."""
    try:
        with _telling(picture):
            if picture.is_raster:
                with _raster(picture) as source:
                    return bool(source.dtypes[0] != "uint8")
            with Image.open(_stream(picture)) as opened:
                return opened.mode.startswith(("I", "F"))
    except DatasetError:
        return False


@contextmanager
def _telling(picture: Picture) -> Iterator[None]:
    """Every way in which PIL and GDAL say that a file is damaged, in one line that names it."""
    try:
        yield
    except DatasetError:
        raise
    # PIL's plug-ins raise SyntaxError, ValueError and struct.error on damaged files besides OSError
    except (OSError, RasterioError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UnreadableError(f"{picture} cannot be read as a picture ({reason}). Mend or remove it.") from None


def _stream(picture: Picture) -> Any:
    if picture.data is not None:
        return io.BytesIO(picture.data)
    if picture.path is None:
        raise UnreadableError(f"{picture} is empty: neither bytes nor a path. Remove the row.")
    return picture.path


@contextmanager
def _raster(picture: Picture) -> Iterator[Any]:
    # A tile cut as a plain TIFF has no georeference, and needs none. catch_warnings is not thread-safe, hence the lock.
    with _opening, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        opened = rasterio.open(_stream(picture))
    with opened as source:
        yield source


def _raster_bands(picture: Picture, asked: Sequence[int] | None) -> NDArray[Any]:
    with _raster(picture) as source:
        if asked is not None:
            return _asked_bands(source, asked, picture)
        if source.count == 2 or source.count == 0:
            raise DatasetError(
                f"{picture} has {source.count} bands. Give images of red, green and blue, or grey; or "
                "say which bands stand for the three with --image-bands."
            )
        if source.count == 1 and source.colorinterp[0] == ColorInterp.palette:
            return _coloured(source.read(1), source.colormap(1))
        bands: NDArray[Any] = source.read([1, 2, 3] if source.count >= 3 else [1, 1, 1])
    return bands.transpose(1, 2, 0)


def _asked_bands(source: Any, asked: Sequence[int], picture: Picture) -> NDArray[Any]:
    if source.count < max(asked):
        raise DatasetError(f"{picture} has {source.count} bands. Say which are red, green and blue with --image-bands.")
    bands: NDArray[Any] = source.read(list(asked))
    return bands.transpose(1, 2, 0)


def _coloured(indices: NDArray[Any], palette: dict[int, tuple[int, ...]]) -> UInt8:
    colours = np.zeros((max(palette) + 1, 3), np.uint8)
    for index, colour in palette.items():
        colours[index] = colour[:3]
    return np.asarray(colours[indices])


def _picture_bands(picture: Picture) -> NDArray[Any]:
    with Image.open(_stream(picture)) as opened:
        if not opened.mode.startswith(("I", "F")):
            return np.asarray(opened.convert("RGB"))
        return np.repeat(np.asarray(opened)[..., None], 3, axis=2)


def _raster_classes(picture: Picture) -> NDArray[Any]:
    with _raster(picture) as source:
        values: NDArray[Any] = source.read(1)
    return values


def _picture_classes(picture: Picture, class_ids: bool) -> NDArray[Any]:
    """Grey values, or the indices of a palette where its colours do not say water and dry themselves."""
    with Image.open(_stream(picture)) as opened:
        if opened.mode.startswith(("I", "F")):
            return np.asarray(opened)
        if opened.mode == "P":
            grey = np.asarray(opened.convert("L"))
            return grey if not class_ids and has_two_values(grey) else np.asarray(opened)
        return np.asarray(opened.convert("L"))


def _eight_bits(values: NDArray[Any], where: str) -> UInt8:
    finite = np.isfinite(values)
    if not finite.any():
        raise DatasetError(f"{where} has no number in it, only NaN. Remove it.")
    low, high = np.percentile(values[finite].astype(np.float64), (LOW, HIGH))
    scaled = (values.astype(np.float64) - low) * (255 / max(high - low, 1e-12)) + 0.5
    return np.asarray(np.nan_to_num(np.clip(scaled, 0, 255)), np.uint8)

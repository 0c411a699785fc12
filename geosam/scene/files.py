"""Pixels of a file, URL or /vsi path, through GDAL, one handle a thread."""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from geosam.errors import RunError, SceneError
from geosam.scene.cache import CACHE_BYTES, cache_bytes, cache_option
from geosam.scene.header import Box, Header, Mask, Pixels

HANDLES_PER_THREAD = 8
"""Open data sets a thread keeps; the one used longest ago is closed first."""

_local = threading.local()
_opening = threading.Lock()


@dataclass(frozen=True)
class FileReader:
    """Reads windows of a file; holds no handle itself, so it pickles and forks safely."""

    source: str
    """Path, URL or GDAL name."""
    stamp: tuple[int, int]
    """Size and time of the file when it was opened, so that a file written anew gets a new handle."""
    header: Header

    @classmethod
    def open(cls, source: str) -> FileReader:
        """Read the header.

        Raises:
            SceneError: Missing, not a raster, no bands, or only subdatasets.
        """
        stamp = _stamp(source)
        try:
            with gdal(source):
                dataset = _handle((source, stamp, 0))
                header = _header(dataset, source)
        except (RasterioError, OSError) as error:
            _forget(source)
            raise SceneError(_why_not_open(source, error)) from None
        return cls(source, stamp, header)

    def read(self, bands: Sequence[int], box: Box, level: int = 0) -> Pixels:
        """Raw values, shape (bands, h, w), palettes expanded to R, G, B, A planes.

        Raises:
            RunError: GDAL could not read the window; the file may be cut off, or the network down.
        """
        window = Window(box.col, box.row, box.width, box.height)
        indexes = [1] if self.header.palette else list(bands)
        try:
            with gdal(self.source, cache_bytes(self.header)):
                pixels: Pixels = _handle((self.source, self.stamp, level)).read(indexes, window=window)
        except (RasterioError, OSError) as error:
            raise RunError(_why_not_read(self.source, box, error)) from None
        if self.header.palette is None:
            return pixels
        return expand_palette(pixels[0], self.header.palette)[[band - 1 for band in bands]]

    def read_mask(self, box: Box, level: int = 0) -> Mask:
        """The mask band, shape (h, w); True = data.

        Raises:
            RunError: As for :meth:`read`.
        """
        window = Window(box.col, box.row, box.width, box.height)
        try:
            with gdal(self.source, cache_bytes(self.header)):
                mask = _handle((self.source, self.stamp, level)).read_masks(1, window=window)
        except (RasterioError, OSError) as error:
            raise RunError(_why_not_read(self.source, box, error)) from None
        return np.asarray(mask) > 0


def expand_palette(indices: Pixels, palette: Sequence[tuple[int, int, int, int]]) -> Pixels:
    """Red, green, blue and alpha, uint8 (4, h, w), of palette indices (h, w); an index outside it is transparent."""
    colors = np.zeros((max(256, len(palette), int(indices.max(initial=0)) + 1), 4), np.uint8)
    colors[: len(palette)] = palette
    return np.moveaxis(colors[indices], -1, 0)


@contextmanager
def gdal(source: str, cache: int = CACHE_BYTES) -> Iterator[None]:
    """GDAL with a bounded cache; over a network also without listing the folder of the file."""
    options = cache_option(cache)
    if is_remote(source) and "GDAL_DISABLE_READDIR_ON_OPEN" not in os.environ:
        options["GDAL_DISABLE_READDIR_ON_OPEN"] = "EMPTY_DIR"
    with rasterio.Env(**options):
        yield


def is_remote(source: str) -> bool:
    """Whether the pixels come over a network."""
    remote = ("http://", "https://", "s3://", "gs://", "az://", "ftp://", "/vsicurl", "/vsis3", "/vsigs", "/vsiaz")
    return source.lower().startswith(remote)


def is_local(source: str) -> bool:
    """Whether the source should be a file on this machine (no URL, /vsi path or ``DRIVER:...`` name)."""
    drive = len(source) > 1 and source[1] == ":" and source[0].isalpha()
    return not source.startswith(("/vsi", "<")) and (drive or ":" not in source or os.path.exists(source))


def _stamp(source: str) -> tuple[int, int]:
    if not is_local(source):
        return (0, 0)
    try:
        found = os.stat(source)
    except OSError:
        raise SceneError(f"{source} does not exist. Check the path.") from None
    return (found.st_size, found.st_mtime_ns)


def _handle(key: tuple[str, tuple[int, int], int]) -> Any:
    """This thread's open data set; GDAL handles may not be shared by threads, nor outlive a fork."""
    if getattr(_local, "pid", None) != os.getpid():
        _local.pid, _local.handles = os.getpid(), OrderedDict()
    handles: OrderedDict[Any, Any] = _local.handles
    if key not in handles:
        handles[key] = _open(key[0], key[2])
        while len(handles) > HANDLES_PER_THREAD:
            handles.popitem(last=False)[1].close()
    handles.move_to_end(key)
    return handles[key]


def _forget(source: str) -> None:
    handles: dict[Any, Any] = getattr(_local, "handles", {})
    for key in [key for key in handles if key[0] == source]:
        handles.pop(key).close()


def _open(source: str, level: int) -> Any:
    # One level, and no other overview of it: left alone, GDAL chooses the overview by the
    # rounded size of each window, so that neighbouring windows could come from different ones.
    only = f"{level - 1}only" if level else "NONE"
    # catch_warnings is not thread-safe, hence the lock. A raster without georeference is
    # refused, or accepted on request, by Scene.open: rasterio's warning would say it twice.
    with _opening, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(source, OVERVIEW_LEVEL=only) if level else rasterio.open(source)


def tiff_block_end(reader: FileReader, row: int, col: int) -> int:
    """First byte after a block of a TIFF's last band; 0 for a hole in a sparse file, and for other formats."""
    dataset = _handle((reader.source, reader.stamp, 0))
    at = f"{col}_{row}"
    offset = dataset.get_tag_item(f"BLOCK_OFFSET_{at}", "TIFF", bidx=dataset.count)
    size = dataset.get_tag_item(f"BLOCK_SIZE_{at}", "TIFF", bidx=dataset.count)
    return int(offset) + int(size) if offset and size else 0


def _header(dataset: Any, source: str) -> Header:
    if dataset.count == 0:
        raise SceneError(_why_no_bands(dataset, source))
    palette = _palette(dataset)
    bands = [1, 1, 1, 1] if palette else list(range(1, dataset.count + 1))
    tags = [{**dataset.tags(band), **dataset.tags(band, ns="IMAGERY")} for band in bands]
    return Header(
        shape=(int(dataset.height), int(dataset.width)),
        count=len(bands),
        dtype=str(np.result_type(*(np.dtype(kind) for kind in dataset.dtypes))),
        crs=_crs(dataset),
        transform=dataset.transform,
        nodata=tuple(None if palette else dataset.nodatavals[band - 1] for band in bands),
        scales=tuple(1.0 if palette else float(dataset.scales[band - 1]) for band in bands),
        offsets=tuple(0.0 if palette else float(dataset.offsets[band - 1]) for band in bands),
        names=tuple(band_name(dataset.descriptions[band - 1], tag) for band, tag in zip(bands, tags, strict=True)),
        wavelengths=tuple(wavelength_um(tag) for tag in tags),
        colors=("red", "green", "blue", "alpha") if palette else _colors(dataset),
        hint=" ".join([Path(source).name, *map(str, dataset.tags().values())]).lower()[:4000],
        block=dataset.block_shapes[0],
        levels=((dataset.height, dataset.width), *_overviews(dataset, source)),
        palette=palette,
        gdal_mask=_has_mask(dataset),
    )


def _crs(dataset: Any) -> Any:
    """The CRS, or None where the transform is the identity: a CRS without a place is no georeference."""
    if not dataset.crs or dataset.transform.is_identity:
        return None
    epsg = dataset.crs.to_epsg(confidence_threshold=100)
    return f"EPSG:{epsg}" if epsg else dataset.crs


def _palette(dataset: Any) -> tuple[tuple[int, int, int, int], ...] | None:
    if dataset.count != 1 or _colors(dataset) != ("palette",):
        return None
    try:
        colors = dataset.colormap(1)
    except ValueError:
        return None
    entries = [tuple(colors.get(index, (0, 0, 0, 0))) for index in range(max(colors) + 1)]
    nodata = dataset.nodata
    if nodata is not None and 0 <= nodata < len(entries):
        entries[int(nodata)] = (0, 0, 0, 0)
    return tuple(entries)


def _colors(dataset: Any) -> tuple[str, ...]:
    try:
        return tuple(color.name.lower() for color in dataset.colorinterp)
    except ValueError:  # a newer GDAL may know a word that rasterio does not
        return ("undefined",) * int(dataset.count)


def _overviews(dataset: Any, source: str) -> list[tuple[int, int]]:
    factors = dataset.overviews(1)
    if not factors or any(dataset.overviews(band) != factors for band in dataset.indexes):
        return []
    if dataset.driver in ("GTiff", "COG", "JP2OpenJPEG"):  # they round up: no need to open each
        return [(-(-dataset.height // factor), -(-dataset.width // factor)) for factor in factors]
    found = []
    for level in range(1, len(factors) + 1):
        with _open(source, level) as overview:
            found.append((overview.height, overview.width))
    return found


def _has_mask(dataset: Any) -> bool:
    flags = set(dataset.mask_flag_enums[0])
    return not flags & {MaskFlags.all_valid, MaskFlags.alpha} and flags != {MaskFlags.nodata}


def band_name(description: str | None, tags: dict[str, str]) -> str:
    """Everything a band calls itself, as one string."""
    keys = ("name", "band_name", "bandname", "common_name", "long_name", "standard_name", "description")
    found = [value for key, value in tags.items() if key.lower() in keys]
    return " ".join([description or "", *found]).strip()


def wavelength_um(tags: dict[str, str]) -> float | None:
    """Centre wavelength in micrometres from a band's tags, whatever unit they are in; None: not said."""
    keys = ("wavelength", "center_wavelength", "central_wavelength", "central_wavelength_um")
    for key, value in tags.items():
        if key.lower() in keys:
            try:
                number = float(str(value).split()[0])
            except (ValueError, IndexError):
                continue
            return number / 1000 if number > 100 else number  # nobody means 100 micrometres, nor 100 nm
    return None


def _why_no_bands(dataset: Any, source: str) -> str:
    if not dataset.subdatasets:
        return f"{source} has no bands. Give a raster with at least red, green and blue."
    first = dataset.subdatasets[0]
    return f"{source} holds {len(dataset.subdatasets)} rasters. Name one of them, for example '{first}'."


def _why_not_open(source: str, error: Exception) -> str:
    reason = " ".join(str(error).split()).rstrip(".")
    if is_remote(source):
        return f"{source} cannot be opened ({reason}). Check the address and the network, or download it first."
    if os.path.isdir(source):
        return f"{source} is a folder. Give the raster file in it."
    if os.path.isfile(source) and os.path.getsize(source) == 0:
        return f"{source} is empty (0 bytes). Get the file again."
    return f"{source} is not a raster that GDAL can open, or is cut off ({reason}). Check the file with gdalinfo."


def _why_not_read(source: str, box: Box, error: Exception) -> str:
    reason = " ".join(str(error.__cause__ or error).split()).rstrip(".")
    where = f"rows {box.row}-{box.row + box.height - 1}, columns {box.col}-{box.col + box.width - 1}"
    mend = "Check the network" if is_remote(source) else "The file may be cut off or damaged: get it again"
    return f"{source} cannot be read at {where} ({reason}). {mend}."

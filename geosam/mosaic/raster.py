"""Write a raster block by block, as a cloud-optimised GeoTIFF, whole or not at all."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio._err import CPLE_BaseError  # rasterio.shutil.copy lets it through bare
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.windows import Window

from geosam.errors import OutputError
from geosam.mosaic.store import disk_faults, full_message

_BLOCK = 512
_WIDE = 8 * _BLOCK
"""Columns composed at a time: 8 MB of float32, so the width of the scene does not count."""
_ENV = {"GDAL_CACHEMAX": 64 << 20, "GDAL_NUM_THREADS": "1", "GDAL_TIFF_INTERNAL_MASK": "NO"}
"""GDAL's own block cache would grow to 5 % of the machine's memory; blocks here are written once, in order.
One thread: GDAL 3.10's packing threads lose the error when the disk is full, and leave a file with holes."""

Read = Callable[[Window], NDArray[Any]]


def write_raster(path: Path, geobox: GeoBox, read: Read, dtype: str, nodata: float, description: str) -> Path:
    """Write a cloud-optimised GeoTIFF under another name and rename it.

    Args:
        path: The file to be; an existing one is replaced only once the new one is whole.
        geobox: Georeference.
        read: Gives the values of a window, shape (height, width).
        dtype: Of the file.
        nodata: Value of pixels without data; whole blocks of it take no space.
        description: Of the band.

    Raises:
        OutputError: The folder is missing or the disk is full.
    """
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist. Make it, or choose another path for {path.name}.")
    plain, cloud = (path.with_name(f".{path.name}.{part}.part") for part in ("plain", "cloud"))
    profile = _profile(geobox, dtype, nodata)
    try:
        with rasterio.Env(**_ENV), _gdal_faults(path, geobox, dtype):
            sums = _write_blocks(plain, profile, read, description)
            _to_cloud(plain, cloud, dtype)
            _check_blocks(cloud, sums)
            cloud.replace(path)
    finally:
        for part in (plain, cloud):
            part.unlink(missing_ok=True)
    return path


def _profile(geobox: GeoBox, dtype: str, nodata: float) -> dict[str, Any]:
    height, width = geobox.shape
    return {
        "driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": dtype, "nodata": nodata,
        "crs": None if geobox.crs is None else geobox.crs.to_wkt(),
        "transform": None if geobox.crs is None else geobox.affine,
        "tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "BIGTIFF": "IF_SAFER", "SPARSE_OK": "TRUE",
        # No predictor: this file lives for a minute, and long runs of one value need none.
        "compress": "deflate", "zlevel": 1,
    }  # fmt: skip


def _write_blocks(path: Path, profile: dict[str, Any], read: Read, description: str) -> list[int]:
    """Write whole blocks in order, so that GDAL never reads one back; blocks of nodata are left out.

    Returns:
        Checksum of every window's values.
    """
    sums = []
    with rasterio.open(path, "w", **profile) as raster:
        raster.set_band_description(1, description)
        for window in _blocks(raster):
            values = np.ascontiguousarray(read(window))
            sums.append(zlib.crc32(values.data))
            empty = np.isnan(values) if np.isnan(profile["nodata"]) else values == profile["nodata"]
            if not empty.all():
                raster.write(values, 1, window=window)
    return sums


def _check_blocks(path: Path, sums: list[int]) -> None:
    """Read the file back. A disk that fills up while GDAL closes a file gives no error, only a file cut short.

    Raises:
        RasterioIOError: The file is not what was written.
    """
    with rasterio.open(path) as raster:
        for window, wanted in zip(_blocks(raster), sums, strict=True):
            if zlib.crc32(raster.read(1, window=window).data) != wanted:
                raise RasterioIOError("the file was cut short")


def _blocks(raster: Any) -> Iterator[Window]:
    for top in range(0, raster.height, _BLOCK):
        for left in range(0, raster.width, _WIDE):
            yield Window(left, top, min(_WIDE, raster.width - left), min(_BLOCK, raster.height - top))


def _to_cloud(plain: Path, cloud: Path, dtype: str) -> None:
    """Rewrite with overviews in the order that a cloud-optimised GeoTIFF wants; GDAL does it block by block."""
    average = dtype == "float32"
    rasterio.shutil.copy(
        plain, cloud, driver="COG", compress="DEFLATE", level=1, predictor="YES" if average else "NO",
        blocksize=_BLOCK, bigtiff="IF_SAFER", sparse_ok="YES", num_threads=1,
        overview_resampling="AVERAGE" if average else "NEAREST",
    )  # fmt: skip


@contextmanager
def _gdal_faults(path: Path, geobox: GeoBox, dtype: str) -> Iterator[None]:
    """Turn GDAL's errors of writing into one line; GDAL does not say that a disk is full, so the line gives the room.

    Raises:
        OutputError: In place of GDAL's errors and any OSError.
    """
    height, width = geobox.shape
    most = 2 * height * width * np.dtype(dtype).itemsize
    with disk_faults(path, most):
        try:
            yield
        except (RasterioError, CPLE_BaseError) as error:
            raise OutputError(full_message(path, most, f"GDAL says {str(error.__cause__ or error)!r}")) from error

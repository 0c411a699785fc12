"""Mask and probability rasters read by strips."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.windows import Window

from geosam.errors import SceneError
from geosam.options import VectorOptions
from geosam.scene.cache import MOST_BYTES, ONCE_BYTES, bounded_cache
from geosam.vector.assemble import DEFAULTS, Strip, polygonize_by
from geosam.vector.corners import Bools
from geosam.vector.ordered import crew

STRIP_PX = 8_000_000
"""Pixels read in one go, rounded to whole blocks of the file."""
_TALLEST_BYTES = 1 << 25
"""A row of blocks up to this is read whole: to 65,536 px across for a mask, to 16,384 px for probabilities.

Arrays above 32 MiB also make glibc give all freed memory back at once and get it anew, page by page: a mask
of 100,000 px across, read whole, took 1.5 times as long.
"""
_PART_PX = 1 << 20
"""Pixels looked at in one go: what is worked out of them stays in the cache, however wide the raster."""


def polygonize_raster(
    path: str | Path,
    options: VectorOptions = DEFAULTS,
    *,
    scene: str | None = None,
    model: str = "",
    threshold: float = 0.5,
    allow_no_crs: bool = False,
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> gpd.GeoDataFrame:
    """Water bodies of a mask or probability raster, read by strips.

    A probability raster is float in [0, 1], or whole numbers with a scale tag; a mask is whole
    numbers, water 1 or 255 and dry 0. Nodata is not water.

    Args:
        path: Raster with one band (and perhaps alpha).
        options: What is water and which polygons are kept; see :func:`polygonize`.
        scene: Value of the column ``scene``; None: the file's stem.
        model: Value of the column ``model``.
        threshold: Probability above which a pixel is water where ``options.threshold`` is None.
        allow_no_crs: Accept a raster without CRS; the result is then in pixels.
        progress: Told the rows done and the rows in all.
        threads: That work side by side, beside one that reads; see :func:`polygonize`.

    Returns:
        As :func:`polygonize`.

    Raises:
        SceneError: The file is missing, is no raster, has several bands, no CRS, or values that are neither mask
            nor probability.
    """
    threshold = threshold if options.threshold is None else options.threshold
    name = Path(path).stem if scene is None else scene
    with crew(threads) as hands, _opened(path, allow_no_crs, hands.threads) as raster:
        geobox = GeoBox(raster.shape, raster.transform, raster.crs)
        values = _Values(path, threshold, raster.nodata, raster.scales[0], raster.offsets[0])
        # closing: on an error the reader must be done before the raster is closed
        with closing(_parts(raster, progress)) as parts:
            strips = hands.map(values.strip, parts)
            return polygonize_by(hands, strips, geobox, options, name, model, raster.crs is not None)


def has_crs(path: str | Path) -> bool:
    """Whether a mask or probability raster has a CRS.

    Raises:
        SceneError: As :func:`polygonize_raster`.
    """
    with _opened(path, allow_no_crs=True, threads=1) as raster:
        return bool(raster.crs)


@contextmanager
def _opened(path: str | Path, allow_no_crs: bool, threads: int) -> Iterator[Any]:
    """The raster, checked.

    Raises:
        SceneError: It cannot be used, or cannot be read to its end.
    """
    try:
        with rasterio.Env(GDAL_NUM_THREADS=str(threads)), rasterio.open(path) as raster:
            _check(raster, path, allow_no_crs)
            with bounded_cache(_cache_bytes(raster)):
                yield raster
    except RasterioError as error:
        found = "does not exist" if not _exists(path) else f"cannot be read as a raster ({error.__cause__ or error})"
        raise SceneError(f"{path} {found}. Give a mask or probability raster.") from error


def _exists(path: str | Path) -> bool:
    return Path(path).exists() or "://" in str(path) or str(path).startswith("/vsi")


def _check(raster: Any, path: str | Path, allow_no_crs: bool) -> None:
    bands = [raster.colorinterp[band].name != "alpha" for band in range(raster.count)]
    if sum(bands) != 1:
        raise SceneError(
            f"{path} has {sum(bands)} bands, and a mask or probability raster has one. "
            "To find water in an image use geosam segment or geosam coarse."
        )
    if np.dtype(raster.dtypes[0]).kind not in "uif":
        raise SceneError(
            f"{path} holds {raster.dtypes[0]} numbers. Give a mask (uint8) or a probability (float) raster."
        )
    if raster.crs is None and not allow_no_crs:
        raise SceneError(
            f"{path} has no CRS. Assign one (gdal_edit.py -a_srs EPSG:...), or give --allow-no-crs "
            "for polygons in pixel coordinates (.gpkg, .fgb or .parquet)."
        )


class _Part(NamedTuple):
    """Some rows as they are in the file."""

    row: int
    values: npt.NDArray[Any]
    known: npt.NDArray[np.uint8] | None
    """0 where a value is not valid; None: the values themselves say so."""


def _parts(raster: Any, progress: Callable[[int, int], None] | None) -> Generator[_Part, None, None]:
    """Rows of the file, a few at a time; read by whole blocks, while those before are worked on."""
    rows = _rows(raster)
    windows = [Window(0, row, raster.width, min(rows, raster.height - row)) for row in range(0, raster.height, rows)]
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(_read, raster, windows[0])
        for done, window in enumerate(windows):
            values, known = coming.result()
            if done + 1 < len(windows):
                coming = reader.submit(_read, raster, windows[done + 1])
            for part in _few_rows(values.shape):
                yield _Part(window.row_off + part.start, values[part], None if known is None else known[part])
            if progress is not None:
                progress(int(window.row_off + window.height), raster.height)


def _rows(raster: Any) -> int:
    """Rows of a strip: whole blocks, unless a row of those is too much to hold twice."""
    block, rows = int(raster.block_shapes[0][0]), max(1, STRIP_PX // int(raster.width))
    return max(block, rows // block * block) if _block_row_bytes(raster) <= _TALLEST_BYTES else rows


def _block_row_bytes(raster: Any) -> int:
    return int(raster.block_shapes[0][0] * raster.width * np.dtype(raster.dtypes[0]).itemsize)


def _cache_bytes(raster: Any) -> int:
    """Bytes of GDAL's cache: a block is wanted once where whole ones are read, else until its row of blocks is done."""
    if _rows(raster) % int(raster.block_shapes[0][0]) == 0:
        return ONCE_BYTES
    return min(2 * _block_row_bytes(raster) * int(raster.count), MOST_BYTES)


def _few_rows(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows of a strip, some at a time."""
    rows = max(1, _PART_PX // shape[1])
    return (slice(top, min(top + rows, shape[0])) for top in range(0, shape[0], rows))


def _read(raster: Any, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8] | None]:
    """Values, and the mask where the file has one that is not in the values: 0 is not valid."""
    values = raster.read(1, window=window)
    within = {"all_valid", "nodata"} & {flag.name for flag in raster.mask_flag_enums[0]}
    is_nan = raster.nodata is not None and np.isnan(raster.nodata)
    return values, None if within or is_nan else raster.read_masks(1, window=window)


@dataclass(frozen=True)
class _Values:
    """What the numbers of a file mean."""

    path: str | Path
    threshold: float
    nodata: float | None
    scale: float
    offset: float

    def strip(self, part: _Part) -> Strip:
        """Water, and its probability where the file holds one."""
        return Strip(part.row, *self._water(part.values, self._valid(part)))

    def _valid(self, part: _Part) -> Bools | None:
        """Where values are valid (None: everywhere, but for NaN)."""
        if part.known is not None:
            return part.known > 0
        if self.nodata is None or np.isnan(self.nodata):
            return None
        valid: Bools = part.values != self.nodata
        return valid

    def _water(self, values: npt.NDArray[Any], valid: Bools | None) -> tuple[Bools, npt.NDArray[np.floating] | None]:
        if values.dtype.kind != "f" and (self.scale, self.offset) == (1.0, 0.0):
            return _mask_water(values, valid, self.path), None
        if (self.scale, self.offset) != (1.0, 0.0):
            values = values.astype(np.float32) * np.float32(self.scale) + np.float32(self.offset)
        water = values > self.threshold  # NaN is not
        if valid is not None:
            water &= valid
        _check_range(values, valid, self.path)
        return water, values


def _mask_water(values: npt.NDArray[Any], valid: Bools | None, path: str | Path) -> Bools:
    known = (values == 0) | (values == 1) | (values == 255)
    if valid is not None:
        known |= ~valid
    if not known.all():
        raise SceneError(
            f"{path} holds whole numbers such as {values[~known][0]}, so it is no mask (0 and 1, or 0 and 255). "
            "A probability raster is float from 0 to 1, or tells its scale in a tag (gdal_translate -a_scale)."
        )
    water: Bools = values != 0
    return water if valid is None else water & valid


def _check_range(values: npt.NDArray[np.floating], valid: Bools | None, path: str | Path) -> None:
    known = values if valid is None else values[valid]
    low, high = np.fmin.reduce(known, axis=None, initial=0.0), np.fmax.reduce(known, axis=None, initial=1.0)
    if low < 0 or high > 1.0001:
        raise SceneError(
            f"{path} holds values from {low:g} to {high:g}, and probabilities are from 0 to 1. "
            "For an index use geosam coarse; for per cent tell the scale in a tag (gdal_translate -a_scale 0.01)."
        )

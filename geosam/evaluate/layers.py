"""Two results to be compared, each a raster or polygons in any CRS, read by windows of one grid."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.features import rasterize
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from shapely.geometry import box

from geosam.datasets import IGNORE, WATER
from geosam.datasets.polygons import check_degrees
from geosam.errors import DatasetError
from geosam.scene.vectors import read_vector

Bool = NDArray[np.bool_]


class Piece(NamedTuple):
    """A window of a layer, each of shape (h, w)."""

    water: Bool
    known: Bool
    probability: NDArray[np.float32] | None


class Layer(Protocol):
    """A result on the grid of a comparison."""

    def read(self, window: Window) -> Piece:
        """A window inside the grid."""
        ...


@dataclass(frozen=True)
class RasterFile:
    """A mask or a raster of probabilities.

    A mask holds 1 or 255 for water and 0 for dry; nodata, and 128 where water is 255, are not known. A
    probability is float from 0 to 1, or whole numbers with a scale tag; NaN is not known.
    """

    path: Path
    geobox: GeoBox
    is_probability: bool

    @property
    def has_crs(self) -> bool:
        """False: it lies in pixels, x to the right and y down."""
        return self.geobox.crs is not None

    @contextmanager
    def on(self, grid: GeoBox, threshold: float) -> Iterator[RasterLayer]:
        """Open it on a grid.

        Raises:
            DatasetError: It has no CRS and another shape than the grid.
        """
        same = self.geobox.shape == grid.shape and (self.geobox == grid or not self.has_crs or grid.crs is None)
        if not same and not (self.has_crs and grid.crs is not None):
            raise DatasetError(
                f"{self.path} is {_size(self.geobox)} px and its counterpart {_size(grid)} px, and one of them has no "
                f"CRS. Give both a CRS, or rasters of one size."
            )
        with _opened(self.path) as source:
            if same:
                yield RasterLayer(self, source, threshold)
                return
            with WarpedVRT(
                source,
                crs=_wkt(grid),
                transform=grid.affine,
                height=grid.shape[0],
                width=grid.shape[1],
                resampling=self._resampling(grid),
                # Without nodata or mask of its own, what lies outside the file would read as dry.
                add_alpha=MaskFlags.all_valid in source.mask_flag_enums[0],
            ) as warped:
                yield RasterLayer(self, warped, threshold)

    def _resampling(self, grid: GeoBox) -> Resampling:
        if self.is_probability:
            return Resampling.bilinear  # GDAL widens it to an average where the grid is coarser.
        mine, theirs = gsd_of(self.geobox), gsd_of(grid)
        return (
            Resampling.mode if mine is not None and theirs is not None and theirs > 1.5 * mine else Resampling.nearest
        )


@dataclass(frozen=True)
class RasterLayer:
    """An open raster on the grid."""

    file: RasterFile
    source: Any
    threshold: float

    def read(self, window: Window) -> Piece:
        """A window inside the grid.

        Raises:
            DatasetError: A value is neither a mask's nor a probability, or the file is damaged.
        """
        try:
            values = self.source.read(1, window=window)
            known = self.source.read_masks(1, window=window) != 0
        except RasterioError as error:
            reason = error.__cause__ or error
            raise DatasetError(f"{self.file.path} cannot be read to its end ({reason}). Copy it again.") from None
        return self._probable(values, known) if self.file.is_probability else self._masked(values, known)

    def _probable(self, values: NDArray[Any], known: Bool) -> Piece:
        probability = (values * self.source.scales[0] + self.source.offsets[0]).astype(np.float32)
        known = known & ~np.isnan(probability)
        probability[~known] = 0
        low, high = float(probability.min(initial=0)), float(probability.max(initial=0))
        if low < -0.001 or high > 1.001:
            raise DatasetError(
                f"{self.file.path} holds {low:g} to {high:g}; "
                "expected probabilities from 0 to 1, or a mask of whole numbers."
            )
        return Piece(probability > np.float32(self.threshold), known, probability)

    def _masked(self, values: NDArray[Any], known: Bool) -> Piece:
        water = (values == 1) | (values == WATER)
        ignored = values == IGNORE
        odd = known & ~water & ~ignored & (values != 0)
        if odd.any():
            found = np.unique(values[odd])[:4].tolist()
            raise DatasetError(
                f"{self.file.path} holds the values {found}; expected a mask: 1 or 255 water, 0 dry, 128 not known."
            )
        if (known & (values == 1)).any() and (known & (values == WATER)).any():
            raise DatasetError(
                f"{self.file.path} holds both 1 and 255, and either may be water. If 255 is nodata, tag it so."
            )
        return Piece(water & known, known & ~ignored, None)


@dataclass(frozen=True)
class VectorFile:
    """Polygons of water; what lies outside them is dry."""

    path: Path
    shapes: Any
    """geopandas.GeoSeries of polygons, maybe empty."""

    @property
    def has_crs(self) -> bool:
        """False: it lies in pixels, x to the right and y down."""
        return self.shapes.crs is not None

    @contextmanager
    def on(self, grid: GeoBox, threshold: float) -> Iterator[VectorLayer]:
        """Bring it to a grid that has a CRS if it has one itself."""
        yield VectorLayer(self.shapes.to_crs(_wkt(grid)) if grid.crs is not None else self.shapes, grid)


@dataclass(frozen=True)
class VectorLayer:
    """Polygons in the CRS of the grid."""

    shapes: Any
    grid: GeoBox

    def read(self, window: Window) -> Piece:
        """A window inside the grid: pixels whose centre lies in a polygon are water."""
        affine = self.grid.affine @ Affine.translation(window.col_off, window.row_off)
        shape = int(window.height), int(window.width)
        corners = [affine @ corner for corner in ((0, 0), (shape[1], 0), (0, shape[0]), shape[::-1])]
        xs, ys = zip(*corners, strict=True)
        near = self.shapes.iloc[self.shapes.sindex.query(box(min(xs), min(ys), max(xs), max(ys)))]
        water = np.zeros(shape, np.uint8)
        if not near.empty:
            rasterize(near, out=water, transform=affine, default_value=1)
        return Piece(water.astype(bool), np.ones(shape, bool), None)


def open_file(path: str | Path) -> RasterFile | VectorFile:
    """A raster or a vector file.

    Raises:
        DatasetError: It is missing, or neither.
    """
    path = Path(path)
    if not path.exists():
        raise DatasetError(f"{path} does not exist. Give a raster or a vector file.")
    try:
        with _opened(path) as source:
            georeferenced = source.crs is not None
            geobox = GeoBox(source.shape, source.transform if georeferenced else Affine.identity(), source.crs or None)
            scaled = source.scales[0] != 1 or source.offsets[0] != 0
            return RasterFile(path, geobox, np.dtype(source.dtypes[0]).kind == "f" or scaled)
    except RasterioError:
        return _read_vector(path)


def _read_vector(path: Path) -> VectorFile:
    try:
        shapes = read_vector(path).geometry
    except Exception as error:  # pyogrio's errors have no common base with those of the drivers under it
        reason = " ".join(str(error).split())[:200]
        raise DatasetError(f"{path} is neither a raster nor a vector file that can be read: {reason}") from None
    polygons = shapes[shapes.geom_type.isin(["Polygon", "MultiPolygon"]) & ~shapes.is_empty]
    if polygons.empty and not shapes.empty:
        raise DatasetError(f"{path} has no polygon. Give polygons of water, or a raster.")
    check_degrees(polygons, path)
    polygons = polygons.make_valid()
    named = str(polygons.crs or "")
    unknown = "Undefined" in named or "Unknown" in named  # What a GeoPackage says that has none.
    return VectorFile(
        path, (polygons.set_crs(None, allow_override=True) if unknown else polygons).reset_index(drop=True)
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # Said in our own words where it matters.
        with rasterio.open(path) as source:
            yield source


def _wkt(geobox: GeoBox) -> str:
    return "" if geobox.crs is None else str(geobox.crs.to_wkt())


def _size(geobox: GeoBox) -> str:
    return f"{geobox.shape[1]} x {geobox.shape[0]}"


def gsd_of(geobox: GeoBox) -> float | None:
    """Metres a pixel, or None without CRS."""
    from geosam.scene.grid import pixel_size_m

    size = float(np.sqrt(np.prod(pixel_size_m(geobox))))
    return size if np.isfinite(size) else None

"""Pixels of an xarray.DataArray, in memory or behind dask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine

from geosam.errors import SceneError
from geosam.scene.files import band_name, wavelength_um
from geosam.scene.header import Box, Header, Mask, Pixels

ROW_NAMES = ("y", "latitude", "lat", "row", "northing")
COL_NAMES = ("x", "longitude", "lon", "col", "easting")


@dataclass(frozen=True, eq=False)
class ArrayReader:
    """Reads windows of an array with dimensions (band, y, x)."""

    array: xr.DataArray
    header: Header

    @classmethod
    def open(cls, array: xr.DataArray, name: str) -> ArrayReader:
        """Find the dimensions and the georeference of an array.

        Raises:
            SceneError: Not two spatial dimensions and one of bands.
        """
        row, col = _spatial(array, name)
        array = array.squeeze([dim for dim in array.dims if dim not in (row, col) and array.sizes[dim] == 1][1:])
        rest = [dim for dim in array.dims if dim not in (row, col)]
        if len(rest) > 1:
            raise SceneError(f"{name} has dimensions {array.dims}. Select one time step: geosam needs (band, y, x).")
        ordered = array.transpose(*rest, row, col) if rest else array.transpose(row, col).expand_dims("band")
        if ordered.dtype == bool:
            ordered = ordered.astype(np.uint8)
        return cls(ordered, _header(ordered, name))

    def read(self, bands: Sequence[int], box: Box, level: int = 0) -> Pixels:
        """Raw values, shape (bands, h, w)."""
        rows, cols = box.slices
        return np.asarray(self.array[[band - 1 for band in bands], rows, cols].values)

    def read_mask(self, box: Box, level: int = 0) -> Mask:
        """An array has no mask band: every pixel."""
        return np.ones((box.height, box.width), bool)


def _spatial(array: xr.DataArray, name: str) -> tuple[Any, Any]:
    named = {str(dim).lower(): dim for dim in array.dims}
    rows = [named[key] for key in ROW_NAMES if key in named]
    cols = [named[key] for key in COL_NAMES if key in named]
    if not rows or not cols:
        raise SceneError(f"{name} has dimensions {array.dims}. Rename them to (band, y, x) or (y, x, band).")
    return rows[0], cols[0]


def _header(ordered: xr.DataArray, name: str) -> Header:
    count = ordered.sizes[ordered.dims[0]]
    height, width = int(ordered.shape[1]), int(ordered.shape[2])
    crs, transform = _georeference(ordered, ordered.dims[1], ordered.dims[2], name)
    attrs = {**ordered.encoding, **ordered.attrs}
    return Header(
        shape=(height, width),
        count=count,
        dtype=str(ordered.dtype),
        crs=crs,
        transform=transform,
        nodata=(_nodata(attrs),) * count,
        # decoded arrays keep the scale in their encoding, where it has been applied already
        scales=_each(ordered.attrs.get("scale_factor", 1.0), count),
        offsets=_each(ordered.attrs.get("add_offset", 0.0), count),
        names=_names(ordered, count),
        wavelengths=_wavelengths(ordered, count),
        colors=("undefined",) * count,
        hint=name.lower(),
        block=(min(height, 512), min(width, 512)),
        levels=((height, width),),
    )


def _georeference(array: xr.DataArray, row: Any, col: Any, name: str) -> tuple[Any, Affine]:
    """CRS and transform, as rioxarray and odc-geo write them; read here, since odc-geo's accessor needs dask."""
    mapping = array.attrs.get("grid_mapping", array.encoding.get("grid_mapping", "spatial_ref"))
    attrs = dict(array.coords[mapping].attrs) if mapping in array.coords else {}
    crs = attrs.get("crs_wkt") or attrs.get("spatial_ref") or array.attrs.get("crs")
    if crs is None and "epsg" in array.coords and array.coords["epsg"].ndim == 0:
        crs = f"EPSG:{int(array.coords['epsg'])}"
    tagged = [float(word) for word in str(attrs.get("GeoTransform", "")).split()]
    transform = Affine.from_gdal(*tagged) if len(tagged) == 6 else None
    if transform is None or (transform.b == 0 and transform.d == 0):
        # the tag is stale once somebody has sliced the array; only a rotated grid has nothing else
        transform = _from_coordinates(array, row, col, transform, name)
    return (None, Affine.identity()) if crs is None or transform is None else (crs, transform)


def _from_coordinates(array: xr.DataArray, row: Any, col: Any, tagged: Affine | None, name: str) -> Affine | None:
    if row not in array.coords or col not in array.coords:
        return tagged
    x, dx = _axis(array.coords[col].values, tagged.a if tagged is not None else None, name)
    y, dy = _axis(array.coords[row].values, tagged.e if tagged is not None else None, name)
    if dx is None or dy is None:
        return None
    return Affine(dx, 0, x - dx / 2, 0, dy, y - dy / 2)


def _axis(centres: Any, step: float | None, name: str) -> tuple[float, float | None]:
    """First pixel centre and pixel size of an axis; a single pixel has the size in the tag, or none."""
    values = np.asarray(centres, float)
    if len(values) == 1:
        return float(values[0]), step
    steps = np.diff(values)
    mean = float(values[-1] - values[0]) / (len(values) - 1)
    if mean == 0 or np.abs(steps - mean).max() > 0.01 * abs(mean):
        raise SceneError(f"{name} has unevenly spaced x or y coordinates. Resample it to a regular grid first.")
    return float(values[0]), mean


def _nodata(attrs: dict[Any, Any]) -> float | None:
    for key in ("_FillValue", "nodata", "missing_value"):
        if attrs.get(key) is not None:
            return float(attrs[key])
    return None


def _each(value: Any, count: int) -> tuple[float, ...]:
    return tuple(float(entry) for entry in np.broadcast_to(np.asarray(value, float), (count,)))


def _names(ordered: xr.DataArray, count: int) -> tuple[str, ...]:
    long_name = ordered.attrs.get("long_name")
    if isinstance(long_name, tuple | list) and len(long_name) == count:
        return tuple(map(str, long_name))
    labels = ordered.coords.get(ordered.dims[0])
    if labels is None or labels.dtype.kind not in "UO" or labels.ndim != 1:
        return ("",) * count
    return tuple(band_name(str(label), {}) for label in labels.values)


def _wavelengths(ordered: xr.DataArray, count: int) -> tuple[float | None, ...]:
    for key in ("wavelength", "center_wavelength"):
        found = ordered.coords.get(key)
        if found is not None and found.shape == (count,):
            return tuple(wavelength_um({"wavelength": str(value)}) for value in found.values)
    return (None,) * count

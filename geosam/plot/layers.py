"""What is drawn on the ortho, brought onto the picture's grid: polygons, points, masks and probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeAlias, cast, runtime_checkable

import geopandas as gpd
import numpy as np
import pyogrio
import rasterio
import shapely
from matplotlib.colors import to_rgba
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioIOError
from rasterio.features import rasterize
from rasterio.vrt import WarpedVRT
from shapely.geometry.polygon import orient

from geosam.errors import SceneError
from geosam.plot.canvas import mapped
from geosam.plot.sheet import Ground
from geosam.scene.vectors import ANY, read_vector


@runtime_checkable
class OnDisk(Protocol):
    """A result that knows its raster, such as a coarse mask."""

    @property
    def path(self) -> Path:
        """The raster."""


@runtime_checkable
class Found(Protocol):
    """A result that holds its polygons, such as the rivers of a run."""

    @property
    def polygons(self) -> gpd.GeoDataFrame:
        """The polygons."""


Layer: TypeAlias = gpd.GeoDataFrame | str | Path | OnDisk | Found
"""Polygons, a vector file, a mask raster, or a result that has one of these."""

_RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".vrt", ".png", ".jpg", ".jp2", ".img"})


def is_raster(layer: Layer) -> bool:
    """Whether a layer is a raster rather than polygons."""
    if isinstance(layer, gpd.GeoDataFrame | Found):
        return False
    return Path(_path_of(layer)).suffix.lower() in _RASTER_SUFFIXES


def shapes(small: Ground, layer: Layer) -> gpd.GeoDataFrame:
    """Geometries in pixels of the picture, (x, y) with (0, 0) at the outer corner of the first pixel.

    Args:
        small: The scene at the picture's grid.
        layer: A GeoDataFrame or a vector file, in any CRS.

    Raises:
        SceneError: The file cannot be read, or only one of scene and layer has a CRS.
    """
    frame = _frame_of(layer)
    if frame.crs is not None and small.has_crs:
        frame = frame.to_crs(small.geobox.crs)
    inverse = ~small.geobox.affine
    pixels = shapely.transform(frame.geometry.values, lambda xy: mapped(inverse, xy))
    return frame.set_geometry(gpd.GeoSeries(pixels, index=frame.index, crs=None))


def water(small: Ground, layer: Layer) -> NDArray[np.bool_]:
    """The layer as a mask on the picture's grid, bool (h, w)."""
    if is_raster(layer):
        values = np.nan_to_num(values_of(small, _path_of(layer)))
        # Masks of 0 and 1 and probabilities are cut at a half, masks of 0 and 255 at theirs.
        return values > (0.5 if values.max() <= 1 else 127)
    geometries = [shape for shape in shapes(small, layer).geometry if shape is not None and not shape.is_empty]
    if not geometries:
        return np.zeros(small.shape, bool)
    return np.asarray(rasterize(geometries, out_shape=small.shape, dtype="uint8")).astype(bool)


def values_of(small: Ground, path: str | Path, how: Resampling = Resampling.average) -> NDArray[np.float32]:
    """The first band of a raster on the picture's grid, float32 (h, w), NaN where it has no data.

    Raises:
        SceneError: The file is not a raster that can be read.
    """
    height, width = small.shape
    try:
        with rasterio.open(path) as source:
            if source.crs is None or not small.has_crs:
                band = source.read(1, out_shape=small.shape, masked=True, resampling=how)
            else:
                grid = {"crs": str(small.geobox.crs), "transform": small.geobox.affine}
                with WarpedVRT(source, width=width, height=height, resampling=how, **grid) as warped:
                    band = warped.read(1, masked=True)
    except RasterioIOError as error:
        raise SceneError(f"{path} cannot be read as a raster: {error}") from None
    return np.asarray(band.astype(np.float32).filled(np.nan))


def patch(shape: shapely.Geometry, *, face: str, edge: str, width: float, alpha: float) -> PathPatch:
    """A polygon or multipolygon, holes left open, in the coordinates it is given in."""
    # Agg fills by winding: a hole is open only where it runs against its shell.
    parts = [orient(part) for part in shapely.get_parts(shape)]
    rings = [ring for part in parts for ring in (part.exterior, *part.interiors)]
    outline = Outline.make_compound_path(*(Outline(np.asarray(ring.coords)[:, :2], closed=True) for ring in rings))
    return PathPatch(outline, facecolor=to_rgba(face, alpha), edgecolor=edge, linewidth=width)


def layer_names(path: str | Path) -> list[str]:
    """Names of the layers of a vector file; none of a raster or of a file that cannot be read as vectors."""
    try:
        return [str(name) for name in pyogrio.list_layers(path)[:, 0]]
    except (pyogrio.errors.DataSourceError, OSError):
        return []


def read_layers(path: str | Path, names: tuple[str, ...]) -> dict[str, gpd.GeoDataFrame]:
    """Layers of a file by name.

    Raises:
        SceneError: The file cannot be read, or lacks one of them.
    """
    try:
        return {name: gpd.read_file(path, layer=name) for name in names}
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, OSError, ValueError) as error:
        raise SceneError(f"{path} cannot be read: {error}. It should have the layers {', '.join(names)}.") from None


def _path_of(layer: Layer) -> str | Path:
    # A frame was told apart before; text stays text, since a Path would spoil a URL.
    return layer.path if isinstance(layer, OnDisk) else cast("str | Path", layer)


def _frame_of(layer: Layer) -> gpd.GeoDataFrame:
    if isinstance(layer, gpd.GeoDataFrame):
        return layer
    return layer.polygons if isinstance(layer, Found) else _read_vector(_path_of(layer))


def _read_vector(path: str | Path) -> gpd.GeoDataFrame:
    if "://" not in str(path) and not str(path).startswith("/vsi") and not Path(path).exists():
        raise SceneError(f"{path} does not exist. Give an existing vector or raster file.")
    try:
        return cast("gpd.GeoDataFrame", read_vector(path, ANY))
    except (pyogrio.errors.DataSourceError, OSError, ValueError) as error:
        raise SceneError(f"{path} cannot be read as polygons or points: {error}") from None

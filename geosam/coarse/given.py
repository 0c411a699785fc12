"""A first guess that somebody else made: a mask from a raster or vector file, on the scene's grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from shapely.geometry import box

from geosam.coarse.opened import opened
from geosam.coarse.runs import UNKNOWN
from geosam.errors import OptionsError
from geosam.scene.vectors import read_vector

if TYPE_CHECKING:
    from geosam.scene import Scene

UInt8 = NDArray[np.uint8]


def open_given(path: Path, scene: Scene) -> RasterMask | VectorMask:
    """A mask file as a classifier of the scene's windows.

    Args:
        path: Raster (first band; not zero is water, nodata is unknown) or vector file (inside its
            polygons is water), in any CRS.
        scene: Gives the grid.

    Raises:
        OptionsError: The file is neither, has no CRS, or cannot be brought to a scene without one.
    """
    try:
        with opened(path) as source:
            return RasterMask.of(path, source, scene)
    except RasterioError:
        return VectorMask.of(path, scene)


@dataclass(frozen=True)
class RasterMask:
    """A mask raster; pixels take the value of the nearest mask pixel."""

    path: Path
    same_grid: bool
    """The scene has no CRS, and the raster the scene's shape: no warping."""

    @classmethod
    def of(cls, path: Path, source: Any, scene: Scene) -> RasterMask:
        """Check that the raster can be brought to the scene's grid."""
        if not scene.has_crs:
            if source.shape != scene.shape:
                raise OptionsError(
                    f"{path} is {source.width} x {source.height} px, and the scene without CRS is "
                    f"{scene.shape[1]} x {scene.shape[0]} px. Give a mask of the scene's size."
                )
        elif source.crs is None:
            raise OptionsError(
                f"{path} has no CRS, so its place in the scene is unknown. Give --method a mask with a CRS."
            )
        return cls(path, not scene.has_crs)

    def classify(self, scene: Scene, window: Window, threshold: float) -> UInt8:
        """0 dry, 1 water, 255 unknown, for a window inside the scene, shape (h, w)."""
        with opened(self.path) as source:
            if self.same_grid:
                return _classes(source, window, scene)
            height, width = scene.shape
            with WarpedVRT(
                source,
                crs=_crs(scene),
                transform=scene.geobox.affine,
                width=width,
                height=height,
                resampling=Resampling.nearest,
                # Without nodata or mask of its own, what lies outside the file would read as dry.
                add_alpha=MaskFlags.all_valid in source.mask_flag_enums[0],
            ) as warped:
                return _classes(warped, window, scene)


@dataclass(frozen=True)
class VectorMask:
    """Polygons of water."""

    polygons: Any
    """geopandas.GeoSeries in the scene's CRS."""

    @classmethod
    def of(cls, path: Path, scene: Scene) -> VectorMask:
        """Read the polygons and bring them to the scene's CRS."""
        try:
            layer = read_vector(path)
        except Exception as error:  # pyogrio's errors have no common base with those of the drivers under it
            raise OptionsError(f"{path} is neither a raster nor a vector file that can be read: {error}") from None
        if getattr(layer, "active_geometry_name", None) is None:  # a plain table
            raise OptionsError(f"{path} holds no geometry. Give --method a mask of polygons, or a raster.")
        if scene.has_crs and layer.crs is None:
            raise OptionsError(
                f"{path} has no CRS, so its place in the scene is unknown. Give --method a mask with a CRS."
            )
        shapes = layer.geometry if not scene.has_crs else layer.geometry.to_crs(_crs(scene))
        polygons = shapes[shapes.geom_type.isin(["Polygon", "MultiPolygon"]) & ~shapes.is_empty]
        if polygons.empty:
            raise OptionsError(f"{path} has no polygon. Give --method a mask of polygons, or a raster.")
        return cls(polygons.reset_index(drop=True))

    def classify(self, scene: Scene, window: Window, threshold: float) -> UInt8:
        """0 dry, 1 water, 255 unknown, for a window inside the scene, shape (h, w)."""
        affine = scene.geobox.affine @ Affine.translation(window.col_off, window.row_off)
        shape = int(window.height), int(window.width)
        corners = [affine @ corner for corner in ((0, 0), (shape[1], 0), (0, shape[0]), shape[::-1])]
        xs, ys = zip(*corners, strict=True)
        near = self.polygons.iloc[self.polygons.sindex.query(box(min(xs), min(ys), max(xs), max(ys)))]
        classes: UInt8 = np.zeros(shape, np.uint8)
        if not near.empty:
            rasterize(near, out=classes, transform=affine, default_value=1)
        classes[~scene.read_valid(window)] = UNKNOWN
        return classes


def _crs(scene: Scene) -> str:
    crs = scene.geobox.crs
    return str(crs.to_wkt()) if crs is not None else ""


def _classes(source: Any, window: Window, scene: Scene) -> UInt8:
    values = source.read(1, window=window)
    known = source.read_masks(1, window=window) != 0
    if values.dtype.kind == "f":
        known &= ~np.isnan(values)
    classes: UInt8 = (values != 0).view(np.uint8)
    classes[~(known & scene.read_valid(window))] = UNKNOWN
    return classes

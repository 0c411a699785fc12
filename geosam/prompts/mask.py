"""A mask that a person hands to the model as it is: polygons or a raster, read by windows of the scene."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.features import geometry_mask
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from geosam.errors import OptionsError
from geosam.prompts.files import POLYGONS, Layer, read_layer

if TYPE_CHECKING:
    from geosam.scene import Scene

Bool = NDArray[np.bool_]
OPTION = "--prompt-mask"


class GivenMask(Protocol):
    """A dense prompt on the grid of a scene."""

    def read(self, window: Window) -> Bool:
        """Water of a window, which may overhang the scene, bool (h, w)."""
        ...


@dataclass(frozen=True, eq=False)
class PolygonMask:
    """Water inside polygons, in pixels of the scene."""

    polygons: NDArray[Any]

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.polygons)

    def read(self, window: Window) -> Bool:
        """See :class:`GivenMask`; pixels whose centre lies inside are water."""
        row, col, shape = int(window.row_off), int(window.col_off), (int(window.height), int(window.width))
        near = self._tree.query(shapely.box(col, row, col + shape[1], row + shape[0]), predicate="intersects")
        if len(near) == 0:
            return np.zeros(shape, bool)
        found: Bool = geometry_mask(self.polygons[near], shape, Affine.translation(col, row), invert=True)
        return found


@dataclass(frozen=True, eq=False)
class RasterMask:
    """Water where the first band of a raster is neither zero nor nodata; pixels take the nearest one's value."""

    path: str
    grid: dict[str, Any]
    """Keywords that warp the file to the scene's grid; empty where it lies on it already."""
    shape: tuple[int, int]
    """Of the scene."""

    def read(self, window: Window) -> Bool:
        """See :class:`GivenMask`."""
        water = np.zeros((int(window.height), int(window.width)), bool)
        row, col = int(window.row_off), int(window.col_off)
        height, width = min(water.shape[0], self.shape[0] - row), min(water.shape[1], self.shape[1] - col)
        inside = Window(col, row, width, height)
        with _opened(self.path) as file:
            if self.grid:
                # Without nodata or mask of its own, what lies outside the file would read as a value.
                alpha = MaskFlags.all_valid in file.mask_flag_enums[0]
                with WarpedVRT(file, resampling=Resampling.nearest, add_alpha=alpha, **self.grid) as warped:
                    water[:height, :width] = _water(warped, inside)
            else:
                water[:height, :width] = _water(file, inside)
        return water


def open_mask(path: str, scene: Scene) -> tuple[GivenMask | None, str | None]:
    """A mask file on a scene.

    Args:
        path: A raster (first band; not zero is water) or a vector file of polygons, in any CRS.
        scene: Gives the grid.

    Returns:
        The mask, None if all of it lies outside, and a sentence on what does.

    Raises:
        OptionsError: It is neither, has no CRS, or cannot be brought to a scene without one.
    """
    if not os.path.exists(path) and "://" not in path and not path.startswith("/vsi"):
        raise OptionsError(f"{OPTION} {path} does not exist. Give a raster, or a vector file with polygons.")
    try:
        with _opened(path) as file:
            # Absolute, since it is opened again and again, maybe by another process.
            path = os.path.abspath(path) if os.path.exists(path) else path
            return _raster(path, file, scene)
    except RasterioError:
        return _polygons(read_layer(OPTION, path, POLYGONS, scene), scene)


def _polygons(layer: Layer, scene: Scene) -> tuple[GivenMask | None, str | None]:
    with np.errstate(invalid="ignore"):
        inside = shapely.intersects(shapely.make_valid(layer.shapes), _outline(scene))
    mask = PolygonMask(layer.shapes[inside]) if inside.any() else None
    return mask, layer.outside(inside, "polygons", scene.source)


def _raster(path: str, file: Any, scene: Scene) -> tuple[GivenMask | None, str | None]:
    if not scene.has_crs or file.crs is None:
        whole = scene.decoder.header.shape
        if scene.has_crs or file.shape != scene.shape or scene.shape != whole:
            raise OptionsError(
                f"{OPTION} {path} is {file.width} x {file.height} px, {_crs(file.crs)}, and {scene.source} "
                f"{scene.shape[1]} x {scene.shape[0]} px, {_crs(scene.geobox.crs)}. Give both a CRS."
            )
        return RasterMask(path, {}, scene.shape), None
    height, width = scene.shape
    grid = {"crs": scene.geobox.crs.to_wkt(), "transform": scene.geobox.affine, "height": height, "width": width}  # type: ignore[union-attr]
    corners = rasterio.warp.transform_bounds(file.crs, grid["crs"], *file.bounds)
    place = shapely.transform(
        shapely.box(*corners), lambda xy: np.stack(~scene.geobox.affine @ (xy[:, 0], xy[:, 1]), axis=1)
    )
    if not shapely.intersects(place, _outline(scene)):
        return None, f"the raster {path} lies outside {scene.source}."
    return RasterMask(path, grid, scene.shape), None


def _outline(scene: Scene) -> Any:
    return shapely.box(0, 0, scene.shape[1], scene.shape[0])


def _crs(crs: Any) -> str:
    return "without CRS" if crs is None else "with a CRS"


def _water(file: Any, window: Window) -> Bool:
    values = file.read(1, window=window)
    known: Bool = (file.read_masks(1, window=window) != 0) & (values != 0)
    return known & ~np.isnan(values) if values.dtype.kind == "f" else known


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # Said in our own words where it matters.
        file = rasterio.open(path)
    with file:
        yield file

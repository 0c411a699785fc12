"""Where the pixels of a scene lie on the page, which is in web mercator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj.enums import TransformDirection

from geosam.scene import Scene

Floats = NDArray[np.float64]

MERCATOR = "EPSG:3857"
MOST_LATITUDE = 85.05
"""Degrees; web mercator ends there."""
WIDEST_DEGREES = 180.0
"""A scene wider than this in longitude crosses the antimeridian, which the page cannot show in one piece."""


@dataclass(frozen=True)
class Place:
    """The scene's grid on the page, and the way from one to the other; safe to use from several threads.

    A scene without CRS, or one that web mercator cannot show, lies on the page as a plain picture: a pixel is a
    mercator metre around longitude and latitude zero.
    """

    geobox: GeoBox
    """The working grid; always with a CRS."""
    is_real: bool
    """Whether the scene lies at its place on earth."""

    @classmethod
    def of(cls, scene: Scene) -> Place:
        """The place of a scene's working grid."""
        if scene.has_crs:
            real = cls(scene.geobox, True)
            if _fits(real._outline()):
                return real
        height, width = scene.shape
        return cls(GeoBox(scene.shape, Affine(1, 0, -width / 2, 0, -1, height / 2), MERCATOR), False)

    def lonlat(self, xy: Floats) -> Floats:
        """From pixels (x right, y down), shape (n, 2), to longitude and latitude in degrees."""
        return self._moved(mapped(self.geobox.affine, xy), inverse=False)

    def pixels(self, lonlat: Floats) -> Floats:
        """From longitude and latitude in degrees, shape (n, 2), to pixels of the working grid."""
        return mapped(~self.geobox.affine, self._moved(lonlat, inverse=True))

    def on_page(self, shapes: NDArray[np.object_]) -> NDArray[np.object_]:
        """shapely geometries (n,) from pixels to longitude and latitude in degrees."""
        out: NDArray[np.object_] = shapely.transform(shapes, self.lonlat)
        return out

    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east and north of the scene in degrees."""
        around = self._outline()
        return (*map(float, around.min(axis=0)), *map(float, around.max(axis=0)))  # type: ignore[return-value]

    def _moved(self, xy: Floats, *, inverse: bool) -> Floats:
        direction = TransformDirection.INVERSE if inverse else TransformDirection.FORWARD
        return np.stack(self._transformer().transform(xy[:, 0], xy[:, 1], direction=direction), axis=1)

    def _transformer(self) -> pyproj.Transformer:
        # Made anew, which takes a third of a millisecond: one that is kept must not be used from several threads.
        assert self.geobox.crs is not None
        return pyproj.Transformer.from_crs(self.geobox.crs.proj, "EPSG:4326", always_xy=True)

    def _outline(self) -> Floats:
        """Points along the scene's edges in degrees, shape (n, 2)."""
        height, width = self.geobox.shape
        along, still = np.linspace(0, 1, 33), np.zeros(33)
        sides = [(along, still), (along, still + 1), (still, along), (still + 1, along)]
        return self.lonlat(np.concatenate([np.stack([x * width, y * height], axis=1) for x, y in sides]))


def mapped(affine: Affine, xy: Floats) -> Floats:
    """Points (n, 2) through an affine."""
    matrix = np.array([[affine.a, affine.b], [affine.d, affine.e]])
    return np.asarray(xy @ matrix.T + (affine.c, affine.f))


def moved(affine: Affine, shapes: NDArray[np.object_]) -> NDArray[np.object_]:
    """shapely geometries (n,) through an affine."""
    out: NDArray[np.object_] = shapely.transform(shapely.force_2d(shapes), lambda xy: mapped(affine, xy))
    return out


def _fits(lonlat: Floats) -> bool:
    if not np.isfinite(lonlat).all():
        return False
    span = np.ptp(lonlat[:, 0])
    return bool(np.abs(lonlat[:, 1]).max() < MOST_LATITUDE and span < WIDEST_DEGREES)

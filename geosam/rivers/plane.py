"""A flat map in metres for a layer in any CRS."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyproj
import shapely

from geosam.rivers.banks import Floats, Geometries


@dataclass(frozen=True)
class Plane:
    """An equal-area map about the middle of a layer, on the ellipsoid of the layer's own datum.

    Lengths are true to 0.1 % within 500 km of the middle. A CRS that is tied to no ellipsoid is a plane already;
    without a CRS the plane is the layer's own, in its units.
    """

    crs: pyproj.CRS | None
    """CRS of the layer."""
    centre: tuple[float, float] | None
    """Longitude and latitude of the middle in degrees; None where there is no ellipsoid."""

    def to_metres(self, geometries: Geometries) -> Geometries:
        """From the layer's CRS to metres east and north of the middle; every vertex is moved, none is added."""
        if self.centre is None:
            return np.asarray(shapely.transform(geometries, lambda xy: xy * self._unit_m))
        return np.asarray(shapely.transform(geometries, self._forward))

    def to_layer(self, geometries: Geometries) -> Geometries:
        """Back to the layer's CRS."""
        if self.centre is None:
            return np.asarray(shapely.transform(geometries, lambda xy: xy / self._unit_m))
        return np.asarray(shapely.transform(geometries, self._back))

    def _forward(self, xy: Floats) -> Floats:
        return np.stack(self._map(*self._lonlat.transform(xy[:, 0], xy[:, 1])), axis=1)

    def _back(self, xy: Floats) -> Floats:
        lonlat = self._map(xy[:, 0], xy[:, 1], inverse=True)
        return np.stack(self._lonlat.transform(*lonlat, direction="INVERSE"), axis=1)

    @cached_property
    def _unit_m(self) -> float:
        return 1.0 if self.crs is None else float(self.crs.axis_info[0].unit_conversion_factor)

    @cached_property
    def _lonlat(self) -> pyproj.Transformer:
        assert self.crs is not None
        return pyproj.Transformer.from_crs(self.crs, self.crs.geodetic_crs, always_xy=True)

    @cached_property
    def _map(self) -> pyproj.Proj:
        assert self.crs is not None
        assert self.centre is not None
        ellipsoid = self.crs.get_geod()
        assert ellipsoid is not None, "plane_of gives a centre only where there is an ellipsoid"
        return pyproj.Proj(proj="laea", lon_0=self.centre[0], lat_0=self.centre[1], a=ellipsoid.a, b=ellipsoid.b)


def plane_of(geometries: Geometries, crs: pyproj.CRS | None) -> Plane:
    """The plane of a layer.

    Args:
        geometries: At least one, none of them empty.
        crs: Their CRS.
    """
    if crs is None or crs.geodetic_crs is None:
        return Plane(crs, None)
    west, south, east, north = shapely.bounds(geometries).T
    to_lonlat = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    lon, lat = np.radians(to_lonlat.transform((west + east) / 2, (south + north) / 2))
    # The mean on the sphere, not of degrees: a layer may lie on both sides of the antimeridian.
    x, y, z = (np.cos(lat) * np.cos(lon)).mean(), (np.cos(lat) * np.sin(lon)).mean(), np.sin(lat).mean()
    return Plane(crs, (float(np.degrees(np.arctan2(y, x))), float(np.degrees(np.arctan2(z, np.hypot(x, y))))))

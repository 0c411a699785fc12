"""Pixels on the ground: areas, lengths and tolerances in metres, whatever the CRS."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyproj
from affine import Affine
from odc.geo.geobox import GeoBox

from geosam.vector.corners import Floats, Ints, Longs, ranges
from geosam.vector.ordered import Crew
from geosam.vector.rings import Rings

LONGEST_M = 200.0
"""Edges longer than this are measured in pieces, since a line straight in the CRS is not straight on the ground."""

_CHUNK = 1 << 17
"""Vertices measured in one go."""


def ground_of(geobox: GeoBox, has_crs: bool = True) -> Ground:
    """The ground under a raster: an ellipsoid where its CRS is tied to one, else flat.

    Without a CRS the ground is the pixel grid itself: x to the right, y down, in pixels.
    """
    height, width = geobox.shape
    if geobox.crs is None or not has_crs:
        return Ground(Affine.identity(), (height, width), None, 1.0)
    crs = geobox.crs.proj
    if crs.geodetic_crs is None:
        return Ground(geobox.affine, (height, width), crs, crs.axis_info[0].unit_conversion_factor)
    return Ellipsoid(geobox.affine, (height, width), crs, float("nan"))


@dataclass(frozen=True)
class Ground:
    """A flat ground: pixel sizes are the same everywhere."""

    affine: Affine
    """From (column, row) of a pixel corner to (x, y) in the CRS."""
    shape: tuple[int, int]
    """Height and width of the raster in pixels."""
    crs: pyproj.CRS | None
    """CRS of the raster."""
    unit_m: float
    """Metres in one unit of the CRS; 1 without a CRS, when all is in pixels."""

    def world(self, xy: Ints | Floats) -> Floats:
        """From (column, row) to the CRS's (x, y), shape (n, 2)."""
        return _apply(self.affine, xy)

    def plane(self, xy: Ints | Floats) -> Floats:
        """From (column, row) to metres in a plane, shape (n, 2)."""
        return self.world(xy) * self.unit_m

    def measure(self, rings: Rings, crew: Crew) -> tuple[Floats, Floats]:
        """Area inside every ring in m² and its length in m, shape (rings,) each.

        Args:
            rings: Closed rings in (column, row).
            crew: Who measures.
        """
        count = len(rings.body)
        area, length = np.zeros(count), np.zeros(count)
        chunks = range(0, len(rings.xy) - 1, _CHUNK)
        for ring, part, run in crew.map(lambda start: self._measured(rings, start), chunks):
            # One edge after the other, so that not even the last bit depends on where a chunk ends.
            np.add.at(area, ring, part)
            np.add.at(length, ring, run)
        return np.abs(area), length

    def _measured(self, rings: Rings, start: int) -> tuple[Longs, Floats, Floats]:
        """Of every edge of a chunk: its ring, its part of the ring's area, and its length."""
        ring, points = self._densified(*_edges(rings, start))
        inside = ring >= 0
        ring = ring[inside]
        at = self._surface(points)
        step, levels = self._steps(at), self._levels(at)
        # Levels relative to the ring's first vertex, or the areas of small rings drown in rounding.
        first = self._levels(self._surface(rings.xy[rings.offsets[ring[0] : ring[-1] + 1]]))
        level = ((levels[1:] + levels[:-1]) / 2)[inside] - first[ring - ring[0]]
        return ring, step[inside, 0] * level, self._lengths(at, step)[inside]

    def _densified(self, ring: Longs, points: Ints) -> tuple[Longs, Ints | Floats]:
        return ring, points

    def _surface(self, xy: Ints | Floats) -> Floats:
        """From (column, row) to the two coordinates in which edges are measured, shape (n, 2)."""
        return self.plane(xy)

    def _steps(self, at: Floats) -> Floats:
        """Difference of the coordinates along every edge, shape (n - 1, 2)."""
        return np.diff(at, axis=0)

    def _levels(self, at: Floats) -> Floats:
        """What is integrated along the first coordinate to give an area, shape (n,)."""
        return at[:, 1]

    def _lengths(self, at: Floats, step: Floats) -> Floats:
        """Length of every edge in metres, shape (n - 1,)."""
        return np.hypot(step[:, 0], step[:, 1])


@dataclass(frozen=True)
class Ellipsoid(Ground):
    """The ground on the ellipsoid of the CRS's datum.

    Areas are integrals of the authalic latitude along the boundary, which is exact for pixels in
    degrees; lengths are those of the ellipsoid at the middle latitude of each edge. Both are
    array arithmetic: GeographicLib, polygon by polygon, took over 3 times as long.
    Source: J. P. Snyder (1987), Map Projections: A Working Manual, pp. 16-25.
    """

    def plane(self, xy: Ints | Floats) -> Floats:
        """From (column, row) to metres east and north of the raster's centre, shape (n, 2).

        An equal-area projection about the centre: lengths are true to 0.1 % within 500 km.
        """
        lon, lat = np.degrees(self._surface(xy)).T
        return np.stack(self._laea(lon, lat), axis=1)

    @cached_property
    def _lonlat(self) -> pyproj.Transformer:
        assert self.crs is not None
        return pyproj.Transformer.from_crs(self.crs, self.crs.geodetic_crs, always_xy=True)

    @cached_property
    def _laea(self) -> pyproj.Proj:
        lon, lat = np.degrees(self._surface(self._centre))[0]
        return pyproj.Proj(proj="laea", lon_0=lon, lat_0=lat, a=self._geod.a, b=self._geod.b)

    @cached_property
    def _geod(self) -> pyproj.Geod:
        geod = self.crs.get_geod() if self.crs is not None else None
        assert geod is not None, "ground_of makes an Ellipsoid only of a CRS that has one"
        return geod

    @property
    def _centre(self) -> Floats:
        return np.array([[self.shape[1] / 2, self.shape[0] / 2]])

    @cached_property
    def _longest_px(self) -> float:
        """:data:`LONGEST_M` in pixels, by the larger side of the pixel at the centre."""
        corner = self._centre + np.array([[0.0, 0.0], [0.5, 0.0], [0.0, 0.0], [0.0, 0.5]])
        at = self._surface(corner)
        return LONGEST_M / max(2 * float(np.nanmax(self._lengths(at, self._steps(at))[[0, 2]])), 1e-9)

    def _densified(self, ring: Longs, points: Ints) -> tuple[Longs, Ints | Floats]:
        step = np.diff(points, axis=0)
        step[ring < 0] = 0
        size = np.maximum(np.abs(step[:, 0]), np.abs(step[:, 1]))
        if size.max(initial=0) <= self._longest_px:
            return ring, points
        pieces = np.maximum(np.ceil(size / self._longest_px), 1).astype(np.int64)
        nth, edge = ranges(np.zeros_like(pieces), pieces)
        between = points[edge] + (nth / pieces[edge])[:, None] * step[edge]
        return ring[edge], np.concatenate([between, points[-1:]])

    def _surface(self, xy: Ints | Floats) -> Floats:
        """Longitude and latitude in radians."""
        world = self.world(xy)
        lonlat: Floats = np.radians(np.stack(self._lonlat.transform(world[:, 0], world[:, 1]), axis=1))
        return lonlat

    def _steps(self, at: Floats) -> Floats:
        step = np.diff(at, axis=0)
        step[:, 0] = (step[:, 0] + np.pi) % (2 * np.pi) - np.pi  # the short way round, across the antimeridian too
        return step

    def _levels(self, at: Floats) -> Floats:
        sine, e = np.sin(at[:, 1]), np.sqrt(self._geod.es)
        q = 2 * sine
        if e > 0:
            q = (1 - e * e) * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)
        return np.asarray(q * self._geod.a**2 / 2)

    def _lengths(self, at: Floats, step: Floats) -> Floats:
        middle = (at[1:, 1] + at[:-1, 1]) / 2
        flat = 1 - self._geod.es * np.sin(middle) ** 2
        root = np.sqrt(flat)
        north = step[:, 1] * self._geod.a * (1 - self._geod.es) / (flat * root)
        east = step[:, 0] * self._geod.a * np.cos(middle) / root
        lengths: Floats = np.hypot(north, east)
        return lengths


def _edges(rings: Rings, start: int) -> tuple[Longs, Ints]:
    """Of a chunk of consecutive points the ring of the edge from each to the next, and one point more.

    A ring of -1 is no edge, but a jump to the next ring.
    """
    stop = min(start + _CHUNK, len(rings.xy) - 1)
    low, high = np.searchsorted(rings.offsets, (start, stop - 1), "right") - 1
    bounds = rings.offsets[low : high + 2].clip(start, stop)
    ring = np.repeat(np.arange(low, high + 1), np.diff(bounds))
    closing = rings.offsets[low + 1 : high + 2] - 1 - start
    ring[closing[closing < len(ring)]] = -1
    return ring, rings.xy[start : stop + 1]


def _apply(affine: Affine, xy: Ints | Floats) -> Floats:
    a, b, c, d, e, f = affine[:6]
    return np.stack([a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f], axis=1)

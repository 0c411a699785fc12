"""A whole scene that is rendered window by window."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import geopandas
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window
from shapely.affinity import affine_transform

from geosam.synth.ground import Plan
from geosam.synth.layout import Layout, lay_out
from geosam.synth.look import paint
from geosam.synth.noise import smooth, texture
from geosam.synth.options import SynthOptions
from geosam.synth.raster import Edges
from geosam.synth.style import Style, draw_style, draw_water

BLOCK = 512
"""The scene is painted in squares of this side on a fixed grid, each alone. That is why any strip equals the whole,
to the byte, and why memory does not grow with the scene."""

_ORIGIN_UTM, _ORIGIN_LONLAT = (512_000.0, 5_262_000.0), (9.16, 47.51)
_MIXED = {"river": "brown", "tributary": "clear", "lake": "green", "oxbow": "black"}


class RiverScene:
    """A river scene: vectors in memory, pixels on demand.

    Args:
        options: What to make.
    """

    def __init__(self, options: SynthOptions | None = None) -> None:
        self.options = options or SynthOptions()
        self.layout: Layout = lay_out(self.options)
        self._plan = _plan(self.options, self.layout)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.options.height, self.options.width

    @property
    def nodata(self) -> float | None:
        """What the collar holds: 0, or NaN in float32; None without a collar."""
        if not self.options.collar_px:
            return None
        return float("nan") if self.options.dtype == "float32" else 0.0

    @property
    def crs(self) -> str | None:
        """Authority and code, or None."""
        return {"utm": "EPSG:32632", "lonlat": "EPSG:4326", "none": None}[self.options.crs]

    @cached_property
    def transform(self) -> Affine:
        """From pixel coordinates (x right, y down) to the CRS."""
        o = self.options
        x0, y0 = _ORIGIN_LONLAT if o.crs == "lonlat" else _ORIGIN_UTM
        kx, ky = _degrees_a_metre(y0) if o.crs == "lonlat" else (1.0, 1.0)
        cos, sin = o.gsd_m * np.cos(np.radians(o.rotation_deg)), o.gsd_m * np.sin(np.radians(o.rotation_deg))
        return Affine(kx * cos, kx * sin, x0, ky * sin, -ky * cos, y0)

    @cached_property
    def truth(self) -> geopandas.GeoDataFrame:
        """The wet surface as polygons in the scene's CRS, with columns ``kind`` and ``geometry``.

        Rasterised by the pixel-centre rule they equal the water class of :meth:`render`.
        """
        t = self.transform
        move = [t.a, t.b, t.d, t.e, t.c, t.f]
        kinds = [kind for kind, _ in self.layout.truth]
        shapes = [affine_transform(polygon, move) for _, polygon in self.layout.truth]
        return geopandas.GeoDataFrame({"kind": kinds}, geometry=shapes, crs=self.crs)

    def water(self, window: Window) -> NDArray[np.uint8]:
        """The exact truth of a window: 0 dry, 1 water, 255 in the collar; shape (h, w)."""
        row, col, h, w = _bounds(window)
        mask = self._plan.water.fill(row, col, h, w).astype(np.uint8)
        mask[~self.valid(window)] = 255
        return mask

    def valid(self, window: Window) -> NDArray[np.bool_]:
        """True inside the collar, shape (h, w)."""
        row, col, h, w = _bounds(window)
        c, (height, width) = self.options.collar_px, self.shape
        y, x = np.arange(row, row + h), np.arange(col, col + w)
        inside: NDArray[np.bool_] = ((y >= c) & (y < height - c))[:, None] & ((x >= c) & (x < width - c))[None, :]
        return inside

    def render(self, window: Window) -> NDArray[Any]:
        """The pixels of a window.

        Args:
            window: Anywhere in the scene, any size.

        Returns:
            Array of the options' dtype, shape (3 or 4, h, w).
        """
        row, col, h, w = _bounds(window)
        out = np.empty((self.count, h, w), self.options.dtype)
        for r in range(row // BLOCK * BLOCK, row + h, BLOCK):
            for c in range(col // BLOCK * BLOCK, col + w, BLOCK):
                block = self._block(r, c)
                y0, y1, x0, x1 = max(r, row), min(r + BLOCK, row + h), max(c, col), min(c + BLOCK, col + w)
                out[:, y0 - row : y1 - row, x0 - col : x1 - col] = block[:, y0 - r : y1 - r, x0 - c : x1 - c]
        return out

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.options.bands)

    def _block(self, row: int, col: int) -> NDArray[Any]:
        """One square of the fixed grid, in the scene's dtype."""
        if self.options.detail == "plain":
            made = _coded(self._plain(row, col), self.options.dtype)
        else:
            # At the far edges a square is cut to what is needed: a scene of 64 px costs no 512 px square.
            h, w = (min(BLOCK, -(-n // 8) * 8) for n in (self.shape[0] - row, self.shape[1] - col))
            made = _coded(paint(self._plan, row, col, h, w).bands[: self.count], self.options.dtype)
        if self.options.collar_px:
            made[:, ~self.valid(Window(col, row, made.shape[2], made.shape[1]))] = self.nodata
        return made

    def _plain(self, row: int, col: int) -> NDArray[np.uint8]:
        water = self._plan.water.fill(row, col, BLOCK, BLOCK)
        wood = smooth(self._plan.seed + 21, 128, (row, col), (BLOCK, BLOCK)) > 0.1
        grass, leaf, wet = self._swatches
        n = grass.shape[1] - BLOCK
        rows, cols = slice(row % n, row % n + BLOCK), slice(col % n, col % n + BLOCK)
        made = np.where(wood, leaf[:, rows, cols], grass[:, rows, cols])
        return np.where(water, wet[:, rows, cols], made) if water.any() else made

    @cached_property
    def _swatches(self) -> tuple[NDArray[np.uint8], ...]:
        """Grass, woods and water as repeating pictures, shape (bands, n + BLOCK, n + BLOCK)."""
        style, cloud = self._plan.style, texture("cloud")[:1008, :1008]
        fine, clump = texture("fine"), texture("clump")[:1008, :1008]
        looks = (
            (style.grass[0], 1 + 0.10 * fine + 0.05 * cloud),
            (style.leaf[0], 1 + 0.30 * clump + 0.08 * fine),
            (style.deep, 1 + 0.02 * cloud + 0.02 * fine),
        )
        reach = np.arange(1008 + BLOCK) % 1008
        made = []
        for colour, pattern in looks:
            bands = np.array(colour, np.float32)[: self.count, None, None] * pattern[reach][:, reach]
            made.append(np.clip(bands * 255, 1, 255).astype(np.uint8))
        return tuple(made)


def _bounds(window: Window) -> tuple[int, int, int, int]:
    return int(window.row_off), int(window.col_off), int(window.height), int(window.width)


def _degrees_a_metre(latitude: float) -> tuple[float, float]:
    """Degrees of longitude and latitude a metre, on WGS 84."""
    a, e2, phi = 6_378_137.0, 0.00669437999014, np.radians(latitude)
    bend = 1 - e2 * np.sin(phi) ** 2
    return float(np.degrees(np.sqrt(bend) / (a * np.cos(phi)))), float(np.degrees(bend**1.5 / (a * (1 - e2))))


def _coded(bands: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Displayed values to the file's dtype; 0 is kept for nodata."""
    if bands.dtype == np.uint8:
        shown = bands if dtype == "uint8" else bands.astype(np.float32) * np.float32(1 / 255)
    else:
        shown = np.clip(bands * 255 + 0.5, 1, 255).astype(np.uint8) if dtype == "uint8" else bands
    if dtype == "uint8":
        return shown
    # Pictures are stretched and gamma-coded; this undoes it roughly: grass 0.08, gravel 0.2.
    reflectance = np.float32(0.5) * np.maximum(shown, np.float32(0.004)) ** 2
    if dtype == "uint16":
        return np.asarray(np.clip(reflectance * 10_000 + 0.5, 1, 65_535), np.uint16)
    return np.asarray(reflectance, np.float32)


def _style(options: SynthOptions, rng: np.random.Generator) -> Style:
    """A look for a whole scene: every feature that is wanted is there."""
    water = "brown" if options.water == "mixed" else options.water
    span = min(options.height, options.width) * options.gsd_m
    return draw_style(
        rng, options.gsd_m, water, str(rng.choice(["summer", "summer", "autumn", "dry"])),
        forest=0.42 if options.forest else 0.0, riparian=0.75 if options.forest else 0.0,
        riparian_m=max(12.0, 5 * options.gsd_m), gravel_m=max(9.0, 3 * options.gsd_m) if options.gravel else 0.0,
        fields=0.75, parcel_m=float(np.clip(span / 10, 60, 400)), roofs=1.6 if options.roofs else 0.0,
        glint=0.35 if options.glint else 0.0, whitewater=0.15 if options.glint else 0.0,
        crown_m=min(float(rng.uniform(2.6, 4.2)), 60 * options.gsd_m), snow=0.0, haze=0.06, overhang=False,
        gain=(1.0, 1.0, 1.0, 1.0), contrast=1.05, vivid=0.75, lift=0.12,
        streak=0.02, ripple=0.02, noise=0.008, soft_px=0.9,
    )  # fmt: skip


def _plan(options: SynthOptions, layout: Layout) -> Plan:
    rng = np.random.default_rng([options.seed, 8])
    style = _style(options, rng)
    tinted = []
    if options.water == "mixed":
        for kind, body in layout.bodies:
            if kind != "river":
                tinted.append((Edges.of(body), *draw_water(rng, _MIXED[kind])))
    water = shapely.geometrycollections([polygon for _, polygon in layout.truth])
    seed = int(rng.integers(2**31))
    bars = Edges.of(layout.bars if options.gravel else shapely.Polygon())
    return Plan(seed, style, Edges.of(water), Edges.of(layout.roads), layout.channels, bars, tuple(tinted))

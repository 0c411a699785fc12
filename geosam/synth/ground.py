"""What the painter asks about the ground: water, distance to the bank, flow, land cover."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.spatial import cKDTree

from geosam.synth.geometry import Channel
from geosam.synth.noise import F32, enlarge, fbm, smoothstep
from geosam.synth.raster import Edges
from geosam.synth.relief import Area
from geosam.synth.style import Colour, Style

Mask = NDArray[np.bool_]

Q = 8
"""Pixels a cell of the coarse grid on which land cover is decided."""
D = 4
"""Pixels a cell of the distance field."""
_NOTHING = Edges.of(shapely.Polygon())


@dataclass(frozen=True)
class Plan:
    """A scene as vectors, a seed and a style; everything the painter needs to make any window."""

    seed: int
    style: Style
    water: Edges
    """All water polygons."""
    roads: Edges
    """Road surfaces, bridges included."""
    channels: tuple[Channel, ...]
    """Rivers, for the direction of flow."""
    bars: Edges = _NOTHING
    """Islands of bare gravel."""
    tinted: tuple[tuple[Edges, Colour, Colour], ...] = ()
    """Water bodies of another colour than the style's: edges, deep, turbid."""

    @cached_property
    def flow(self) -> tuple[cKDTree, NDArray[np.float64]] | None:
        """Stations of all channels; for each its x, y, distance along, heading x and y, half width, shape (n, 6)."""
        if not self.channels:
            return None
        half = [(c.left + c.right) / 2 for c in self.channels]
        facts = np.concatenate(
            [np.column_stack([c.xy, c.along, c.heading, w]) for c, w in zip(self.channels, half, strict=True)]
        )
        return cKDTree(facts[:, :2]), facts


class Ground:
    """Water, distance to the bank and land cover of a padded window, on coarse grids."""

    def __init__(self, plan: Plan, area: Area) -> None:
        self.plan, self.area = plan, area
        self.margin = area.pad + 64
        m = self.margin
        self.water = plan.water.fill(area.row - m, area.col - m, area.height + 2 * m, area.width + 2 * m)
        self.has_water = bool(self.water.any())
        shape = (area.padded[0] // Q, area.padded[1] // Q)
        s, style = plan.seed, plan.style
        scale = max(70 / style.gsd_m, 48.0)
        self.wood = fbm(s + 21, scale, area.origin, shape, Q, 4)
        self.near = self._distance()
        self.along, self.across, self.half = self._flow(shape)
        self.paved, self.bars = self._pooled(plan.roads), self._pooled(plan.bars)

    def _pooled(self, edges: Edges) -> F32 | None:
        """1 where a coarse cell holds any of the polygons."""
        mask = edges.fill(*self.area.origin, *self.area.padded)
        if not mask.any():
            return None
        h, w = self.wood.shape
        return np.asarray(mask.reshape(h, Q, w, Q).any(axis=(1, 3)), np.float32)

    def _flow(self, shape: tuple[int, int]) -> tuple[F32, F32, F32]:
        """Distance along and across the flow and the channel's half width, px; plain coordinates without a river."""
        (h, w), (r, c) = shape, self.area.origin
        y, x = np.meshgrid((np.arange(h) + 0.5) * Q + r, (np.arange(w) + 0.5) * Q + c, indexing="ij")
        if self.plan.flow is None or not self.has_water:
            return x.astype(np.float32), y.astype(np.float32), np.full(shape, 14, np.float32)
        stations, facts = self.plan.flow
        points = np.stack([x.ravel(), y.ravel()], 1)
        near = facts[stations.query(points)[1]]
        dx, dy = (points - near[:, :2]).T
        along = near[:, 2] + dx * near[:, 3] + dy * near[:, 4]
        fields = (along, dx * near[:, 4] - dy * near[:, 3], near[:, 5])
        a, b, half = (f.reshape(shape).astype(np.float32) for f in fields)
        return a, b, half

    @property
    def gravel_m(self) -> F32:
        """Width of the gravel belt on the coarse grid: narrow along narrow channels, gone where the wood is thin."""
        style = self.plan.style
        widest = np.minimum(self.near_m(style.gravel_m), np.float32(1.1 * style.gsd_m) * self.half)
        belt: F32 = widest * np.clip(1 + 1.1 * self.wood, 0.04, 2.5)
        return belt if self.bars is None else np.maximum(belt, np.float32(self.near_m(style.gravel_m)) * self.bars)

    def near_m(self, length_m: float) -> float:
        """``length_m``, or less where that is farther than distances to the bank are known."""
        return min(length_m, 0.6 * self.margin * self.plan.style.gsd_m)

    @property
    def water_core(self) -> Mask:
        """True where the core is water, shape (h, w)."""
        m = self.margin
        return self.water[m : m + self.area.height, m : m + self.area.width]

    def _distance(self) -> F32:
        """Signed distance to the bank in px, above 0 on land, at most ``margin``; on the D grid, margin included."""
        h, w = self.water.shape[0] // D, self.water.shape[1] // D
        far = np.float32(self.margin)
        if not self.has_water:
            return np.full((h, w), far, np.float32)
        share = self.water.reshape(h, D, w, D).mean((1, 3), dtype=np.float32)
        inside = share >= 0.4
        if inside.all() or not inside.any():
            return np.full((h, w), -far if inside.all() else far, np.float32)
        away = np.where(inside, 0.5 - distance_transform_edt(inside), distance_transform_edt(~inside) - 0.5)
        smooth: F32 = gaussian_filter(np.clip(away.astype(np.float32) * D, -far, far), 0.8)
        return smooth

    def bank_px(self) -> F32:
        """Signed distance to the bank over the core, px."""
        m = self.margin // D - 2
        return enlarge(np.ascontiguousarray(self.near[m:-m, m:-m]), D, self.area.core, 2)

    def _at(self, field: F32, cell: int, margin: int, rows: NDArray[np.float64], cols: NDArray[np.float64]) -> F32:
        r = np.clip(((rows - self.area.row + margin) // cell).astype(int), 0, field.shape[0] - 1)
        c = np.clip(((cols - self.area.col + margin) // cell).astype(int), 0, field.shape[1] - 1)
        found: F32 = field[r, c]
        return found

    def forest(self, wood: F32) -> F32:
        """Chance of forest from the wood field: the threshold leaves the style's share."""
        share = float(np.clip(self.plan.style.forest, 0.001, 0.999))
        # A logistic stands in for the normal quantile: right to 0.1 for shares of 0.02 to 0.98.
        threshold = -np.log(share / (1 - share)) / 1.7
        return smoothstep(wood, threshold - 0.18, threshold + 0.18)

    def tree_chance(self, rows: NDArray[np.float64], cols: NDArray[np.float64]) -> F32:
        """Chance of a tree: forest, the strip along the bank, a few strays; none in the water."""
        style = self.plan.style
        wood = self._at(self.wood, Q, self.area.pad, rows, cols)
        away = self._at(self.near, D, self.margin, rows, cols) * style.gsd_m
        lean = -0.45 * style.crown_m if style.overhang else 0.1 * style.crown_m
        wide = self.near_m(style.riparian_m)
        strip = style.riparian * (1 - smoothstep(away, wide * 0.5, wide * 1.3))
        strip = strip * smoothstep(wood, -1.1, -0.3)
        chance = np.maximum(0.97 * self.forest(wood), strip) + 0.012
        bare = self._at(self.gravel_m, Q, self.area.pad, rows, cols)
        allowed = (away > lean + 0.8 * bare) * self._unpaved(rows, cols)
        return np.asarray(chance * allowed, np.float32)

    def _unpaved(self, rows: NDArray[np.float64], cols: NDArray[np.float64]) -> F32 | float:
        return 1.0 if self.paved is None else 1 - self._at(self.paved, Q, self.area.pad, rows, cols)

    def house_chance(self, rows: NDArray[np.float64], cols: NDArray[np.float64]) -> F32:
        """Chance of a house: open land away from the bank."""
        wood = self._at(self.wood, Q, self.area.pad, rows, cols)
        away = self._at(self.near, D, self.margin, rows, cols) * self.plan.style.gsd_m
        chance = (1 - self.forest(wood)) * (away > self.near_m(14))
        return chance * self._unpaved(rows, cols)

    def patches(self, seed: int, scale_px: float, octaves: int) -> F32:
        """Soft noise over the core, made on the coarse grid."""
        origin = (self.area.row - Q, self.area.col - Q)
        shape = (self.area.height // Q + 2, self.area.width // Q + 2)
        return enlarge(fbm(seed, scale_px, origin, shape, Q, octaves), Q, self.area.core, 1)

    def over_core(self, field: F32) -> F32:
        """A coarse land-cover field enlarged to the core's pixels."""
        m = self.area.pad // Q - 1
        return enlarge(np.ascontiguousarray(field[m:-m, m:-m]), Q, self.area.core, 1)

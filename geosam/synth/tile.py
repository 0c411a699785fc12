"""One training tile of a random look, in memory."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from geosam.synth import geometry as g
from geosam.synth.ground import Plan
from geosam.synth.look import paint
from geosam.synth.raster import Edges
from geosam.synth.style import draw_style

Rng = np.random.Generator

_SCENES = {
    "river": 0.42, "wide": 0.10, "creek": 0.13, "braided": 0.09, "lake": 0.06, "confluence": 0.06, "dry": 0.14,
}  # fmt: skip
"""What a tile shows, and how often; ``dry`` tiles are hard negatives."""

_AIRCRAFT_M = 1.2
"""Coarser pixels than this are a satellite's."""

_LEAST_SEEN = 0.4
"""Where crowns would hide more of the water than this leaves, they do not lean over it: dots would teach nothing."""

_ROAD_PX = 45.0
"""Wider roads, which have no lines or cars here, could not be told from still water by anyone."""


@dataclass(frozen=True)
class SynthTile:
    """A picture and its truth."""

    rgb: NDArray[np.uint8]
    """Shape (h, w, 3)."""
    nir: NDArray[np.uint8]
    """Near infrared, shape (h, w)."""
    water: NDArray[np.bool_]
    """True where the wet surface is seen: not under crowns or bridges; shadowed water, foam and glint included."""


def make_tile(seed: int, size_px: int = 512, gsd_m: float | None = None, **style: Any) -> SynthTile:
    """A square tile of river country, or of none, in a random look.

    Args:
        seed: The same seed gives the same tile.
        size_px: Side in pixels.
        gsd_m: Metres a pixel; None: random, 0.04 to 1.2 m or, one time in five, 1.2 to 100 m.
        style: ``scene`` (river, wide, creek, braided, lake, confluence, dry), ``water`` (brown, grey, green,
            clear, black, milky, blue), ``season`` (summer, dry, autumn, bare, conifer), or any field of
            :class:`geosam.synth.style.Style`; what is not given is drawn.

    Returns:
        The tile; about one in seven has no water at all.
    """
    rng = np.random.default_rng([seed & 0xFFFFFFFF, 20])
    gsd = _draw_gsd(rng) if gsd_m is None else gsd_m
    scene = style.pop("scene", None) or str(rng.choice(list(_SCENES), p=list(_SCENES.values())))
    look = draw_style(rng, gsd, **(_from_space(rng) if gsd > _AIRCRAFT_M else {}) | style)
    # A crown of more than 70 px is a green blur, and its shadow would leave the tile.
    limit = min(1.0, 70 * gsd / look.crown_m)
    look = replace(look, crown_m=look.crown_m * limit, tree_m=look.tree_m * limit)
    size = -(-size_px // 8) * 8
    channels, bodies, islands = _waters(rng, scene, float(size))
    water = shapely.union_all(bodies) if bodies else shapely.Polygon()
    roads = _roads(rng, float(size), float(np.clip(look.road_m / gsd, 1.5, _ROAD_PX)))
    water = water.difference(roads)
    plan = Plan(int(rng.integers(2**31)), look, Edges.of(water), Edges.of(roads), tuple(channels), Edges.of(islands))
    made = paint(plan, 0, 0, size, size)
    if made.water.sum() < _LEAST_SEEN * water.intersection(shapely.box(0, 0, size, size)).area:
        made = paint(replace(plan, style=replace(look, overhang=False)), 0, 0, size, size)
    pixels = np.moveaxis(made.bands[:, :size_px, :size_px], 0, -1)
    if rng.random() < 0.5:
        pixels = gaussian_filter(pixels, (blur := rng.uniform(0.3, 1.0), blur, 0), truncate=2.5)
    coded = np.round(pixels * 255).astype(np.uint8)
    rgb = np.ascontiguousarray(coded[..., :3])
    if rng.random() < 0.4:
        rgb = _jpeg(rgb, int(rng.integers(45, 92)))
    return SynthTile(rgb, np.ascontiguousarray(coded[..., 3]), made.water[:size_px, :size_px])


def _draw_gsd(rng: Rng) -> float:
    """Metres a pixel: four times in five an aircraft's or a drone's."""
    near = rng.random() < 0.8
    low, high = (0.04, _AIRCRAFT_M) if near else (_AIRCRAFT_M, 100.0)
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _from_space(rng: Rng) -> dict[str, Any]:
    """What differs in satellite images: no foam, seldom glint, and often a muddy river in dark forest, or haze."""
    fixed: dict[str, Any] = {"whitewater": 0.0, "ripple": 0.0}
    if rng.random() < 0.85:
        fixed["glint"] = 0.0
    if rng.random() < 0.4:
        fixed |= {"water": "brown", "season": str(rng.choice(["conifer", "summer"])), "forest": 0.95}
        fixed |= {"gain": (float(rng.uniform(0.35, 1.0)),) * 4}
    return fixed


def _jpeg(rgb: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """What a lossy mosaic leaves of a picture."""
    packed = io.BytesIO()
    Image.fromarray(rgb).save(packed, "JPEG", quality=quality)
    return np.array(Image.open(packed))


def _crossing(rng: Rng, size: float, offset: float) -> tuple[g.F64, g.F64]:
    """Two points outside the tile, on a line that passes its centre at ``offset`` px."""
    turn = rng.uniform(0, 2 * np.pi)
    ahead, aside = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    centre = np.array([size / 2, size / 2]) + offset * aside
    return centre - 1.15 * size * ahead, centre + 1.15 * size * ahead


def _river(rng: Rng, size: float, half: float, offset: float, rough: float | None = None) -> g.Channel:
    start, end = _crossing(rng, size, offset)
    swing = float(
        rng.choice([rng.uniform(0.0, 0.4), rng.uniform(0.4, 1.3), rng.uniform(1.3, 1.8)], p=[0.5, 0.35, 0.15])
    )
    return g.meander(rng, start, end, half, swing, rng.uniform(0.01, 0.1) if rough is None else rough)


def _waters(rng: Rng, scene: str, size: float) -> tuple[list[g.Channel], list[shapely.Geometry], shapely.Geometry]:
    """Channels, water polygons and gravel bars of a tile, in pixels."""
    none = shapely.Polygon()

    def log(low: float, high: float) -> float:
        """Log-uniform length, given for a tile of 512 px."""
        return float(np.exp(rng.uniform(np.log(low), np.log(high)))) * size / 512

    if scene == "dry":
        return [], [], none
    if scene == "lake":
        centre = rng.uniform(0.1, 0.9, 2) * size
        return [], [g.lake(rng, centre, log(25, 260))], none
    if scene == "wide":
        half = log(110, 420)
        river = _river(rng, size, half, float(rng.choice([-1, 1])) * rng.uniform(0.3, 1.0) * half, 0.02)
        return [river], [river.polygon()], none
    half = log(2.2, 9) if scene == "creek" else log(9, 90)
    river = _river(rng, size, half, rng.uniform(-0.3, 0.3) * size)
    if scene == "braided":
        river = g.swollen(river, 0.1, 0.9, rng.uniform(1.5, 2.6))
        islands = g.bars(rng, river, 0.25, 0.75, int(rng.integers(2, 10)))
        bars = shapely.union_all(islands[: int(rng.integers(len(islands) + 1))])
        return [river], [river.polygon().difference(shapely.union_all(islands))], bars
    bodies, channels = [river.polygon()], [river]
    if scene == "confluence":
        start, _ = _crossing(rng, size, 0)
        middle = river.xy[int(len(river.xy) * rng.uniform(0.4, 0.6))]
        channels.append(g.meander(rng, start, middle, half * rng.uniform(0.2, 0.6), rng.uniform(0, 1)))
        bodies.append(channels[1].polygon())
    if rng.random() < 0.12:
        bodies.append(g.lake(rng, rng.uniform(0, 1, 2) * size, log(8, 40)))
    return channels, bodies, none


def _roads(rng: Rng, size: float, width: float) -> shapely.Geometry:
    """Up to two roads across the tile."""
    count = int(rng.choice([0, 1, 2], p=[0.55, 0.33, 0.12]))
    lines = []
    for _ in range(count):
        start, end = _crossing(rng, size, rng.uniform(-0.4, 0.4) * size)
        lines.append(g.meander(rng, start, end, size / 9, rng.uniform(0, 0.35)).xy)
    return shapely.union_all([shapely.linestrings(xy).buffer(width / 2, cap_style="flat") for xy in lines])

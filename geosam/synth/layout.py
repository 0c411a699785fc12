"""Lays out a whole scene: where the river runs, what joins it, where the lake and the roads are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from scipy.spatial import cKDTree

from geosam.synth import geometry as g
from geosam.synth.options import SynthOptions

Rng = np.random.Generator


@dataclass(frozen=True)
class Layout:
    """The vectors of a scene, in pixel coordinates."""

    bodies: tuple[tuple[str, shapely.Geometry], ...]
    """Water bodies by kind (river, tributary, lake, oxbow), as drawn: they may touch and leave the scene."""
    channels: tuple[g.Channel, ...]
    roads: shapely.Geometry
    """Road surfaces, bridges included."""
    bars: shapely.Geometry
    """Islands of bare gravel; the other islands carry what the banks carry."""
    truth: tuple[tuple[str, shapely.Polygon], ...]
    """Wet surface, disjoint polygons by kind, cut at bridges, at the scene's edge and at the collar."""


def lay_out(options: SynthOptions) -> Layout:
    """Vectors from options; the same options give the same vectors."""
    rng = np.random.default_rng([options.seed, 7])
    size = np.array([options.width, options.height], float)
    half = _half_width(options)
    main = _main_river(rng, options, size, half)
    surface = main.polygon()
    bodies: list[tuple[str, shapely.Geometry]] = []
    channels: list[g.Channel] = []
    islands: list[shapely.Geometry] = []
    if options.river:
        channels.append(main)
        islands = _islands(rng, options, main)
        bodies.append(("river", surface.difference(shapely.union_all(islands))))
    if options.river and options.tributary:
        streams = _tributaries(rng, main, size)
        channels += streams
        bodies += [("tributary", s.polygon()) for s in streams]
    roads = _roads(rng, options, size)
    taken = shapely.union_all([surface, roads, *(body for _, body in bodies)])
    if options.oxbow:
        bow = _oxbow(rng, taken, size, half)
        channels.append(bow)
        bodies.append(("oxbow", bow.polygon()))
        taken = shapely.union_all([taken, bodies[-1][1]])
    if options.lake:
        bodies += [("lake", body) for body in _lakes(rng, taken, size)]
    bars = shapely.union_all(islands[: 2 * len(islands) // 3])
    return Layout(tuple(bodies), tuple(channels), roads, bars, _truth(options, bodies, roads))


def _half_width(options: SynthOptions) -> float:
    """Half the main river's width: a share of the scene, at most 150 px and 600 m."""
    side = min(options.height, options.width)
    return float(np.clip(0.02 * side, 4.0, max(min(150.0, 600 / options.gsd_m), 6.0)))


def _main_river(rng: Rng, options: SynthOptions, size: g.F64, half: float) -> g.Channel:
    """Along the scene's longer side, from beyond one edge to beyond the other."""
    start = np.array([-6 * half, size[1] * rng.uniform(0.4, 0.6)])
    end = np.array([size[0] + 6 * half, size[1] * rng.uniform(0.4, 0.6)])
    if size[1] > size[0]:
        start = np.array([size[0] * rng.uniform(0.4, 0.6), -6 * half])
        end = np.array([size[0] * rng.uniform(0.4, 0.6), size[1] + 6 * half])
    river = g.meander(rng, start, end, half, rng.uniform(0.9, 1.35), 0.05)
    return g.swollen(river, 0.48, 0.8, 2.1) if options.braided else river


def _islands(rng: Rng, options: SynthOptions, main: g.Channel) -> list[shapely.Geometry]:
    """Bars and islands of the braided reach."""
    if not options.braided:
        return []
    count = int(np.clip(main.along[-1] / (30 * main.left.mean()), 8, 60))
    return g.bars(rng, main, 0.53, 0.75, count)


def _tributaries(rng: Rng, main: g.Channel, size: g.F64) -> list[g.Channel]:
    """Streams of 3.5 to 8 px from an edge of the scene to the river."""
    streams = []
    for k in range(1 + int(min(size) // 8000)):
        mouth = main.xy[int(len(main.xy) * (0.3 + 0.4 * (k % 3) / 3 + rng.uniform(-0.05, 0.05)))]
        side = 1.0 if (k + int(rng.integers(2))) % 2 else -0.1
        across = 0 if size[1] > size[0] else 1
        start = mouth + rng.normal(0, 0.12, 2) * size
        start[across] = side * size[across] + (4 if side > 0 else -4)
        half = rng.uniform(1.8, 3.6)
        stream = g.meander(rng, start, mouth, half, rng.uniform(0.5, 1.0), 0.04)
        cap = np.full_like(stream.left, 4.6)
        streams.append(g.Channel(stream.xy, stream.along, np.minimum(stream.left, cap), np.minimum(stream.right, cap)))
    return streams


def _free(rng: Rng, taken: shapely.Geometry, size: g.F64, want: float, margin: float) -> g.F64:
    """Of 60 places, the one whose distance from ``taken`` is nearest to ``want`` px."""
    places = rng.uniform(margin, np.maximum(size - margin, margin + 1), (60, 2))
    # Bank vertices are a few px apart, so the nearest one is as good as the bank itself, and 1000 times faster.
    away = cKDTree(shapely.get_coordinates(taken)).query(places)[0] * ~shapely.contains_xy(taken, places)
    return np.asarray(places[np.argmin(np.abs(away - want) + 10 * want * (away < 0.8 * want))])


def _oxbow(rng: Rng, taken: shapely.Geometry, size: g.F64, half: float) -> g.Channel:
    radius = 3.2 * half * rng.uniform(0.85, 1.2)
    return g.oxbow(rng, _free(rng, taken, size, 1.7 * radius, 1.2 * radius), radius, max(0.5 * half, 2.0))


def _lakes(rng: Rng, taken: shapely.Geometry, size: g.F64) -> list[shapely.Geometry]:
    lakes = []
    for _ in range(1 + int(min(size) // 6000)):
        radius = min(size) * 0.05 * rng.uniform(0.8, 1.4) if min(size) < 6000 else rng.uniform(150, 420)
        lakes.append(g.lake(rng, _free(rng, taken, size, 2.4 * radius, 1.3 * radius), radius))
    return lakes


def _roads(rng: Rng, options: SynthOptions, size: g.F64) -> shapely.Geometry:
    """Two roads, one of which crosses the valley on a bridge."""
    if not options.roads:
        return shapely.Polygon()
    width = max(6.5 / options.gsd_m, 1.6)
    at = rng.uniform(0.15, 0.4, 2)
    ends = [
        (np.array([at[0] * size[0], -9.0]), np.array([(at[0] + 0.12) * size[0], size[1] + 9])),
        (np.array([-9.0, 0.45 * at[1] * size[1]]), np.array([size[0] + 9, 0.6 * at[1] * size[1]])),
    ]
    if size[1] > size[0]:
        ends = [(a[::-1] / size[::-1] * size, b[::-1] / size[::-1] * size) for a, b in ends]
    lines = [g.meander(rng, a, b, min(size) / 14, 0.25).xy for a, b in ends]
    return shapely.union_all([shapely.linestrings(xy).buffer(width / 2, cap_style="flat") for xy in lines])


def _truth(
    options: SynthOptions, bodies: list[tuple[str, shapely.Geometry]], roads: shapely.Geometry
) -> tuple[tuple[str, shapely.Polygon], ...]:
    c = options.collar_px
    frame = shapely.box(c, c, options.width - c, options.height - c)
    wet = shapely.union_all([body for _, body in bodies]).difference(roads).intersection(frame)
    shapely.prepare([body for _, body in bodies])
    parts = [p for p in shapely.get_parts(wet) if p.geom_type == "Polygon" and p.area > 0]
    return tuple((_kind(part, bodies), part) for part in parts)


def _kind(part: shapely.Polygon, bodies: list[tuple[str, shapely.Geometry]]) -> str:
    """The kind of the first body that shares ground with the polygon: a river with its streams is a river."""
    return next((kind for kind, body in bodies if part.intersects(body)), bodies[0][0])

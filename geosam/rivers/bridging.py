"""Gaps in rivers closed: what a bridge, a canopy or a shadow cuts in two is one river."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import shapely
from scipy.spatial import cKDTree

from geosam.rivers.banks import Floats, Geometries, banks_of
from geosam.rivers.crossing import Cutter
from geosam.rivers.faces import Stub, faces_of
from geosam.rivers.joining import dissolved
from geosam.rivers.network import Network

MOST_TURN = 40.0
"""Degrees by which either end may point past the other."""
MOST_WIDENING = 3.0
"""One end may be so many times as wide as the other."""
_LEAN, _BACK = 2.0, 5.0
_TAPER = 3.0
"""An end's direction is taken between so many radii from it, and its width is the greatest within so many."""
_TIGHTEST = 0.25
"""Radians that a river turns in half its width at most, as in a bend of twice its width (Leopold and Wolman 1960)."""
_AHEAD = 6.0
_DEEP = 1.0
"""Water beyond a gap goes on for at least so many radii of the end before it."""


class End(NamedTuple):
    """A dead end of a channel, in metres."""

    tip: Floats
    """Where its centreline meets the bank, shape (2,)."""
    ahead: Floats
    """Where it points, a unit vector, shape (2,)."""
    middle: Floats
    """Centre of the largest circle near the end, shape (2,)."""
    radius: float
    """Radius of that circle."""
    stub: Stub
    """Where the axis ends, and the way on by how the channel bends."""


@dataclass(frozen=True)
class Bridge:
    """Water put over a gap."""

    polygon: shapely.Polygon
    """What was put there, the water it overlaps on either side included."""
    gap_m: float
    """Distance of the two ends."""
    width_m: float
    """Width of the narrower of the two."""


def bridged(
    polygons: Geometries, ends: Sequence[End], most_m: float, pixel_m: float
) -> tuple[Geometries, list[Bridge]]:
    """Water bodies with gaps closed where both sides agree in direction.

    Two dead ends that point at each other agree, and in bends those whose outlines face each other. So does water
    beyond the gap that goes on ahead of a dead end and is about as wide: where a stream joins right behind a bridge,
    the river has no dead end there.

    Args:
        polygons: Water bodies in metres, shape (n,).
        ends: Dead ends of all of them.
        most_m: Gaps up to this are closed.
        pixel_m: Size of a pixel.
    """
    faces = faces_of(polygons, [end.stub for end in ends], most_m, pixel_m, MOST_WIDENING)
    partner = {face.one: face.other for face in faces} | {face.other: face.one for face in faces}
    pairs = [(k, m) for k, m in _facing(ends, most_m) if partner.get(k, m) == m and partner.get(m, k) == k]
    bridges = [_bridge(ends[one], ends[other], _apart(ends[one].tip, ends[other].tip)) for one, other in pairs]
    paired = {k for pair in pairs for k in pair}
    for face in faces:
        if face.one not in paired:
            width = 2 * min(ends[face.one].radius, ends[face.other].radius)
            bridges.append(Bridge(face.polygon, face.gap_m, width))
    single = [end for k, end in enumerate(ends) if k not in paired | set(partner)]
    if single:
        beyond = _Beyond(polygons, ends, most_m, pixel_m)
        bridges += [bridge for end in single if (bridge := beyond.of(end)) is not None]
    if not bridges:
        return polygons, []
    return dissolved(np.concatenate([polygons, [bridge.polygon for bridge in bridges]])), bridges


def ends_of(network: Network, cutter: Cutter, pixel_m: float) -> list[End]:
    """Dead ends of a network.

    Args:
        network: Channels of a water body without spurs.
        cutter: Its banks.
        pixel_m: Size of a pixel.
    """
    return [_end(network, cutter, tip, pixel_m) for tip in sorted(network.tips())]


def _end(network: Network, cutter: Cutter, tip: int, pixel_m: float) -> End:
    path = network.links[network.at[tip][0]]
    path = path if path[0] == tip else path[::-1]
    xy, radius, along = network.axis.xy[path], network.axis.radius[path], network.along(path)
    size = max(radius[0], 2 * pixel_m)
    # Not from the tip itself: where a bridge cuts a river aslant, the axis leans to one side before it ends.
    start = int(np.searchsorted(along, _LEAN * size)) if along[-1] > _BACK * size else 0
    back = xy[min(int(np.searchsorted(along, _BACK * size)), len(path) - 1)]
    ahead = _unit(xy[start] - back)
    reach = np.array([_AHEAD * size])
    clear = min(cutter.cut(xy[start][None], ahead[None], reach).nearest(1)[1][0], reach[0])
    widest = int(np.argmax(radius[along <= _TAPER * float(np.median(radius))]))
    stub = Stub(xy[0], _bent(xy, along, size), float(np.median(radius[along <= _BACK * size])))
    return End(xy[start] + clear * ahead, ahead, xy[widest], float(radius[widest]), stub)


def _bent(xy: Floats, along: Floats, size: float) -> Floats:
    """The way on from a tip by how the channel comes and bends, a unit vector.

    Args:
        xy: Its axis from the tip on, shape (n, 2).
        along: Distance from the tip at each point, shape (n,).
        size: Half its width.
    """
    if along[-1] <= _BACK * size:
        return _unit(xy[0] - xy[-1])
    start, middle, back = (xy[int(np.searchsorted(along, far * size))] for far in (_LEAN, (_LEAN + _BACK) / 2, _BACK))
    near, far = _unit(start - middle), _unit(middle - back)
    bend = np.arctan2(far[0] * near[1] - far[1] * near[0], far @ near) / ((_BACK - _LEAN) / 2)
    angle = float(np.clip(bend, -_TIGHTEST, _TIGHTEST)) * (_LEAN + (_BACK - _LEAN) / 4)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([cos * near[0] - sin * near[1], sin * near[0] + cos * near[1]])


def _unit(step: Floats) -> Floats:
    return np.asarray(step / max(float(np.hypot(*step)), 1e-9))


def _facing(ends: Sequence[End], most_m: float) -> list[tuple[int, int]]:
    """Pairs of ends that point at each other, the nearest first; each end at most once."""
    if len(ends) < 2:
        return []
    tip, ahead, middle = (np.array([getattr(end, name) for end in ends]) for name in ("tip", "ahead", "middle"))
    radius = np.array([end.radius for end in ends])
    pairs = cKDTree(tip).query_pairs(most_m, output_type="ndarray")
    one, other = pairs[:, 0], pairs[:, 1]
    # From middle to middle: the tips of a wide river under a narrow bridge are nearer than they are out of line.
    way = middle[other] - middle[one]
    way /= np.maximum(np.hypot(*way.T), 1e-9)[:, None]
    straight = np.cos(np.radians(MOST_TURN))
    agree = ((ahead[one] * way).sum(1) > straight) & ((ahead[other] * -way).sum(1) > straight)
    widths = np.sort(radius[pairs], axis=1)
    agree &= widths[:, 1] <= MOST_WIDENING * widths[:, 0]
    gaps = np.hypot(*(tip[one] - tip[other]).T)
    taken: set[int] = set()
    facing = []
    for k in np.argsort(gaps, kind="stable"):
        pair = int(one[k]), int(other[k])
        if agree[k] and not taken & set(pair):
            taken.update(pair)
            facing.append(pair)
    return facing


class _Beyond:
    """Looks over gaps for water that goes on as a river would."""

    def __init__(self, polygons: Geometries, ends: Sequence[End], most_m: float, pixel_m: float) -> None:
        self._polygons = polygons
        self._most_m = most_m
        self._tree = shapely.STRtree(polygons)
        self._tips = cKDTree([end.tip for end in ends])
        self._cutter = Cutter(banks_of(polygons, pixel_m))

    def of(self, end: End) -> Bridge | None:
        """A bridge to the water that another body has right ahead of a dead end; None if it has none, or across."""
        middle = shapely.Point(end.middle)
        near = self._tree.query(middle, predicate="dwithin", distance=_AHEAD * end.radius + self._most_m)
        here = self._tree.query(middle, predicate="intersects")
        ways = shapely.get_coordinates(shapely.shortest_line(middle, self._polygons[np.setdiff1d(near, here)]))
        steps = np.diff(ways.reshape(-1, 2, 2), axis=1)[:, 0]
        far = np.hypot(*steps.T)
        found = (self._along(end, steps[k] / far[k]) for k in np.argsort(far) if far[k] > 0)
        return next((bridge for bridge in found if bridge is not None), None)

    def _along(self, end: End, way: Floats) -> Bridge | None:
        """A bridge in a direction."""
        if way @ end.ahead < np.cos(np.radians(MOST_TURN)):
            return None
        reach = np.array([2 * end.radius * MOST_WIDENING + self._most_m])
        found = self._cutter.cut(end.middle[None], way[None], reach).at
        out, into, away = [*found[found > 0], *[np.inf] * 3][:3]
        if not into - out <= self._most_m or away - into < _DEEP * end.radius:  # where nothing is met, inf - inf
            return None
        if self._has_end(end, end.middle + into * way):
            return None
        across = np.array([way[1], -way[0]])
        place = end.middle + (into + _DEEP * end.radius / 2) * way
        left, right = (float(side[0]) for side in self._cutter.cut(place[None], across[None], reach).nearest(1))
        if not 1 / MOST_WIDENING <= (right - left) / (2 * end.radius) <= MOST_WIDENING:
            return None
        radius = min((right - left) / 2, end.radius)
        aside = float(np.clip(0, left + radius, right - radius))
        middle = end.middle + (into + radius) * way + aside * across
        other = End(end.middle + into * way, -way, middle, radius, end.stub)
        return _bridge(end, other, float(into - out))

    def _has_end(self, end: End, place: Floats) -> bool:
        """Whether the water there has a dead end of its own, which then pointed elsewhere."""
        near = self._tips.query_ball_point(place, 2 * end.radius)
        return any(_apart(self._tips.data[k], end.tip) > 0 for k in near)


def _apart(one: Floats, other: Floats) -> float:
    return float(np.hypot(*(one - other)))


def _bridge(one: End, other: End, gap_m: float) -> Bridge:
    """As wide as the river on either side: what a string around both circles holds."""
    circles = shapely.buffer(shapely.points([one.middle, other.middle]), [one.radius, other.radius])
    return Bridge(shapely.convex_hull(shapely.union_all(circles)), gap_m, 2 * min(one.radius, other.radius))

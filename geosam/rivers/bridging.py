"""Gaps in rivers closed: what a bridge, a canopy or a shadow cuts in two is one river."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import shapely
from scipy.spatial import cKDTree

from geosam.rivers.banks import Floats
from geosam.rivers.crossing import Cutter
from geosam.rivers.joining import Polygons, dissolved
from geosam.rivers.network import Network

MOST_TURN = 35.0
"""Degrees by which either end may point past the other."""
MOST_WIDENING = 3.0
"""One end may be so many times as wide as the other."""
_LEAN, _BACK = 2.0, 5.0
_TAPER = 3.0
"""An end's direction is taken between so many radii from it, and its width is the greatest within so many."""
_AHEAD = 6.0


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


@dataclass(frozen=True)
class Bridge:
    """Water put over a gap."""

    polygon: shapely.Polygon
    """What was put there, the water it overlaps on either side included."""
    gap_m: float
    """Distance of the two ends."""
    width_m: float
    """Width of the narrower of the two."""


def bridged(polygons: Polygons, ends: Sequence[End], most_m: float) -> tuple[Polygons, list[Bridge]]:
    """Water bodies with gaps closed where the ends on both sides point at each other.

    Args:
        polygons: Water bodies in metres, shape (n,).
        ends: Dead ends of all of them.
        most_m: Gaps up to this are closed.
    """
    bridges = [_bridge(ends[one], ends[other]) for one, other in _facing(ends, most_m)]
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
    ahead = (xy[start] - back) / max(float(np.hypot(*(xy[start] - back))), 1e-9)
    reach = np.array([_AHEAD * size])
    clear = min(cutter.cut(xy[start][None], ahead[None], reach).nearest(1)[1][0], reach[0])
    widest = int(np.argmax(radius[along <= _TAPER * float(np.median(radius))]))
    return End(xy[start] + clear * ahead, ahead, xy[widest], float(radius[widest]))


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


def _bridge(one: End, other: End) -> Bridge:
    """As wide as the river on either side: what a string around both circles holds."""
    circles = shapely.buffer(shapely.points([one.middle, other.middle]), [one.radius, other.radius])
    gap = float(np.hypot(*(one.tip - other.tip)))
    return Bridge(shapely.convex_hull(shapely.union_all(circles)), gap, 2 * min(one.radius, other.radius))

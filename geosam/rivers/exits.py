"""Where water leaves the scene: a river ends there for the picture only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from geosam.rivers.axis import Axis, Mesh, circles
from geosam.rivers.banks import Banks, Bools, Floats, Longs
from geosam.rivers.network import Network

_ON_EDGE_PX = 0.75
_RUN = 64
"""Points looked at in one go."""
_ASIDE_PX = 12
_TANGENT_PX = 9.0
"""A bank that comes near the edge and turns away is this far from it at most, before and after together, half the
length of the contact further on: the outermost bend of every river touches the frame of its layer."""
_STEEP = 0.5
"""Where the edge cuts a river off, the two banks are further from it than this part of the way gone along them. Less
is a river that runs along the edge."""
_WIDEST = 6.0
"""A stretch of the edge longer than so many radii is a river that runs along the edge, not one that leaves there."""
_NARROWEST, _NO_WIDER = 2.0, 4.0
_NARROWEST_PX = 20.0
"""Where there is no dead end, one shorter than so many radii, or pixels, is the sharp bend of a creek, and one longer
than so many the side of a basin."""
_NEAR = 1.5
_NEAR_PX = 4.0

Lines = Sequence[shapely.LineString]


@dataclass(frozen=True)
class Edge:
    """The edge of what is seen, as lines in metres, where water goes on."""

    known: Lines = ()
    """Sides of a raster, and where open water begins."""
    guessed: Lines = ()
    """Bounds of the layer: a river that leaves the scene touches them, but so does the bank of a straight canal."""


@dataclass(frozen=True)
class Cut:
    """A stretch of outline on the scene's edge."""

    points: Longs
    """Points of the banks in order, shape (n,)."""
    rise: float
    """How far from the edge the banks before and after are together, half its length further on, in metres."""
    aside: float
    """That half length in metres."""
    length: float
    """In metres."""

    @property
    def middle(self) -> int:
        """Point of the banks in its middle."""
        return int(self.points[len(self.points) // 2])

    @property
    def leaves(self) -> bool:
        """Whether a river leaves the scene here, rather than runs along the edge."""
        return len(self.points) > 1 and self.rise > _STEEP * self.aside


@dataclass(frozen=True)
class Exits:
    """Where the channels of a water body leave the scene."""

    network: Network
    """Led on to the edge where it had no end there."""
    nodes: list[int]
    """Dead ends at which it leaves."""
    goals: dict[int, Floats]
    """Middle of the stretch of edge ahead of a dead end, shape (2,), where it is known."""


def cuts_of(mesh: Mesh, edge: Edge, pixel_m: float) -> list[Cut]:
    """Where the scene's edge cuts water off.

    Args:
        mesh: Triangles of a water body.
        edge: The edge.
        pixel_m: Size of a pixel.
    """
    width = np.zeros(len(mesh.banks.xy))
    radius = circles(mesh)[1]
    for k in range(3):
        np.maximum.at(width, mesh.corners[:, k], radius)
    known, guessed = (_cuts(mesh.banks, lines, pixel_m) for lines in (edge.known, edge.guessed))
    return known + [cut for cut in guessed if cut.length < _WIDEST * width[cut.points].max()]


def _cuts(banks: Banks, sides: Lines, pixel_m: float) -> list[Cut]:
    """Where some lines cut water off."""
    if len(sides) == 0:
        return []
    point, side = _near(banks.xy, sides, _ON_EDGE_PX * pixel_m)
    order = np.lexsort((point, side))
    near = np.split(point[order], np.searchsorted(side[order], np.arange(1, len(sides))))
    times = np.bincount(point, minlength=len(banks.xy))
    return [
        cut for line, points in zip(sides, near, strict=True) for cut in _cuts_by(line, points, times, banks, pixel_m)
    ]


def _near(xy: Floats, sides: Lines, most_m: float) -> tuple[Longs, Longs]:
    """Points that are near a line, and the number of the line, in pairs, shape (k,) and (k,).

    A river of a large scene has hundreds of mouths and millions of points: all lines are in one tree, and a run of
    points that is near none is put aside by its bounds.
    """
    tree = shapely.STRtree(np.array(sides, object))
    starts = np.arange(0, len(xy), _RUN)
    low, high = np.minimum.reduceat(xy, starts), np.maximum.reduceat(xy, starts)
    hit = np.unique(tree.query(shapely.box(*low.T, *high.T), predicate="dwithin", distance=most_m)[0])
    points = np.flatnonzero(np.isin(np.arange(len(xy)) // _RUN, hit))
    which, side = tree.query(shapely.points(xy[points]), predicate="dwithin", distance=most_m)
    return points[which], side


def _cuts_by(side: shapely.LineString, near: Longs, times: Longs, banks: Banks, pixel_m: float) -> Iterator[Cut]:
    """Cuts by one of some sides.

    Args:
        side: The side.
        near: Points near it, ascending, shape (n,).
        times: Number of sides that each point is near, shape (points,).
        banks: The banks.
        pixel_m: Size of a pixel.
    """
    for start, size, run in _runs(banks, near):
        aside = max(_ASIDE_PX, len(run) // 2)
        around = start + np.arange(run[0] - aside, run[0] + len(run) + aside) % size
        ends = around[[0, -1]]
        rises = shapely.distance(side, shapely.points(banks.xy[ends]))
        # At a corner of the scene the next side rises steeply, whatever the bank does.
        at_corner = (times[around] > np.isin(around, near)).any()
        rise = float(2 * rises.min() if at_corner else rises.sum())
        if rise > _TANGENT_PX * pixel_m:
            points = start + run
            yield Cut(points, rise, aside * pixel_m, float(banks.steps[points].sum()))


def on_edge(banks: Banks, cuts: list[Cut]) -> Bools:
    """Points of banks that are the scene's edge, shape (points,)."""
    there = np.zeros(len(banks.xy), bool)
    for cut in cuts:
        there[cut.points] = True
    return there


def _runs(banks: Banks, chosen: Longs) -> Iterator[tuple[int, int, Longs]]:
    """Runs of chosen points, over the seam of a ring too.

    Args:
        banks: The banks.
        chosen: Points, ascending, shape (n,).

    Yields:
        The first point of the ring, its number of points, and which of them are the run, in order.
    """
    for some in np.split(chosen, np.flatnonzero(np.diff(banks.ring[chosen])) + 1) if len(chosen) else []:
        start, end = banks.offsets[banks.ring[some[0]] :][:2].tolist()
        turned = some - start
        runs = np.split(turned, np.flatnonzero(np.diff(turned) > 1) + 1)
        if turned[0] == 0 and len(runs) > 1:  # the ring is read from a point that is not chosen
            seam = [runs.pop(), runs[0]] if turned[-1] == end - start - 1 else [runs[0]]
            runs = [*runs[1:], np.concatenate(seam)]
        for run in runs:
            yield start, end - start, run


def leave_scene(network: Network, mesh: Mesh, cuts: list[Cut], pixel_m: float) -> Exits:
    """Lead a network on to the scene's edge where water is cut by it.

    Most such places are dead ends already. Where a river is wider than what is seen of its length, or parts at the
    edge, it has none there, and gets one.

    Args:
        network: Channels of one water body, without spurs.
        mesh: Its triangles.
        cuts: Where the edge cuts its banks.
        pixel_m: Size of a pixel.
    """
    axis, root = network.axis, network.roots()
    tips = np.array(sorted(network.tips()), np.int64)
    on_links = np.zeros(len(axis.xy), bool)
    on_links[network.edges()] = True
    goals: dict[int, Floats] = {}
    leaving: set[int] = set()
    new: list[tuple[int, Floats]] = []
    for cut in cuts:
        xy, stem = mesh.banks.xy[cut.middle], int(root[mesh.shore[cut.middle]])
        here = _tips_at(axis, tips, mesh.banks.xy[cut.points], _NEAR_PX * pixel_m)
        leaving.update(here.tolist())
        if len(here) == 1 and cut.leaves and cut.length < _WIDEST * axis.radius[here[0]]:
            goals[int(here[0])] = xy
        elif len(here) == 0 and on_links[stem] and cut.leaves and _is_wide(cut.length, axis.radius[stem], pixel_m):
            new.append((stem, xy))
    ends = list(range(len(axis.xy), len(axis.xy) + len(new)))
    return Exits(_extended(network, new) if new else network, sorted(leaving) + ends, goals)


def _tips_at(axis: Axis, tips: Longs, cut: Floats, most_m: float) -> Longs:
    """Those dead ends whose circles, and half as much around, come so near to a stretch of edge, shape (k,)."""
    around = _NEAR * axis.radius[tips] + most_m
    low, high = cut.min(axis=0) - around[:, None], cut.max(axis=0) + around[:, None]
    near = ((axis.xy[tips] > low) & (axis.xy[tips] < high)).all(axis=1)
    line = shapely.LineString(cut) if len(cut) > 1 else shapely.Point(cut[0])
    near[near] = shapely.distance(line, shapely.points(axis.xy[tips[near]])) < around[near]
    found: Longs = tips[near]
    return found


def _is_wide(length: float, radius: float, pixel_m: float) -> bool:
    return max(_NARROWEST * radius, _NARROWEST_PX * pixel_m) <= length <= _NO_WIDER * radius


def _extended(network: Network, new: list[tuple[int, Floats]]) -> Network:
    """A network with new dead ends, each at the end of a straight link from a node."""
    axis = network.axis
    nodes = np.arange(len(new)) + len(axis.xy)
    stems = np.array([stem for stem, _ in new])
    return Network(
        Axis(
            np.concatenate([axis.xy, np.array([xy for _, xy in new])]),
            np.concatenate([axis.radius, axis.radius[stems]]),
            np.concatenate([network.edges(), np.stack([stems, nodes], 1)]),
            np.concatenate([network.parent, nodes]),
        )
    )

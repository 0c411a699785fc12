"""What the shape of water says: river, lake or pond; islands that part a river and specks that do not."""

from __future__ import annotations

from typing import Literal

import numpy as np
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geosam.rivers.axis import Mesh
from geosam.rivers.banks import Bools, Floats, Longs
from geosam.rivers.network import Network

Kind = Literal["river", "lake", "pond"]

RIVER_ELONGATION = 5.0
"""Water so many times as long as it is wide is a river. An ellipse of axes 3 : 1 has 3.8, a basin of sides 4 : 1 has 4;
a river that crosses a scene of five widths has 5."""
THROUGH_ELONGATION = 2.0
"""Water that enters the scene at one place and leaves it at another is a river from here on: most of it is unseen."""
POND_M2 = 50_000.0
"""A lake of up to this area is a pond. Source: Richardson et al. (2022), A functional definition to distinguish ponds
from lakes and wetlands, Scientific Reports 12: ponds have less than 5 ha."""
SPECK_SHARE = 0.25
"""An island whose extent is less than this share of the widest channel beside it does not part the river."""
NARROWS = 0.25
"""Open water has no exit wider than this share of its own width."""
OPEN_PX = 10.0
"""Nor is it less than so many pixels from its middle to the bank: along a creek of one pixel all else is wide."""
_MOST_OF_IT = 0.9
"""A part that holds more than this of a water body is not a part of it but the body itself."""
_MOST_LOOKS = 50
"""Stretches looked at in one water body, the widest first."""
_MOST_CIRCLES = 500
"""Circles that stand for the surface of a stretch."""


def kind_of(elongation: float, area_m2: float) -> Kind:
    """River, lake or pond.

    Args:
        elongation: Length over mean width.
        area_m2: Area of the water.
    """
    if elongation >= RIVER_ELONGATION:
        return "river"
    return "pond" if area_m2 <= POND_M2 else "lake"


def specks(mesh: Mesh, radius: Floats) -> Bools:
    """Islands too small to part the river they lie in, such as a boat, a rock or glint, shape (rings,).

    Args:
        mesh: The water.
        radius: Radius of the circle through the corners of each triangle, shape (triangles,).
    """
    banks = mesh.banks
    ring = banks.ring[mesh.corners]
    shared = (ring != ring[:, :1]).any(axis=1)
    widest = np.zeros(len(banks.offsets) - 1)
    for k in range(3):
        np.maximum.at(widest, ring[shared, k], 2 * radius[shared])
    low = np.minimum.reduceat(banks.xy, banks.offsets[:-1])
    high = np.maximum.reduceat(banks.xy, banks.offsets[:-1])
    small: Bools = np.hypot(*(high - low).T) < SPECK_SHARE * widest
    small[0] = False
    return small


def open_water(network: Network, areas: Floats, pixel_m: float) -> Bools:
    """Nodes in a lake on the river, or in the sea before its mouth, shape (nodes,).

    A stretch of axis is open water where all the water that leads out of it is much narrower, and it is itself too
    compact for a river.

    Args:
        network: Channels of one water body.
        areas: Water that belongs to each node in m², shape (nodes,).
        pixel_m: Size of a pixel.
    """
    axis, edges = network.axis, network.edges()
    # Numbered anew: of a mesh's millions of triangles the links hold a tenth, and every look goes over all of them.
    nodes, number = np.unique(edges, return_inverse=True)
    edges = number.reshape(edges.shape)
    xy, radius, own = axis.xy[nodes], axis.radius[nodes], areas[nodes]
    wide_open, unseen = np.zeros(len(nodes), bool), radius > OPEN_PX * pixel_m
    for _ in range(_MOST_LOOKS):
        if not unseen.any():
            break
        widest = int(np.flatnonzero(unseen)[np.argmax(radius[unseen])])
        # What is open water already joins no two stretches: it would make one of two bays, too long for a bay.
        stretch = _stretch(radius, edges[~wide_open[edges].any(axis=1)], widest)
        unseen[stretch] = False
        if _extent(xy[stretch]) >= (RIVER_ELONGATION - 1) * 2 * radius[widest]:
            continue
        part = _covered(xy, radius, stretch)
        if own[part].sum() < _MOST_OF_IT * areas.sum():
            wide_open[part] = True
            unseen[part] = False
    found = np.zeros(len(axis.xy), bool)
    found[nodes[wide_open]] = True
    return found


def _stretch(radius: Floats, edges: Longs, widest: int) -> Longs:
    """Nodes around the widest, as far as the water is not much narrower."""
    wide = radius > NARROWS * radius[widest]
    joined = edges[wide[edges].all(axis=1)]
    graph = coo_array((np.ones(len(joined), bool), (joined[:, 0], joined[:, 1])), shape=(len(wide), len(wide)))
    _, part = connected_components(graph, directed=False)
    return np.flatnonzero(part == part[widest])


def _extent(xy: Floats) -> float:
    return float(np.hypot(*np.ptp(xy, axis=0)))


def _covered(xy: Floats, radius: Floats, stretch: Longs) -> Longs:
    """Nodes inside the circles of a stretch: the fans that lead from its banks to its middle too."""
    order = stretch[np.argsort(-radius[stretch])]
    apart = order[:: max(1, len(order) // _MOST_CIRCLES)]
    surface = shapely.union_all(shapely.buffer(shapely.points(xy[apart]), radius[apart]))
    shapely.prepare(surface)
    west, south, east, north = surface.bounds
    near = np.flatnonzero(((xy >= (west, south)) & (xy <= (east, north))).all(axis=1))
    return np.union1d(near[shapely.contains_xy(surface, xy[near])], stretch)

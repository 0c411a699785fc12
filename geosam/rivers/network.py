"""The channels of a water body as links between nodes, without spurs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geosam.rivers.axis import Axis
from geosam.rivers.banks import Floats, Longs

SPUR_WIDTHS = 2.0
"""A dead end shorter than so many of its own widths is a bay or a corner, not a channel."""
SPUR_PX = 10.0
"""One shorter than so many pixels is not kept either."""
_FULL = 0.9
_SOON_PX = 3.0
_TAPER = 0.25
"""Sine of half the angle between banks below which water is thought to taper off: 29 degrees between the two."""


class Network:
    """Links, each a run of axis nodes, and the nodes at which they meet.

    Attributes:
        axis: Where the nodes are.
        links: Axis nodes of each link from one end to the other, both included, shape (k,); a closed ring starts and
            ends at one node.
        at: Links that end at a node; a closed ring is listed twice.
        parent: Of a node that is on no link the next one towards it, of the others themselves, shape (nodes,).
    """

    def __init__(self, axis: Axis) -> None:
        self.axis = axis
        self.links: dict[int, Longs] = {}
        self.at: dict[int, list[int]] = {}
        self.parent = axis.parent.copy()
        self._made = 0
        for path in _paths(axis.edges, len(axis.xy)):
            self._add(path)

    def ends(self, link: int) -> tuple[int, int]:
        """First and last node of a link."""
        path = self.links[link]
        return int(path[0]), int(path[-1])

    def along(self, path: Longs) -> Floats:
        """Distance from the start at each node of a path in metres, shape (k,)."""
        steps = np.hypot(*np.diff(self.axis.xy[path], axis=0).T)
        return np.concatenate([[0.0], np.cumsum(steps)])

    def tips(self) -> list[int]:
        """Nodes at which one link ends and no other."""
        return [node for node, links in self.at.items() if len(links) == 1]

    def parts(self) -> list[list[int]]:
        """Links of each connected part, the one with most axis nodes first."""
        links = list(self.links)
        ends = np.array([self.ends(link) for link in links], np.int64).reshape(-1, 2)
        nodes, index = np.unique(ends, return_inverse=True)
        one, other = index.reshape(-1, 2).T
        graph = coo_array((np.ones(len(links), bool), (one, other)), shape=(len(nodes), len(nodes)))
        count, part = connected_components(graph, directed=False)
        of_part: list[list[int]] = [[] for _ in range(count)]
        for link, node in zip(links, one.tolist(), strict=True):
            of_part[part[node]].append(link)
        return sorted(of_part, key=lambda some: -sum(len(self.links[link]) for link in some))

    def edges(self) -> Longs:
        """Edges of the axis on links, shape (m, 2)."""
        paths = self.links.values()
        return np.concatenate([np.stack([path[:-1], path[1:]], 1) for path in paths] or [np.empty((0, 2), np.int64)])

    def roots(self) -> Longs:
        """Node on a link, or the last one left of its part, to which each node belongs, shape (nodes,)."""
        root = self.parent
        while True:
            further = root[root]
            if np.array_equal(further, root):
                return root
            root = further

    def prune(self, pixel_m: float) -> None:
        """Remove dead ends that are no channels, until there is none.

        All that fail are removed before links are joined: else the first of the two branches that lead into the
        corners of a river's end would go, and the other become the river.

        Args:
            pixel_m: Size of a pixel.
        """
        doomed = self._spurs(pixel_m)
        while doomed:
            for link, stem in doomed.items():
                path = self._take(link)
                self.parent[path] = stem
                self.parent[stem] = stem
            for stem in set(doomed.values()):
                self._join(stem)
            doomed = self._spurs(pixel_m)

    def blunt(self, pixel_m: float) -> None:
        """Take back dead ends that run into a corner of the outline to where the channel has its width.

        Where a river is cut off square there are two corners, and where they are alike two spurs, that are pruned. Cut
        off aslant, one corner is too blunt to have a branch, and the channel would seem to end in the other.

        Args:
            pixel_m: Size of a pixel.
        """
        for tip in self.tips():
            path = self.links[self.at[tip][0]]
            path = path if path[0] == tip else path[::-1]
            full = self._full_width(path, pixel_m)
            if 0 < full < len(path) - 1:
                self._take(self.at[tip][0])
                self.parent[path[:full]] = path[full]
                self._add(path[full:])

    def _full_width(self, path: Longs, pixel_m: float) -> int:
        """Index of a node at which a dead end has had its full width for a while; 0 if it tapers off, as a source does.

        For a while, since the channel's axis leans to the corner before it is there.
        """
        along, radius = self.along(path), self.axis.radius[path]
        for k in range(len(path)):
            soon = slice(k, int(np.searchsorted(along, along[k] + max(radius[k], _SOON_PX * pixel_m))) + 1)
            if radius[k] >= _FULL * radius[soon].max():
                is_corner = 0 < along[k] < radius[k] / _TAPER
                return int(np.searchsorted(along, along[k] + radius[k])) if is_corner else 0
        return 0

    def _spurs(self, pixel_m: float) -> dict[int, int]:
        """Dead ends to be removed, and the node each hangs on."""
        excess: dict[int, dict[int, float]] = {}
        for tip in self.tips():
            link = self.at[tip][0]
            path = self.links[link] if self.ends(link)[1] == tip else self.links[link][::-1]
            stem = int(path[0])
            if len(self.at[stem]) > 1:
                excess.setdefault(stem, {})[link] = self._excess(path, pixel_m)
        doomed: dict[int, int] = {}
        for stem, links in excess.items():
            failing = sorted((link for link in links if links[link] < 0), key=lambda link: links[link])
            # Where nothing but failing ends meet, in a round pond, the two best stay: they are its length.
            best = 2 if len(failing) == len(self.at[stem]) else 0
            doomed.update(dict.fromkeys(failing[: len(failing) - best], stem))
        return doomed

    def _excess(self, path: Longs, pixel_m: float) -> float:
        """By how many metres a dead end is longer than it must be.

        Args:
            path: From the node where it leaves the channel to its tip.
            pixel_m: Size of a pixel.
        """
        along, radius = self.along(path), self.axis.radius[path]
        sticks_out = along[-1] + radius[-1] - radius[0]
        mouth = int(np.searchsorted(along, radius[0]))
        width = 2 * radius[min(mouth, len(path) - 1)]
        return float(sticks_out - max(SPUR_WIDTHS * width, SPUR_PX * pixel_m))

    def _join(self, node: int) -> None:
        """Make one link of two that meet alone."""
        links = self.at.get(node, [])
        if len(links) == 2 and links[0] != links[1]:
            one, other = (self._take(link) for link in tuple(links))
            one = one if one[-1] == node else one[::-1]
            other = other if other[0] == node else other[::-1]
            self._add(np.concatenate([one, other[1:]]))

    def _add(self, path: Longs) -> None:
        self.links[self._made] = path
        for node in (int(path[0]), int(path[-1])):
            self.at.setdefault(node, []).append(self._made)
        self._made += 1

    def _take(self, link: int) -> Longs:
        for node in self.ends(link):
            self.at[node].remove(link)
            if not self.at[node]:
                del self.at[node]
        return self.links.pop(link)


def _paths(edges: Longs, count: int) -> Iterator[Longs]:
    """Runs of edges from one node where not two of them meet to the next; closed rings too."""
    both = np.concatenate([edges, edges[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    degrees = np.bincount(both[:, 0], minlength=count)
    neighbour, degree = both[:, 1].tolist(), degrees.tolist()
    first = (np.cumsum(degrees) - degrees).tolist()
    seen: set[tuple[int, int]] = set()
    for node in np.flatnonzero((degrees > 0) & (degrees != 2)).tolist() + _one_of_each_ring(edges, degrees):
        for step in neighbour[first[node] : first[node] + degree[node]]:
            if (node, step) not in seen:
                path = _run(node, step, neighbour, first, degree)
                seen.update({(path[0], path[1]), (path[-1], path[-2])})
                yield np.array(path)


def _run(node: int, step: int, neighbour: list[int], first: list[int], degree: list[int]) -> list[int]:
    path = [node, step]
    while degree[step] == 2 and step != node:
        k = first[step]
        step = neighbour[k] if neighbour[k] != path[-2] else neighbour[k + 1]
        path.append(step)
    return path


def _one_of_each_ring(edges: Longs, degrees: Longs) -> list[int]:
    """A node of every part of a graph in which all nodes have two edges."""
    weights = np.ones(len(edges), bool)
    graph = coo_array((weights, (edges[:, 0], edges[:, 1])), shape=(len(degrees), len(degrees)))
    count, part = connected_components(graph, directed=False)
    ringlike = np.ones(count, bool)
    ringlike[part[degrees != 2]] = False
    node = np.full(count, -1)
    node[part] = np.arange(len(part))
    return [int(one) for one in node[ringlike]]

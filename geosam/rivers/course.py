"""The main course of a network: the widest way over the longest distance."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from geosam.rivers.banks import Bools, Floats, Longs
from geosam.rivers.network import Network

_NARROW_END = 3.0
"""A course may end in a channel of one such part of its own mean width; the narrower the end, the less it counts."""
_DIRECTIONS = 16
_WIDEST_ENDS = 48
"""Nodes from which courses are looked for: the outermost in some directions, and the dead ends with most water."""
_MOST_STARTS = 64
_MOST_SWEEPS = 8
_LEAST = 1e-9

Pair = tuple[int, int]


class Course(NamedTuple):
    """The main course of a connected part of a network."""

    path: Longs
    """Its axis nodes, shape (k,)."""
    taken: list[int]
    """The links that it runs through."""
    links: list[int]
    """All links of the part."""


def main_courses(network: Network, exits: Collection[int] = ()) -> list[Course]:
    """The main course of each connected part of a network, the largest part first.

    Of two ways from one node to another the course takes the one of less length over width. Of all pairs of nodes
    it joins those between which this way has most water, length times width, is straight rather than bent, and does
    not end in a mere inlet. It ends where water leaves the scene or reaches the sea, if there are such places.

    Args:
        network: Channels of one water body.
        exits: Nodes at which water leaves.
    """
    return [_course(network, links, frozenset(exits)) for links in network.parts()]


def _course(network: Network, links: list[int], exits: frozenset[int]) -> Course:
    ways = _Ways(network, links, exits)
    if not ways.best:  # a closed ring and nothing else
        longest = max(links, key=lambda link: network.along(network.links[link])[-1])
        return Course(network.links[longest], [longest], links)
    start, end = ways.ends()
    taken = ways.links_between(start, end)
    return Course(_joined(network, taken, ways.nodes[start]), taken, links)


@dataclass(frozen=True)
class _Ways:
    """The easiest ways through one connected part; nodes are numbered anew from 0."""

    network: Network
    links: list[int]
    exits: frozenset[int]

    @cached_property
    def _sizes(self) -> dict[int, tuple[float, float]]:
        """Length and width of each link in metres."""
        return {link: self._size(self.network.links[link]) for link in self.links}

    def _size(self, path: Longs) -> tuple[float, float]:
        """The width is the median of what is its own: a side channel's axis runs on to the middle of another."""
        along, radius = self.network.along(path), self.network.axis.radius[path]
        joined = [len(self.network.at[int(path[end])]) > 1 for end in (0, -1)]
        own = (along >= joined[0] * radius[0]) & (along <= along[-1] - joined[1] * radius[-1])
        return float(along[-1]), max(2 * float(np.median(radius[own]) if own.any() else radius.min()), _LEAST)

    @cached_property
    def best(self) -> dict[Pair, int]:
        """Of the links between the same two nodes the easiest; closed rings lead nowhere."""
        best: dict[Pair, int] = {}
        for link in sorted(self.links, key=self._resistance):
            one, other = self.network.ends(link)
            if one != other:
                best.setdefault((min(one, other), max(one, other)), link)
        return best

    @cached_property
    def nodes(self) -> list[int]:
        """Axis node of each number."""
        return sorted({node for pair in self.best for node in pair})

    @cached_property
    def _xy(self) -> Floats:
        return self.network.axis.xy[self.nodes]

    @cached_property
    def _is_end(self) -> Bools:
        """Where a course may end, shape (nodes,)."""
        is_exit = np.isin(self.nodes, list(self.exits))
        return is_exit if is_exit.sum() > 1 else np.ones(len(self.nodes), bool)

    @cached_property
    def _graph(self) -> csr_array:
        number = {node: k for k, node in enumerate(self.nodes)}
        one, other = np.array([[number[a], number[b]] for a, b in self.best]).T
        resistance = [self._resistance(link) for link in self.best.values()]
        return csr_array((resistance, (one, other)), shape=(len(self.nodes), len(self.nodes)))

    @cached_property
    def _end_width(self) -> Floats:
        """Width of the widest channel at each node, shape (nodes,)."""
        at = self.network.at
        return np.array([max(self._sizes[link][1] for link in at[node]) for node in self.nodes])

    def _resistance(self, link: int) -> float:
        length, width = self._sizes[link]
        return length / width

    def ends(self) -> Pair:
        """The two ends of the main course."""
        exits = np.flatnonzero(np.isin(self.nodes, list(self.exits))).tolist()
        (start, end), best = max(map(self.furthest, exits[:_MOST_STARTS] or self._starts()), key=lambda found: found[1])
        for _ in range(0 if exits else _MOST_SWEEPS):
            ends, better = self.furthest(end)
            if better <= best:
                break
            (start, end), best = ends, better
        return start, end

    def _starts(self) -> list[int]:
        """Nodes to look from."""
        turn = np.arange(_DIRECTIONS) * 2 * np.pi / _DIRECTIONS
        outermost = (self._xy @ np.stack([np.cos(turn), np.sin(turn)])).argmax(axis=0)
        tips = [k for k, node in enumerate(self.nodes) if len(self.network.at[node]) == 1]
        tips.sort(key=lambda k: -np.prod(self._sizes[self.network.at[self.nodes[k]][0]]))
        return sorted({*outermost.tolist(), *tips[:_WIDEST_ENDS]})

    def furthest(self, start: int) -> tuple[Pair, float]:
        """The best course from a node, as its two ends, and how good it is."""
        far, before = dijkstra(self._graph, directed=False, indices=start, return_predecessors=True)
        length, surface = np.zeros(len(far)), np.zeros(len(far))
        for node in np.argsort(far).tolist()[1:]:
            one, other = self.nodes[node], self.nodes[before[node]]
            more, wide = self._sizes[self.best[min(one, other), max(one, other)]]
            length[node], surface[node] = length[before[node]] + more, surface[before[node]] + more * wide
        width = np.maximum(surface, _LEAST) / np.maximum(length, _LEAST)
        ends = np.minimum(1, _NARROW_END * self._end_width / width)
        ends *= np.minimum(1, _NARROW_END * self._end_width[start] / width)
        straight = np.hypot(*(self._xy - self._xy[start]).T) / np.maximum(length, _LEAST)
        good = surface * ends * np.sqrt(np.minimum(straight, 1)) * self._is_end
        return (start, int(np.argmax(good))), float(good.max())

    def links_between(self, start: int, end: int) -> list[int]:
        """Links of the easiest way from one node to another."""
        _, before = dijkstra(self._graph, directed=False, indices=start, return_predecessors=True)
        way = [end]
        while way[-1] != start:
            way.append(int(before[way[-1]]))
        nodes = [self.nodes[k] for k in way[::-1]]
        return [self.best[min(a, b), max(a, b)] for a, b in pairwise(nodes)]


def _joined(network: Network, links: list[int], start: int) -> Longs:
    """One path along links that follow each other, from a node on."""
    path = np.array([start])
    for link in links:
        more = network.links[link]
        more = more if more[0] == path[-1] else more[::-1]
        path = np.concatenate([path, more[1:]])
    return path

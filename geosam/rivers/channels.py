"""From one water body to its channels: axis, spurs, open water, exits, centrelines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely

from geosam.rivers.axis import Mesh, axis_of, circles, mesh_of
from geosam.rivers.banks import Banks, Bools, Floats, banks_of
from geosam.rivers.bridging import End, ends_of
from geosam.rivers.course import Course, main_courses
from geosam.rivers.crossing import Cutter
from geosam.rivers.exits import Edge, Exits, cuts_of, leave_scene, on_edge
from geosam.rivers.filling import filled
from geosam.rivers.lines import Line, lines_of
from geosam.rivers.network import Network
from geosam.rivers.pieces import pieces_of, without
from geosam.rivers.shape import RIVER_ELONGATION, THROUGH_ELONGATION, Kind, kind_of, open_water, specks


@dataclass(frozen=True)
class Channels:
    """The channels of a river."""

    lines: list[Line]
    """Their centrelines."""
    banks: Banks
    """The outline with all islands, as even points."""
    specks: Bools
    """Islands that part no channel, by ring of ``banks``, shape (rings,)."""
    mesh: Mesh
    """Triangles of the water with such islands filled."""
    places: Floats
    """Where on the axis the water of each triangle belongs, in metres, shape (triangles, 2)."""
    at_edge: Bools
    """Points of ``mesh.banks`` that are no bank: the scene's edge, or where open water begins, shape (points,)."""


@dataclass(frozen=True)
class Water:
    """A water body, or the part of one that is a river or a lake."""

    kind: Kind
    polygon: shapely.Polygon
    """In metres; holes are islands."""
    elongation: float
    """Length of the main course over its mean width; a bound where it was not measured."""
    channels: Channels | None
    """None of a lake or pond."""


def waters_of(polygon: shapely.Polygon, pixel_m: float, edge: Edge) -> Iterator[Water]:
    """A water body by its shape; a lake on a river and the sea before its mouth apart from the river.

    Args:
        polygon: Water in metres; holes are islands.
        pixel_m: Size of a pixel: finer details are noise.
        edge: The scene's edge.
    """
    bound = polygon.length**2 / (4 * polygon.area)
    if bound < RIVER_ELONGATION:  # a rectangle's is the ratio of its sides and 2 more
        yield Water(kind_of(bound, polygon.area), polygon, bound, None)
        return
    skeleton = _Skeleton.of(polygon, pixel_m, edge)
    still = skeleton.open_water() if skeleton.kind == "river" else np.zeros(0, bool)
    if not still.any():
        yield skeleton.water()
        return
    rivers, lakes, mouths = _parted(skeleton, still)
    for part in rivers:
        skeleton = _Skeleton.of(part, pixel_m, Edge([*edge.known, *mouths], edge.guessed))
        if skeleton.kind == "river":
            yield skeleton.water()
        else:  # a bay
            lakes.append(part)
    for lake in shapely.get_parts(shapely.union_all(lakes)):
        yield Water(kind_of(1.0, lake.area), lake, 1.0, None)


def dead_ends(polygon: shapely.Polygon, pixel_m: float) -> list[End]:
    """Dead ends of the channels of a water body; none where it is too compact to have any.

    Args:
        polygon: Water in metres; holes are islands.
        pixel_m: Size of a pixel.
    """
    if polygon.length**2 / (4 * polygon.area) < RIVER_ELONGATION:
        return []
    mesh, _ = _mesh(banks_of(polygon, pixel_m))
    return ends_of(_network(mesh, pixel_m, np.zeros(len(mesh.banks.xy), bool)), Cutter(mesh.banks), pixel_m)


@dataclass(frozen=True)
class _Skeleton:
    """A water body, its network without spurs, and what they tell of its shape."""

    polygon: shapely.Polygon
    pixel_m: float
    banks: Banks
    specks: Bools
    mesh: Mesh
    at_edge: Bools
    exits: Exits
    courses: list[Course]
    elongation: float
    kind: Kind

    @classmethod
    def of(cls, polygon: shapely.Polygon, pixel_m: float, edge: Edge) -> _Skeleton:
        """Find them."""
        banks = banks_of(polygon, pixel_m)
        mesh, small = _mesh(banks)
        cuts = cuts_of(mesh, edge, pixel_m)
        at_edge = on_edge(mesh.banks, cuts)
        exits = leave_scene(_network(mesh, pixel_m, at_edge), mesh, cuts, pixel_m)
        courses = main_courses(exits.network, exits.nodes)
        elongation, through = _elongation(exits, courses)
        kind = "river" if through and elongation >= THROUGH_ELONGATION else kind_of(elongation, polygon.area)
        return cls(polygon, pixel_m, banks, small, mesh, at_edge, exits, courses, elongation, kind)

    @property
    def network(self) -> Network:
        """Its channels."""
        return self.exits.network

    def open_water(self) -> Bools:
        """Triangles in a lake on the river, or in the sea before its mouth, shape (triangles,)."""
        root = self.network.roots()
        own = root[: len(self.mesh.corners)]
        areas = np.bincount(own, self.mesh.areas, minlength=len(root)).astype(np.float64)
        return open_water(self.network, areas, self.pixel_m)[own]

    def water(self) -> Water:
        """The body, with its channels where it is a river."""
        if self.kind != "river":
            return Water(self.kind, self.polygon, self.elongation, None)
        count = len(self.mesh.corners)
        goals = {**self.exits.goals, **{node: self.network.axis.xy[node] for node in self.exits.nodes if node >= count}}
        lines = lines_of(self.network, self.courses, Cutter(self.mesh.banks), self.pixel_m, goals)
        places = self.network.axis.xy[self.network.roots()[:count]]
        channels = Channels(lines, self.banks, self.specks, self.mesh, places, self.at_edge)
        return Water("river", self.polygon, self.elongation, channels)


def _mesh(banks: Banks) -> tuple[Mesh, Bools]:
    """Mesh of the water with small islands filled, and which islands these are, by ring."""
    mesh = mesh_of(banks)
    small = specks(mesh, circles(mesh)[1])
    return (filled(mesh, small) if small.any() else mesh), small


def _network(mesh: Mesh, pixel_m: float, at_edge: Bools) -> Network:
    """Channels without spurs; see :func:`axis_of`."""
    network = Network(axis_of(mesh, pixel_m, at_edge))
    network.prune(pixel_m)
    network.blunt(pixel_m)
    return network


def _elongation(exits: Exits, courses: list[Course]) -> tuple[float, bool]:
    """Length of the main course over its mean width, and whether it goes from edge to edge of the scene."""
    if not courses:
        return 1.0, False
    course = courses[0].path
    along, radius = exits.network.along(course), exits.network.axis.radius[course]
    closed = course[0] == course[-1]
    length = along[-1] / (2 if closed else 1) + sum(radius[end] for end in (0, -1) if course[end] not in exits.nodes)
    width = 2 * float(np.trapezoid(radius, along)) / max(along[-1], 1e-9)
    return float(length / width), course[0] in exits.nodes and course[-1] in exits.nodes


def _parted(
    skeleton: _Skeleton, still: Bools
) -> tuple[list[shapely.Polygon], list[shapely.Polygon], list[shapely.LineString]]:
    """A body cut between open water and its rivers.

    Args:
        skeleton: The body.
        still: Triangles in open water, shape (triangles,).

    Returns:
        Rivers, lakes, and the lines between them.
    """
    mesh, banks = skeleton.mesh, skeleton.banks
    border = mesh.sides[still[mesh.pairs[:, 0]] != still[mesh.pairs[:, 1]]]
    faces, open_face = pieces_of(mesh, border, still)
    rings = zip(banks.offsets[:-1], banks.offsets[1:], skeleton.specks, strict=True)
    islets = np.array([shapely.Polygon(banks.xy[a:b]) for a, b, small in rings if small], object)
    rivers, lakes = (without(faces[some], islets) for some in (~open_face, open_face))
    mouths = shapely.line_merge(shapely.multilinestrings(shapely.linestrings(mesh.banks.xy[border])))
    return rivers, lakes, list(shapely.get_parts(mouths))

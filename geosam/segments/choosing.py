"""Which segments are meant: by points, boxes, an index, or what they touch. All in pixels of the scene's grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geosam.coarse.rules import BAND_RULES, RGB_RULES
from geosam.coarse.threshold import fit_threshold
from geosam.errors import OptionsError
from geosam.options import PromptOptions, SelectOptions
from geosam.prompts import WATER
from geosam.prompts.files import read_layer
from geosam.prompts.opening import extent_of, read_given
from geosam.segments.colours import INDICES
from geosam.segments.files import Segments

if TYPE_CHECKING:
    from geosam.scene import Scene

Shapes = NDArray[np.object_]

ANYTHING = ("LineString", "MultiLineString", "Polygon", "MultiPolygon", "Point", "MultiPoint")
_SAMPLE = 100_000
"""Values that a threshold is fitted to, each segment in proportion to its area."""


@dataclass(frozen=True)
class Choice:
    """What is taken."""

    taken: NDArray[np.bool_]
    """Segments whose ground is water, shape (n,)."""
    removed: NDArray[np.bool_]
    """Segments whose ground is taken away from that, shape (n,)."""
    facts: dict[str, Any]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grid:
    """A scene without pixels: enough of one to place a vector file on."""

    geobox: GeoBox
    has_crs: bool
    source: str

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.geobox.shape[0]), int(self.geobox.shape[1])


def grid_of(segments: Segments) -> Scene:
    """The grid that segments follow, in a scene's place."""
    known = segments.identity
    return cast("Scene", Grid(known.geobox, known.has_crs, known.name))


def in_pixels(segments: Segments) -> Shapes:
    """Segments in (col, row) of the scene, shapely (n,)."""
    to_pixels = ~segments.identity.geobox.affine
    placed: Shapes = shapely.transform(
        segments.table.geometry.to_numpy(), lambda xy: np.stack(to_pixels @ (xy[:, 0], xy[:, 1]), axis=1).round(6)
    )
    return placed


def choose(segments: Segments, shapes: Shapes, options: SelectOptions) -> Choice:
    """Segments by every way but text.

    Raises:
        OptionsError: A file cannot be used, or there is no such index.
    """
    ways = {"points": _by_points, "box": _by_boxes, "boxes": _by_boxes, "index": _by_index, "touching": _by_touch}
    return ways[options.way](segments, shapes, options)


def _by_points(segments: Segments, shapes: Shapes, options: SelectOptions) -> Choice:
    """Segments that water points hit, less those that only dry points hit.

    A segment that both hit is kept where the dry ones are taken off with smaller segments, such as an island of a
    river; else it is left out: no dry point is ever in the result.
    """
    given = read_given(PromptOptions(points_file=options.points), grid_of(segments))
    hits = np.zeros((len(shapes), len(given.points)), bool)
    if len(shapes):
        point, segment = shapely.STRtree(shapes).query(shapely.points(given.points), predicate="intersects")
        hits[segment, point] = True
    wet = given.labels == WATER
    by_water, by_dry = hits[:, wet].any(axis=1), hits[:, ~wet].any(axis=1)
    removed = by_dry & ~by_water
    off = hits[removed].any(axis=0)
    doubted = (hits & ~wet & ~off).any(axis=1)
    lost = int((~hits[:, wet].any(axis=0)).sum())
    warnings = [*given.warnings]
    if lost:
        warnings.append(f"{lost} of {int(wet.sum())} water points hit no segment.")
    if (by_water & doubted).any():
        count = int((by_water & doubted).sum())
        warnings.append(f"{count} segments that water points hit were left out, since dry points hit them too.")
    facts = {"water": int(wet.sum()), "dry": int((~wet).sum())}
    return Choice(np.asarray(by_water & ~doubted), np.asarray(removed), facts, tuple(warnings))


def _by_boxes(segments: Segments, shapes: Shapes, options: SelectOptions) -> Choice:
    """Of every box the segment of greatest IoU."""
    grid = grid_of(segments)
    if options.boxes is not None:
        given = read_given(PromptOptions(boxes_file=options.boxes), grid)
        boxes, warnings = shapely.box(*given.boxes.T), given.warnings
    else:
        boxes, warnings = np.array([_box(str(options.box), grid)], object), ()
    taken = np.zeros(len(shapes), bool)
    missed = 0
    tree = shapely.STRtree(shapes)
    for box in boxes:
        near = tree.query(box, predicate="intersects")
        both = shapely.area(shapely.intersection(shapes[near], box))
        share = both / (shapely.area(shapes[near]) + shapely.area(box) - both)
        if len(near) and share.max() > 0:
            taken[near[int(share.argmax())]] = True
        else:
            missed += 1
    if missed:
        warnings = (*warnings, f"{missed} of {len(boxes)} boxes hold no segment.")
    return Choice(taken, np.zeros_like(taken), {"boxes": len(boxes)}, warnings)


def _box(text: str, grid: Scene) -> shapely.Polygon:
    """A box in the segments' CRS as one in pixels."""
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
        if not (x0 < x1 and y0 < y1 and np.isfinite([x0, y0, x1, y1]).all()):
            raise ValueError
    except ValueError:
        raise OptionsError(f"--box must be x0,y0,x1,y1 with x0 < x1 and y0 < y1, got {text!r}.") from None
    corners = [~grid.geobox.affine @ xy for xy in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
    box = shapely.Polygon(corners)
    if not box.intersects(shapely.box(0, 0, grid.shape[1], grid.shape[0])):
        bounds = ", ".join(f"{value:.8g}" for value in grid.geobox.boundingbox)
        raise OptionsError(f"--box {text} lies outside {grid.source}, whose bounds are ({bounds}) in its own CRS.")
    return box


def _by_index(segments: Segments, shapes: Shapes, options: SelectOptions) -> Choice:
    """Segments whose mean index is above a threshold; of excess green, below it, as in ``geosam coarse``."""
    name, table = str(options.index).lower(), segments.table
    known = [column for column in INDICES if column in table.columns]
    if name not in known:
        there = ", ".join(known) or "no index"
        raise OptionsError(
            f"--index {options.index}: the segments of {segments.path} have {there}. Choose one of those."
        )
    if name == "ndvi":
        raise OptionsError("--index ndvi tells leaves from the rest, not water from land. Choose ndwi or mndwi.")
    scores = table[name].to_numpy(float) * (-1 if name == "exg" else 1)
    above = _fitted(name, scores, table["area_m2"].to_numpy(float)) if options.above is None else options.above
    taken = np.asarray(scores > above)
    return Choice(taken, np.zeros_like(taken), {"index": name, "above": round(float(above), 4)})


def _fitted(name: str, scores: NDArray[np.float64], area: NDArray[np.float64]) -> float:
    """A threshold by the rule of ``geosam coarse``, each segment counting by its area."""
    known = np.isfinite(scores)
    share = area[known] / max(float(area[known].sum()), 1e-9)
    sample = np.repeat(scores[known], np.maximum(np.rint(share * _SAMPLE), 1).astype(int))
    rule = BAND_RULES.get(name) or RGB_RULES[name]
    return fit_threshold(sample, rule.default, *rule.bounds(sample.astype(np.float32))).threshold


def _by_touch(segments: Segments, shapes: Shapes, options: SelectOptions) -> Choice:
    """Segments that share a point with a feature."""
    grid = grid_of(segments)
    layer = read_layer("--touching", str(options.touching), ANYTHING, grid)
    with np.errstate(invalid="ignore"):  # What the CRS does not reach is nowhere.
        inside = shapely.intersects(layer.shapes, shapely.box(0, 0, grid.shape[1], grid.shape[0]))
    lost = layer.outside(inside, "features", grid.source)
    if not inside.any():
        raise OptionsError(
            f"--touching: {lost} {extent_of(grid)} Check the file's CRS, and whether x and y are swapped."
        )
    taken = np.zeros(len(shapes), bool)
    if len(shapes):
        taken[shapely.STRtree(shapes).query(layer.shapes[inside], predicate="intersects")[1]] = True
    return Choice(taken, np.zeros_like(taken), {"features": len(layer.shapes)}, () if lost is None else (lost,))

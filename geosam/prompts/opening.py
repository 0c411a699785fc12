"""From a person's files to the prompts that lie in a scene; what lies outside is counted and named."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geosam.errors import OptionsError
from geosam.options import PromptOptions
from geosam.prompts import DRY, WATER
from geosam.prompts.files import POINTS, POLYGONS, is_table, labels_of, plain, read_layer
from geosam.prompts.given import NOBODY, GivenPrompts
from geosam.prompts.mask import GivenMask, open_mask

if TYPE_CHECKING:
    from geosam.scene import Scene

SNAP = 8
"""Points are rounded to an eighth of a pixel: GeoJSON has seven decimals of a degree, which is a centimetre, and a
point that ``geosam prompts`` wrote has to come back as the very same number."""


def read_given(options: PromptOptions, scene: Scene) -> GivenPrompts:
    """The prompts of a person's files that lie in a scene.

    Args:
        options: ``points_file``, ``boxes_file`` and ``mask_file`` are read; None: none of that kind.
        scene: At the resolution it is run at.

    Raises:
        OptionsError: A file cannot be read or placed, a label is unknown, or all prompts lie outside the scene.
    """
    reading = _Reading(scene)
    points = _Points() if options.points_file is None else reading.points(options.points_file)
    boxes = _Boxes() if options.boxes_file is None else reading.boxes(options.boxes_file)
    mask = None if options.mask_file is None else reading.mask(options.mask_file)
    bodies = _numbered([*points.bodies, *boxes.bodies])
    count = len(points.bodies)
    found = GivenPrompts(
        points.xy, points.labels, bodies[:count], points.tiles, boxes.xyxy, bodies[count:], mask,
        reading.facts, tuple(reading.warnings),
    )  # fmt: skip
    if not found.kinds():
        raise OptionsError(
            f"no prompt lies in {scene.source}. {' '.join(found.warnings)} {extent_of(scene)} "
            f"Check the file's CRS, and whether x and y are swapped.{_of_tables(options)}"
        )
    return found


def _of_tables(options: PromptOptions) -> str:
    """What else may be wrong of a table."""
    tables = [path for path in (options.points_file, options.boxes_file) if path and is_table(path)]
    told = "columns called lon and lat are degrees, x and y are in the CRS of the scene or of a .prj beside the table"
    return f" Of {tables[0]}: {told}." if tables else ""


@dataclass
class _Points:
    xy: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    tiles: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    bodies: list[Hashable | None] = field(default_factory=list)


@dataclass
class _Boxes:
    xyxy: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    bodies: list[Hashable | None] = field(default_factory=list)


@dataclass
class _Reading:
    """Reads file after file, and notes what lies outside."""

    scene: Scene
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def points(self, path: str) -> _Points:
        """Points with their labels; a body is named within a tile where the file names tiles."""
        layer = read_layer("--points", path, POINTS, self.scene)
        labels, tiles = labels_of(layer), _tiles(layer.column("tile"), len(layer.shapes))
        bodies = _names(layer.column("body"), tiles)
        xy = shapely.get_coordinates(layer.shapes)
        size = np.array(self.scene.shape[::-1], np.float64)
        inside = ((xy >= 0) & (xy < size)).all(axis=1)
        snapped = np.round(xy * SNAP) / SNAP
        self._note("points", path, layer.outside(inside, "points", self.scene.source))
        self.facts["points"] |= {"water": int((labels == WATER).sum()), "dry": int((labels == DRY).sum())}
        self.facts["points"]["outside"] = int((~inside).sum())
        xy = np.where(snapped < size, snapped, xy)
        kept = [body for body, here in zip(bodies, inside, strict=True) if here]
        return _Points(xy[inside], labels[inside], tiles[inside], kept)

    def boxes(self, path: str) -> _Boxes:
        """Bounds of polygons along the pixel grid, cut at the scene's edges."""
        layer = read_layer("--boxes", path, POLYGONS, self.scene)
        height, width = self.scene.shape
        bounds = shapely.bounds(layer.shapes)
        cut = bounds.clip(0, (width, height, width, height))
        inside = np.isfinite(bounds).all(axis=1) & (cut[:, 2:] > cut[:, :2]).all(axis=1)
        self._note("boxes", path, layer.outside(inside, "boxes", self.scene.source))
        self.facts["boxes"] |= {"given": len(inside), "outside": int((~inside).sum())}
        bodies = _names(layer.column("body"), np.full(len(inside), NOBODY))
        return _Boxes(cut[inside], [body for body, here in zip(bodies, inside, strict=True) if here])

    def mask(self, path: str) -> GivenMask | None:
        """A dense prompt; None if all of it lies outside."""
        mask, outside = open_mask(path, self.scene)
        self._note("mask", path, outside)
        return mask

    def _note(self, kind: str, path: str, outside: str | None) -> None:
        self.facts[kind] = {"file": path}
        if outside is not None:
            self.warnings.append(outside)


def _tiles(values: Sequence[Any] | None, count: int) -> NDArray[np.int64]:
    """Tile indices; what is no whole number is none."""
    texts = [""] * count if values is None else [plain(value) for value in values]
    return np.array([int(text) if text.isascii() and text.isdigit() else NOBODY for text in texts], np.int64)


def _names(values: Sequence[Any] | None, tiles: NDArray[np.int64]) -> list[Hashable | None]:
    """What each body is called, within the tile it names."""
    if values is None:
        return [None] * len(tiles)
    return [None if value is None else (int(tile), plain(value)) for value, tile in zip(values, tiles, strict=True)]


def _numbered(names: Sequence[Hashable | None]) -> NDArray[np.int64]:
    numbers: dict[Hashable, int] = {}
    return np.array([NOBODY if name is None else numbers.setdefault(name, len(numbers)) for name in names], np.int64)


def extent_of(scene: Scene) -> str:
    """A sentence on where a scene lies."""
    if not scene.has_crs:
        return f"It is {scene.shape[1]} x {scene.shape[0]} px."
    bounds, crs = ", ".join(f"{value:.8g}" for value in scene.geobox.boundingbox), scene.geobox.crs
    code = None if crs is None else crs.to_epsg()  # A segments file has the whole definition of it.
    return f"Its bounds in {'its own CRS' if code is None else f'EPSG:{code}'} are ({bounds})."

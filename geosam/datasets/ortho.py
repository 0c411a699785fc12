"""Orthoimages with polygons of water, cut into chips that are read by window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from affine import Affine
from rasterio.features import geometry_mask
from rasterio.windows import Window

from geosam.datasets.folder import check_all_labelled, read_index, shortened, split_and_group
from geosam.datasets.labels import DRY, IGNORE, WATER, UInt8, UnreadableError
from geosam.datasets.listing import Listing, stamps, weight_of
from geosam.datasets.options import DataOptions
from geosam.datasets.paired import MASK_FOLDERS
from geosam.datasets.pictures import RASTER_SUFFIXES
from geosam.datasets.polygons import VECTOR_SUFFIXES, holds_polygons, polygons_on
from geosam.datasets.splits import split_folders
from geosam.datasets.tile import Tile
from geosam.errors import DatasetError, GeosamError, RunError
from geosam.options import SceneOptions

if TYPE_CHECKING:
    from geosam.scene import Scene

Working = Callable[["Scene", SceneOptions], "Scene"]
"""The scene at the resolution that the options ask for, as a run of ``geosam segment`` brings it there."""

_LOOK_PX = 2048
"""Longer side of the look at an ortho that tells chips without any data."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """An ortho and the water on it, shared by its chips."""

    scene: Scene
    polygons: tuple[Any, ...]
    """shapely Polygons in pixels (col, row) of the scene's grid."""


@dataclass(frozen=True, eq=False)
class Chip:
    """A window of an ortho."""

    ortho: Labelled
    window: Window

    def read(self) -> tuple[UInt8, UInt8]:
        """The image, uint8 (h, w, 3), stretched as for ``geosam segment``, and its label; no data is ignored."""
        try:
            rgb, valid = self.ortho.scene.read_rgb(self.window)
        except RunError as error:
            raise UnreadableError(str(error)) from None
        label = np.where(self._water(valid.shape), np.uint8(WATER), np.uint8(DRY))
        label[~valid] = IGNORE
        if valid.any() and not valid.all():
            # The model is given the mean colour there in prediction too: black would be dark water.
            rgb[~valid] = np.rint(rgb[valid].mean(axis=0)).astype(np.uint8)
        return rgb, label

    def _water(self, shape: tuple[int, ...]) -> Any:
        """Pixels whose centre lies in a polygon, bool (h, w)."""
        left, top = self.window.col_off, self.window.row_off
        square = shapely.box(left, top, left + shape[1], top + shape[0])
        near = [polygon for polygon in self.ortho.polygons if polygon.intersects(square)]
        if not near:
            return np.zeros(shape, bool)
        return geometry_mask(near, shape, Affine.translation(left, top), invert=True)


@dataclass(frozen=True)
class OrthoFile:
    """An ortho and its labels, as files."""

    raster: Path
    vector: Path | None
    split: str = ""


def has_orthos(path: Path, options: DataOptions) -> bool:
    """Whether there are orthoimages with vector labels."""
    return any(ortho.vector is not None for ortho in find_orthos(path, options))


def find_orthos(path: Path, options: DataOptions) -> list[OrthoFile]:
    """Rasters in a file, a folder, its ``images/`` or its subfolders a split, each with the vector file of its stem."""
    if path.is_file():
        rasters = [(path, "")] if path.suffix.lower() in RASTER_SUFFIXES else []
    else:
        places = [("", path), ("", path / options.images)]
        places += [(split, at / sub) for split, at in split_folders(path).items() for sub in ("", options.images)]
        rasters = [(file, split) for split, at in places for file in _rasters(at)]
    in_folder = cache(_vectors)  # One look a folder, however many rasters it has.
    return [OrthoFile(file, _vector_of(file, options, in_folder), split) for file, split in rasters]


def list_orthos(path: Path, options: DataOptions, working: Working | None = None) -> Listing:
    """Chips of one ortho or of a folder of them; an ortho is a group, and of a single one an end is for validation.

    Args:
        path: The ortho or the folder.
        options: How to cut them.
        working: Brings an ortho to the resolution that ``options.gsd`` asks for; None: they are read as they are.

    Raises:
        DatasetError: An ortho or its labels cannot be read, labels are missing or lie elsewhere.
    """
    files = find_orthos(path, options)
    check_all_labelled([file.raster.name for file in files if file.vector is None], len(files), "as a vector file")
    root = path if path.is_dir() else path.parent
    index = read_index(root / "index.csv")
    tiles: list[Tile] = []
    warnings: list[str] = []
    water = 0
    grids = []
    for file in files:
        ortho = _open(file, options, working)
        grids.append(f"{file.raster.stem} {ortho.scene.shape}")
        water += len(ortho.polygons)
        warnings += ortho.scene.warnings
        tiles += _chips(ortho, file, index.get(file.raster.stem, {}), options)
    vectors = sorted({file.vector for file in files if file.vector is not None})
    if water == 0 and any(holds_polygons(vector) for vector in vectors):
        raise DatasetError(
            f"The polygons of {shortened(map(str, vectors))} lie outside the orthoimages. Check the CRS."
        )
    if len(files) == 1 and options.group_by != "name" and not any(tile.split for tile in tiles):
        tiles = _ends_apart(tiles, options)
    sources = [*(file.raster for file in files), *vectors, root / "index.csv"]
    return Listing(tiles, [*stamps(sources, root), *grids], warnings)


def _rasters(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in RASTER_SUFFIXES)


def _vector_of(raster: Path, options: DataOptions, in_folder: Callable[[Path], dict[str, Path]]) -> Path | None:
    """The vector file with the labels of a raster: the one for all, or one of its stem nearby."""
    if options.labels is not None:
        given = Path(options.labels).expanduser()
        if not given.exists():
            raise DatasetError(f"{given} does not exist. Give --labels a vector file, or a folder of them.")
        if given.is_file():
            return given
        return in_folder(given).get(raster.stem)
    beside = [raster.parent / name for name in MASK_FOLDERS] + [raster.parent.parent / name for name in MASK_FOLDERS]
    found = (in_folder(folder).get(raster.stem) for folder in (raster.parent, *beside))
    return next((path for path in found if path is not None), None)


def _vectors(folder: Path) -> dict[str, Path]:
    """Vector files of a folder by their stems."""
    if not folder.is_dir():
        return {}
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in VECTOR_SUFFIXES}


def _open(file: OrthoFile, options: DataOptions, working: Working | None) -> Labelled:
    from geosam.scene import Scene

    assert file.vector is not None
    scene_options = SceneOptions(gsd=options.gsd, bands=_roles(options))
    try:
        opened = Scene.open(file.raster, scene_options)
        scene = opened if working is None else working(opened, scene_options)
    except GeosamError as error:
        raise DatasetError(str(error)) from None
    return Labelled(scene, polygons_on(scene.geobox, file.vector))


def _roles(options: DataOptions) -> str | None:
    """Bands as :class:`SceneOptions` names them."""
    if options.bands is None:
        return None
    return ",".join(f"{role}={band}" for role, band in zip(("red", "green", "blue"), options.bands, strict=True))


def _chips(ortho: Labelled, file: OrthoFile, row: dict[str, str], options: DataOptions) -> list[Tile]:
    name = file.raster.stem
    split, group = split_and_group(row)
    weight = weight_of(row, f"index.csv, {name}")
    gsd = ortho.scene.gsd_m if math.isfinite(ortho.scene.gsd_m) else None
    windows = _with_data(ortho.scene, list(_windows(ortho.scene.shape, options)))
    return [
        Tile(
            f"{name}_{window.row_off}_{window.col_off}", Chip(ortho, window), group or name, file.split or split,
            weight, row, gsd,
        )
        for window in windows
    ]  # fmt: skip


def _windows(shape: tuple[int, int], options: DataOptions) -> Iterator[Window]:
    left, right = (round(share * shape[1]) for share in options.columns)
    height, width = (min(length, options.chip_px) for length in (shape[0], right - left))
    for row in _starts(shape[0], options):
        for col in _starts(right - left, options):
            yield Window(left + col, row, width, height)


def _starts(length: int, options: DataOptions) -> list[int]:
    """Where chips begin; the last one lies flush with the border, since padding would be a bank."""
    last = max(length - options.chip_px, 0)
    stride = options.chip_px if options.stride_px is None else options.stride_px
    return [*range(0, last, stride), last]


def _with_data(scene: Scene, windows: list[Window]) -> list[Window]:
    """Leave out windows without any data, by a decimated look."""
    if scene.valid_fraction == 1:
        return windows
    look = scene.decimated(_LOOK_PX)
    try:
        valid = look.read_valid(Window(0, 0, look.shape[1], look.shape[0]))
    except RunError as error:
        raise DatasetError(str(error)) from None
    down, across = look.shape[0] / scene.shape[0], look.shape[1] / scene.shape[1]

    def part(start: int, length: int, scale: float) -> slice:
        return slice(math.floor(start * scale), math.ceil((start + length) * scale))

    return [
        window
        for window in windows
        if valid[part(window.row_off, window.height, down), part(window.col_off, window.width, across)].any()
    ]


def _ends_apart(tiles: list[Tile], options: DataOptions) -> list[Tile]:
    """Chips of one ortho: one end of its longer side is for validation, and chips across the cut are left out.

    Chips drawn at random would lie between training chips of the same river and look the same.
    """
    places = [tile.source.window for tile in tiles if isinstance(tile.source, Chip)]
    spans = [(w.row_off, w.row_off + w.height) for w in places], [(w.col_off, w.col_off + w.width) for w in places]
    along = max(spans, key=lambda span: max(end for _, end in span) - min(start for start, _ in span))
    if np.random.default_rng(options.seed).integers(2):
        along = [(-end, -start) for start, end in along]
    order = sorted({start for start, _ in along})
    if len(order) < 2:
        return tiles
    count = min(max(round(options.validation * len(order)), 1), len(order) - 1)
    cut = order[-count]
    train = [replace(t, split="train", group="") for t, (_, end) in zip(tiles, along, strict=True) if end <= cut]
    held = [replace(t, split="validation", group="") for t, (at, _) in zip(tiles, along, strict=True) if at >= cut]
    return [*train, *held] if train else tiles

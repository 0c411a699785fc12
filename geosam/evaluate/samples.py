"""Labelled images to score a model on, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from geosam.datasets import DRY, IGNORE, WATER, DataOptions, Pair, Tile, load_folder, open_labelled
from geosam.datasets.folder import pictures, read_index, split_and_group
from geosam.datasets.splits import evenly, split_of
from geosam.errors import DatasetError, OptionsError
from geosam.options import first_fault, read_toml
from geosam.pipeline import at_working_gsd

SYNTH = "synth"
"""Name of the data set that is made on the fly."""
EVERYTHING = "all"
"""Name of all splits together."""
Item = Pair | Tile | int
"""What there is, unread: a pair of files, a tile of another kind of data, or a seed."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One labelled image."""

    name: str
    group: str
    rgb: NDArray[np.uint8]
    """Shape (h, w, 3)."""
    label: NDArray[np.uint8]
    """Shape (h, w): 255 water, 0 dry, 128 not known."""
    gsd_m: float | None
    """Metres a pixel; None where nobody knows."""

    @property
    def water(self) -> NDArray[np.bool_]:
        """True where the label says water."""
        return np.equal(self.label, WATER)

    @property
    def known(self) -> NDArray[np.bool_]:
        """True where the label says anything."""
        return np.not_equal(self.label, IGNORE)


class DataSet(BaseModel):
    """Labelled images, or a part of them: a folder of pairs, or anything else that ``geosam.datasets`` opens.

    Of a folder of pairs every image is taken, of other data the test split or else the validation split, unless
    ``splits`` says otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str
    """Folder with images and masks, or another source of labelled tiles, or ``synth``: tiles made on the fly."""
    name: str = ""
    """What it is called in a table; empty: as its folder."""
    images: str = "images"
    masks: str = "masks"
    splits: tuple[str, ...] | None = None
    """Splits as the index of a folder calls them; of other data, and of a folder whose index has none, train,
    validation and test as tuning makes them, or ``all``."""
    groups: tuple[str, ...] | None = None
    names: str = "*"
    image_suffix: str = ""
    """What the stems of the images have after those of their labels, such as ``_rgb``."""
    columns: tuple[float, float] = (0.0, 1.0)
    bands: tuple[int, int, int] | None = None
    """Bands of a raster that stand for red, green and blue, from 1; None: the first three."""
    gsd_m: float | None = Field(default=None, gt=0)
    """Metres a pixel; None: as a GeoTIFF says, else unknown."""
    negatives: bool | None = None
    """Whether the images of ``negatives/`` belong to it; None: unless a split or group is chosen, which they lack."""
    data: DataOptions = DataOptions()
    """How other data than pairs are understood, and what the values of labels mean."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many images, evenly spread over the list."""
    seeds: tuple[int, int] = (9_000_000, 9_000_024)
    """Of ``synth``: the first seed, and the one after the last."""
    side: int = 512
    """Of ``synth``: side of a tile, pixels."""
    gsds_m: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.6, 1.2)
    """Of ``synth``: metres a pixel, in turn."""

    @property
    def title(self) -> str:
        """Its name in a table."""
        return self.name or Path(self.folder).name

    def open(self, root: str | Path | None = None, warn: Callable[[str], object] | None = None) -> Sequence[Item]:
        """What there is, unread.

        Args:
            root: Folder under which the data lie; None: where ``folder`` says, which may be a hub id then.
            warn: Told what the user should know of the data, a line each.

        Raises:
            DatasetError: The folder or its labels are missing, or nothing is left.
        """
        if self.folder == SYNTH:
            return evenly(range(*self.seeds), self.limit)
        folder = Path(self.folder) if root is None else Path(root) / self.folder
        masks = self._masks(folder)
        if masks is None or self._splits_are_made(folder):
            return evenly(self._tiles(self.folder if root is None else folder, warn), self.limit)
        splits = self._splits_as_named(folder)
        negatives = self.negatives if self.negatives is not None else splits is None and self.groups is None
        if self.image_suffix:
            return evenly(self._by_suffix(folder, masks), self.limit)
        pairs = load_folder(
            folder, images=self.images, masks=masks, splits=splits, groups=self.groups,
            names=self.names, columns=self.columns, negatives=negatives,
        )  # fmt: skip
        return evenly([self._meant(pair) for pair in pairs], self.limit)

    def _splits_as_named(self, folder: Path) -> tuple[str, ...] | None:
        """The splits asked for as the index calls them, which may say val for validation; None: all of them."""
        if self.splits is None or EVERYTHING in self.splits:
            return None
        there = {split_and_group(row)[0] for row in read_index(folder / "index.csv").values()}
        named: list[str] = []
        for asked in self.splits:
            alike = [
                split for split in sorted(there) if split_of(split) is not None and split_of(split) == split_of(asked)
            ]
            named += [asked] if asked in there else alike or [asked]
        return tuple(named)

    def _splits_are_made(self, folder: Path) -> bool:
        """Whether splits are asked for that nobody wrote down, or new ones: then they are made as for tuning."""
        if self.data.resplit:
            return True
        rows = read_index(folder / "index.csv").values()
        return self.splits is not None and not any(split_and_group(row)[0] for row in rows)

    def _meant(self, pair: Pair) -> Pair:
        """A pair whose label's values mean what the options say."""
        return replace(pair, water_ids=self.data.water_ids, ignore_value=self.data.ignore_value, bands=self.bands)

    def _masks(self, folder: Path) -> str | None:
        """The subfolder with the labels of a folder of pairs; None where the data are laid out otherwise."""
        names = (self.masks, "labels") if self.masks == "masks" else (self.masks,)
        if not (folder / self.images).is_dir():
            return None
        return next((name for name in names if (folder / name).is_dir() and any(pictures(folder / name))), None)

    def _tiles(self, source: str | Path, warn: Callable[[str], object] | None) -> list[Tile]:
        """The tiles of other data than a folder of pairs."""
        data = open_labelled(source, self.data.model_copy(update=self._taken()), at_working_gsd)
        usual = "test" if data.splits.get("test") else "validation"
        splits = [split_of(name) or name for name in self.splits or (usual,)]
        tiles = [
            tile
            for split, found in data.splits.items()
            for tile in found
            if (split in splits or EVERYTHING in splits) and fnmatch(tile.name, self.names)
        ]
        tiles = [tile for tile in tiles if self.groups is None or tile.group in self.groups]
        if not tiles:
            raise DatasetError(
                f"{data.describe()}; no labelled tile is left of split {', '.join(splits)}, groups {self.groups} and "
                f"names {self.names!r}. Choose with --split, or take --split {EVERYTHING}."
            )
        for line in (*data.warnings, f"{data.describe()}; taken: {len(tiles)} of {', '.join(splits)}"):
            if warn is not None:
                warn(line)
        return tiles

    def _taken(self) -> dict[str, Any]:
        """What :class:`DataOptions` calls what is taken of other data than pairs."""
        given = {"images": self.images, "masks": None if self.masks == "masks" else self.masks}
        given |= {"image_suffix": self.image_suffix} if self.image_suffix else {}
        return {**given, "columns": self.columns, "bands": self.bands}

    def _by_suffix(self, folder: Path, masks: str) -> list[Pair]:
        """Labels and the images named after them."""
        end = self.image_suffix.lstrip("*").partition(".")[0]  # "*_rgb.png" means the same as "_rgb".
        images = {path.stem: path for path in (folder / self.images).glob(f"*{end}.*")}
        labels = sorted(path for path in (folder / masks).iterdir() if fnmatch(path.stem, self.names))
        pairs = [
            self._meant(Pair(images[path.stem + end], path, path.stem, columns=self.columns))
            for path in labels
            if path.stem + end in images
        ]
        if not pairs:
            raise DatasetError(f"{folder / self.images} has no image named as a label and {self.image_suffix!r}.")
        return pairs

    def read(self, item: Item) -> Sample:
        """One of what :meth:`open` listed.

        Raises:
            DatasetError: A file cannot be read or does not fit.
        """
        if isinstance(item, int):
            return self._made(item)
        if isinstance(item, Tile):
            rgb, label = item.read()
            own = _own_gsd(item.source.image) if isinstance(item.source, Pair) else item.gsd_m
            return Sample(item.name, item.group, rgb, label, self.gsd_m or own)
        rgb, label = item.read()
        return Sample(item.name, item.group, rgb, label, self.gsd_m or _own_gsd(item.image))

    def _made(self, seed: int) -> Sample:
        from geosam.synth import make_tile

        gsd = self.gsds_m[seed % len(self.gsds_m)]
        tile = make_tile(seed, self.side, gsd)
        label = np.where(tile.water, np.uint8(WATER), np.uint8(DRY))
        return Sample(f"synth_{seed}", f"{gsd:g} m", tile.rgb, label, gsd)


def load_list(path: str | Path) -> list[DataSet]:
    """Data sets from a TOML file with tables ``[[set]]``; their folders are under a common root.

    Raises:
        OptionsError: The file is missing, or a key is unknown or ill-typed.
    """
    values: Any = read_toml(path).get("set", [])
    try:
        return [DataSet.model_validate(table) for table in values]
    except ValidationError as error:
        raise OptionsError(f"{path}: {first_fault(error)}") from None


def read_all(dataset: DataSet, items: Sequence[Item]) -> Iterator[Sample]:
    """Every image, read when asked for."""
    return (dataset.read(item) for item in items)


def _own_gsd(path: Path) -> float | None:
    """Metres a pixel of a GeoTIFF, else None."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    from odc.geo.geobox import GeoBox

    from geosam.scene.grid import pixel_size_m

    with rasterio.open(path) as source:
        if source.crs is None:
            return None
        return float(np.sqrt(np.prod(pixel_size_m(GeoBox(source.shape, source.transform, source.crs)))))

"""Labelled images to score a model on, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rasterio.errors import RasterioError

from geosam.datasets import DRY, IGNORE, WATER, Pair, load_folder
from geosam.errors import DatasetError, OptionsError
from geosam.options import first_fault, read_toml

SYNTH = "synth"
"""Name of the data set that is made on the fly."""


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
    """A folder of labelled images, or a part of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str
    """Folder with images and masks, or ``synth``: tiles made on the fly."""
    name: str = ""
    """What it is called in a table; empty: as its folder."""
    images: str = "images"
    masks: str = "masks"
    splits: tuple[str, ...] | None = None
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

    def open(self, root: str | Path | None = None) -> Sequence[Pair | int]:
        """What there is, unread: pairs of files, or seeds.

        Raises:
            DatasetError: The folder or its labels are missing, or nothing is left.
        """
        if self.folder == SYNTH:
            return _spread(range(*self.seeds), self.limit)
        folder = Path(self.folder) if root is None else Path(root) / self.folder
        if not folder.is_dir():
            raise DatasetError(
                f"{folder} does not exist. Give --dataset a folder with {self.images}/ and {self.masks}/."
            )
        if not (folder / self.masks).is_dir():
            raise DatasetError(f"{folder} has no labels: {self.masks}/ is missing. Name its subfolder with --masks.")
        negatives = self.negatives if self.negatives is not None else self.splits is None and self.groups is None
        if self.image_suffix:
            return _spread(self._by_suffix(folder), self.limit)
        pairs = load_folder(
            folder, images=self.images, masks=self.masks, splits=self.splits, groups=self.groups,
            names=self.names, columns=self.columns, negatives=negatives,
        )  # fmt: skip
        return _spread(pairs, self.limit)

    def _by_suffix(self, folder: Path) -> list[Pair]:
        """Labels and the images named after them."""
        images = {path.stem: path for path in (folder / self.images).glob(f"*{self.image_suffix}.*")}
        labels = sorted(path for path in (folder / self.masks).iterdir() if fnmatch(path.stem, self.names))
        pairs = [
            Pair(images[path.stem + self.image_suffix], path, path.stem, columns=self.columns)
            for path in labels
            if path.stem + self.image_suffix in images
        ]
        if not pairs:
            raise DatasetError(f"{folder / self.images} has no image named as a label and {self.image_suffix!r}.")
        return pairs

    def read(self, item: Pair | int) -> Sample:
        """One of what :meth:`open` listed.

        Raises:
            DatasetError: A file cannot be read or does not fit.
        """
        if isinstance(item, int):
            return self._made(item)
        if item.image.suffix.lower() in (".tif", ".tiff"):
            _check_raster(item.image, self.bands)
        rgb, label = item.read()
        if self.bands is not None:
            rgb = _bands(item, self.bands)
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


def read_all(dataset: DataSet, items: Sequence[Pair | int]) -> Iterator[Sample]:
    """Every image, read when asked for."""
    return (dataset.read(item) for item in items)


def _spread(items: Sequence[Any], limit: int | None) -> Sequence[Any]:
    if limit is None or len(items) <= limit:
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


def _check_raster(path: Path, bands: tuple[int, int, int] | None) -> None:
    try:
        with rasterio.open(path) as source:
            count, dtype = source.count, source.dtypes[0]
    except RasterioError as error:
        raise DatasetError(f"{path} cannot be read as an image: {error}") from None
    if count < max(bands or (1, 2, 3)):
        raise DatasetError(f"{path} has {count} bands. Say which are red, green and blue with --image-bands.")
    if dtype != "uint8":
        raise DatasetError(f"{path} is {dtype}. Give 8-bit images.")


def _bands(pair: Pair, bands: tuple[int, int, int]) -> NDArray[np.uint8]:
    with rasterio.open(pair.image) as source:
        values = source.read(list(bands))
    first, last = (round(share * values.shape[2]) for share in pair.columns)
    return np.ascontiguousarray(values[:, :, first:last].transpose(1, 2, 0))


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

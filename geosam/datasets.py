"""Labelled tiles: pairs of an image and a water mask, from folders.

A folder holds ``images/`` and ``masks/`` with equal stems, optionally ``negatives/`` (images
without any water) and an ``index.csv`` (file, group, split or proposed_split, tier, weight).
Masks are 255 water, 0 dry, 128 ignore.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image

from geosam.errors import DatasetError

WATER, DRY, IGNORE = 255, 0, 128
"""Values of a label raster."""

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
_RASTER_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class Pair:
    """One labelled tile, read when asked for.

    Attributes:
        image: File of an 8-bit RGB image.
        mask: File of the label raster, or None for an image without any water.
        name: Stem of the image.
        group: Place or date, for splits that keep neighbours together; empty if unknown.
        split: "train", "dev", ... as the index has it; empty if unknown.
        columns: Share of the width that is used, from 0 (left) to 1 (right).
        facts: The other columns of the index.
    """

    image: Path
    mask: Path | None
    name: str
    group: str = ""
    split: str = ""
    columns: tuple[float, float] = (0.0, 1.0)
    facts: Mapping[str, str] = field(default_factory=dict)

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The image, uint8 (h, w, 3), and its label, uint8 (h, w) of 255, 0 and 128.

        Raises:
            DatasetError: A file cannot be read, the sizes differ, or the label has another value.
        """
        image = _read_rgb(self.image)
        label = np.zeros(image.shape[:2], np.uint8) if self.mask is None else _read_label(self.mask)
        if label.shape != image.shape[:2]:
            raise DatasetError(
                f"{self.mask} is {label.shape[1]} x {label.shape[0]} px and its image {image.shape[1]} x "
                f"{image.shape[0]} px. Give labels on the image's own grid."
            )
        first, last = (round(share * image.shape[1]) for share in self.columns)
        return image[:, first:last], label[:, first:last]


def load_folder(
    folder: Path,
    *,
    images: str = "images",
    masks: str = "masks",
    splits: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    except_groups: Sequence[str] = (),
    names: str = "*",
    columns: tuple[float, float] = (0.0, 1.0),
    negatives: bool = True,
) -> list[Pair]:
    """List the labelled tiles of a folder, in the order of their names.

    Args:
        folder: Holds the subfolders and, optionally, ``index.csv``.
        images: Subfolder of the images.
        masks: Subfolder of the labels.
        splits: Keep only these splits of the index.
        groups: Keep only these groups of the index.
        except_groups: Leave out these groups of the index.
        names: Keep only images whose stem fits this pattern (``fnmatch``), such as ``t[1-6]_*``.
        columns: Share of each image's width to use.
        negatives: Take the images of ``negatives/`` as dry; they belong to no group or split.

    Raises:
        DatasetError: The folder or its images are missing, or an image has no label.
    """
    if not (folder / images).is_dir():
        raise DatasetError(f"{folder} has no subfolder {images}/. Give a folder with {images}/ and {masks}/.")
    index = _read_index(folder / "index.csv")
    pairs = list(_labelled(folder, images, masks, index, columns))
    pairs = [pair for pair in pairs if fnmatch(pair.name, names) and pair.group not in except_groups]
    pairs = [pair for pair in pairs if splits is None or pair.split in splits]
    pairs = [pair for pair in pairs if groups is None or pair.group in groups]
    if negatives and (folder / "negatives").is_dir():
        pairs += [Pair(path, None, path.stem) for path in _pictures(folder / "negatives")]
    if not pairs:
        raise DatasetError(
            f"{folder} has no labelled tile left with splits {splits}, groups {groups} and names {names!r}."
        )
    return pairs


def _labelled(
    folder: Path, images: str, masks: str, index: dict[str, dict[str, str]], columns: tuple[float, float]
) -> Iterator[Pair]:
    labels = {path.stem: path for path in _pictures(folder / masks)}
    for path in _pictures(folder / images):
        if path.stem not in labels:
            raise DatasetError(f"{path} has no label of the same stem in {folder / masks}.")
        row = index.get(path.stem, {})
        split = row.get("split") or row.get("proposed_split", "")
        group = row.get("group") or row.get("flight", "")
        yield Pair(path, labels[path.stem], path.stem, group, split, columns, row)


def _read_index(path: Path) -> dict[str, dict[str, str]]:
    """Rows of an index by the stem of the file they speak of."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    key = "file" if rows and "file" in rows[0] else "image"
    return {Path(row[key]).stem: row for row in rows}


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES)


def _read_rgb(path: Path) -> NDArray[np.uint8]:
    try:
        if path.suffix.lower() in _RASTER_SUFFIXES:
            with rasterio.open(path) as source:
                if set(source.dtypes[:3]) != {"uint8"}:
                    raise DatasetError(f"{path} has {source.dtypes[0]} bands; expected 8-bit RGB. Stretch it first.")
                return np.ascontiguousarray(source.read([1, 2, 3]).transpose(1, 2, 0), dtype=np.uint8)
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read as an RGB image: {error}") from None


def _read_label(path: Path) -> NDArray[np.uint8]:
    if path.suffix.lower() in _RASTER_SUFFIXES:
        with rasterio.open(path) as source:
            label = source.read(1)
    else:
        with Image.open(path) as picture:
            label = np.asarray(picture.convert("L"))
    values = np.unique(label)
    if values.max(initial=0) == 1:
        return np.where(label == 1, np.uint8(WATER), np.uint8(DRY))
    if not np.isin(values, (WATER, DRY, IGNORE)).all():
        raise DatasetError(f"{path} has label values {values[:6].tolist()}; expected 255 water, 0 dry, 128 ignore.")
    return np.asarray(label, np.uint8)

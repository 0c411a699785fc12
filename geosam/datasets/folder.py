"""Pairs of an image and a label from one folder, and the index beside them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from geosam.datasets.labels import UInt8
from geosam.datasets.pictures import IMAGE_SUFFIXES, Picture, read_label, read_rgb
from geosam.datasets.tile import across, check_sizes
from geosam.errors import DatasetError

_SHOWN = 5
"""Names that a message lists."""


@dataclass(frozen=True)
class Pair:
    """One labelled tile, read when asked for.

    Attributes:
        image: File of an RGB or grey image.
        mask: File of the label raster, or None for an image without any water.
        name: Stem of the image.
        group: Place or date, for splits that keep neighbours together; empty if unknown.
        split: "train", "dev", ... as the index has it; empty if unknown.
        columns: Share of the width that is used, from 0 (left) to 1 (right).
        facts: The other columns of the index.
        water_ids: Class ids of water; none: the label is 255 and 0, or 1 and 0.
        ignore_value: Label value that says nothing of the pixel.
        bands: Bands that stand for red, green and blue, from 1; None: the first three.
    """

    image: Path
    mask: Path | None
    name: str
    group: str = ""
    split: str = ""
    columns: tuple[float, float] = (0.0, 1.0)
    facts: Mapping[str, str] = field(default_factory=dict)
    water_ids: tuple[int, ...] = ()
    ignore_value: int | None = None
    bands: tuple[int, int, int] | None = None

    def read(self) -> tuple[UInt8, UInt8]:
        """The image, uint8 (h, w, 3), and its label, uint8 (h, w) of 255, 0 and 128.

        Raises:
            UnreadableError: A file is damaged or gone.
            DatasetError: The sizes differ, or the label has another value.
        """
        image = read_rgb(Picture(self.image), self.bands)
        if self.mask is None:
            label = np.zeros(image.shape[:2], np.uint8)
        else:
            label = read_label(Picture(self.mask), self.water_ids, self.ignore_value)
        check_sizes(image, label, str(self.mask))
        return across(image, self.columns), across(label, self.columns)


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
    index = read_index(folder / "index.csv")
    listed = list(_labelled(folder / images, folder / masks, index, columns))
    pairs = [pair for pair in listed if fnmatch(pair.name, names) and pair.group not in except_groups]
    pairs = [pair for pair in pairs if splits is None or pair.split in splits]
    pairs = [pair for pair in pairs if groups is None or pair.group in groups]
    if negatives:
        pairs += dry_pairs(folder / "negatives")
    if not pairs:
        split, group = (", ".join(wanted) if wanted else "any" for wanted in (splits, groups))
        there = [shortened(sorted({getattr(p, kind) for p in listed} - {""})) or "none" for kind in ("split", "group")]
        raise DatasetError(
            f"no labelled tile of {folder} is left of split {split}, group {group} and names {names!r}; there are "
            f"splits {there[0]} and groups {there[1]}."
        )
    return pairs


def dry_pairs(folder: Path) -> list[Pair]:
    """The images of a folder of images without any water; none where there is no such folder."""
    return [Pair(path, None, path.stem) for path in pictures(folder)] if folder.is_dir() else []


def read_index(path: Path) -> dict[str, dict[str, str]]:
    """Rows of an index by the stem of the file they speak of; none where there is no index.

    Raises:
        DatasetError: It has no column ``file`` or ``image``, or is no CSV.
    """
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read as CSV: {error}") from None
    if not rows:
        return {}
    key = "file" if "file" in rows[0] else "image"
    if key not in rows[0]:
        raise DatasetError(f"{path} has no column file; its columns are {', '.join(rows[0])}.")
    return {Path(row[key]).stem: _text(row) for row in rows}


def split_and_group(row: Mapping[str, str]) -> tuple[str, str]:
    """What a row of an index says of the split and the group; empty where it says nothing."""
    return row.get("split") or row.get("proposed_split", ""), row.get("group") or row.get("flight", "")


def pictures(folder: Path) -> list[Path]:
    """The images in a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def check_all_labelled(missing: Sequence[str], count: int, where: str) -> None:
    """Refuse images without labels, and name some.

    Raises:
        DatasetError: There are any.
    """
    if missing:
        raise DatasetError(
            f"{len(missing)} of {count} images have no label {where}: {shortened(missing)}. "
            "Label them or take them out; images without water belong in negatives/."
        )


def shortened(names: Iterable[str]) -> str:
    """The first few names, and whether there are more."""
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "")


def _text(row: Mapping[str, str | None]) -> dict[str, str]:
    """A row shorter than the header has None, and a longer one has what is over under the key None."""
    return {key: value or "" for key, value in row.items() if isinstance(key, str)}


def _labelled(
    images: Path, masks: Path, index: dict[str, dict[str, str]], columns: tuple[float, float]
) -> Iterator[Pair]:
    labels = {path.stem: path for path in pictures(masks)}
    found = pictures(images)
    check_all_labelled([path.name for path in found if path.stem not in labels], len(found), f"in {masks}")
    for path in found:
        row = index.get(path.stem, {})
        split, group = split_and_group(row)
        yield Pair(path, labels[path.stem], path.stem, group, split, columns, row)

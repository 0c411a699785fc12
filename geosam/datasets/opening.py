"""From a name or a path to labelled tiles in splits: what lies there is told apart here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from geosam.datasets.listing import Listing
from geosam.datasets.options import DataOptions
from geosam.datasets.ortho import Working, has_orthos, list_orthos
from geosam.datasets.paired import list_cityscapes, list_paired, list_suffixed, masks_folder
from geosam.datasets.splits import split_folders, split_tiles
from geosam.datasets.table import has_parquet, is_image_folder, is_saved, list_hub, list_local
from geosam.datasets.tile import Tile
from geosam.errors import DatasetError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class LabelledData:
    """Labelled tiles in splits."""

    source: str
    """As given."""
    splits: Mapping[str, Sequence[Tile]]
    """Tiles by ``train`` and ``validation``, either of which may be empty, and ``test`` if there is one."""
    signature: str
    """sha256, hexadecimal, of the options and of names, sizes and times of the files, or of the hub's fingerprint.

    Other tiles, other labels or other splits have another one, so that it may name what is kept of them.
    """
    warnings: tuple[str, ...] = ()
    """What the user should know, a line each."""

    def describe(self) -> str:
        """One line: how many tiles each split has."""
        counts = ", ".join(f"{len(tiles)} {split}" for split, tiles in self.splits.items())
        groups = {tile.group for tiles in self.splits.values() for tile in tiles if tile.group}
        return f"{self.source}: {counts} tiles" + (f" of {len(groups)} groups" if groups else "")


def open_labelled(
    source: str | Path, options: DataOptions | None = None, working: Working | None = None
) -> LabelledData:
    """List labelled tiles, without reading them.

    Args:
        source: A folder with ``images/`` and ``masks/``, as they are or in a subfolder a split; a folder of files with
            suffixes (``image_suffix``, ``label_suffix``); the Cityscapes layout (``layout``); orthoimages and
            vector files; parquet, or a folder that ``save_to_disk`` wrote, or images with metadata; or the id of
            a data set on the Hugging Face hub, ``org/name``.
        options: What to take from it, and how.
        working: Brings orthoimages to the resolution that ``options.gsd`` asks for, such as
            :func:`geosam.pipeline.at_working_gsd`; None: they are read as they are.

    Returns:
        Tiles in splits. A missing validation split is drawn from the training tiles by ``options.seed``, in whole
        groups; tiles of a test split are never used for it.

    Raises:
        DatasetError: Nothing is there, or it cannot be used as it is.
    """
    options = DataOptions() if options is None else options
    listing = _listing(source, options, working)
    splits = split_tiles(listing.tiles, options)
    signature = hashlib.sha256("\n".join([options.model_dump_json(), *listing.stamps]).encode()).hexdigest()
    return LabelledData(str(source), splits.tiles, signature, (*listing.warnings, *splits.warnings))


def _listing(source: str | Path, options: DataOptions, working: Working | None) -> Listing:
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path, options, working)
    if path.is_file():
        return _file(path, options, working)
    if isinstance(source, str) and _HUB_ID.fullmatch(source):
        return list_hub(source, options)
    raise DatasetError(
        f"{source} does not exist. Give a folder, a parquet file, or the id of a data set on the hub, ORG/NAME."
    )


def _file(path: Path, options: DataOptions, working: Working | None) -> Listing:
    if has_parquet(path):
        return list_local(path, options)
    if has_orthos(path, options):
        return list_orthos(path, options, working)
    raise DatasetError(f"{path} is neither parquet nor an orthoimage with labels beside it or in --labels.")


def _folder(path: Path, options: DataOptions, working: Working | None) -> Listing:
    if options.layout == "cityscapes":
        return list_cityscapes(path, options)
    if options.image_suffix is not None or options.label_suffix is not None:
        return list_suffixed(path, options)
    if is_saved(path):
        return list_local(path, options)
    if has_orthos(path, options):
        return list_orthos(path, options, working)
    places = [place for place in (path, *split_folders(path).values()) if (place / options.images).is_dir()]
    if any(masks_folder(place, options) for place in places):
        return list_paired(path, options)
    if is_image_folder(path) or has_parquet(path):
        return list_local(path, options)
    if places:
        return list_paired(path, options)  # Which says what is missing.
    raise DatasetError(
        f"{path} has no labelled tiles: neither {options.images}/ with masks/ or labels/, nor parquet, a saved data "
        "set or orthoimages with vector files of the same stem. For other names give --images and --masks, or "
        "--image-suffix and --label-suffix."
    )

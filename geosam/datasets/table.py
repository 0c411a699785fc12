"""Labelled tiles in tables: the Hugging Face hub, parquet, ``save_to_disk`` and image folders with metadata."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geosam.datasets.folder import shortened, split_and_group
from geosam.datasets.labels import UInt8
from geosam.datasets.listing import Listing, depth_warning, stamps, weight_of
from geosam.datasets.options import DataOptions
from geosam.datasets.pictures import Picture, read_label, read_rgb
from geosam.datasets.tile import Tile, across, check_sizes
from geosam.errors import DatasetError

Tables = Mapping[str, Any]
"""``datasets.Dataset`` by split."""
_TABLE_FILES = {".parquet": "parquet", ".arrow": "arrow"}
_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_SAVED = ("dataset_dict.json", "state.json")


@dataclass(frozen=True, eq=False)
class Row:
    """A row of a table; the table stays on the disk."""

    table: Any
    """``datasets.Dataset`` with the image and the label still encoded, in this order."""
    number: int
    name: str
    water_ids: tuple[int, ...] = ()
    ignore_value: int | None = None
    bands: tuple[int, int, int] | None = None
    columns: tuple[float, float] = (0.0, 1.0)

    def read(self) -> tuple[UInt8, UInt8]:
        """The image, uint8 (h, w, 3), and its label, uint8 (h, w) of 255, 0 and 128."""
        values = self.table[self.number]
        image, label = (_picture(values[column], f"{column} of {self.name}") for column in self.table.column_names)
        rgb, water = read_rgb(image, self.bands), read_label(label, self.water_ids, self.ignore_value)
        check_sizes(rgb, water, self.name)
        return across(rgb, self.columns), across(water, self.columns)


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` of a Dataset or a DatasetDict wrote the folder."""
    return any((folder / name).is_file() for name in _SAVED)


def is_image_folder(folder: Path) -> bool:
    """Whether there is a table of metadata beside the images, or in a subfolder a split."""
    return any(next(folder.glob(f"{where}{name}"), None) is not None for name in _METADATA for where in ("", "*/"))


def has_parquet(path: Path) -> bool:
    """Whether this is a table, or a folder with tables."""
    if path.is_file():
        return path.suffix.lower() in _TABLE_FILES
    return next(path.rglob("*.parquet"), None) is not None


def list_hub(name: str, options: DataOptions) -> Listing:
    """Tiles of a data set on the hub, or of its copy in the cache.

    Raises:
        DatasetError: It is not there or cannot be reached, or it lacks a column.
    """
    import datasets

    with _one_line(f"The data set {name} cannot be had from the hub", _advice()), _quiet(bars=True):
        tables = _by_split(datasets.load_dataset(name, options.subset, revision=options.revision))
    prints = [f"{split} {len(table)} {table._fingerprint}" for split, table in tables.items()]
    return _listing(tables, name, options, prints)


def list_local(path: Path, options: DataOptions) -> Listing:
    """Tiles of a table in a file or a folder.

    Raises:
        DatasetError: It cannot be read, or it lacks a column.
    """
    with _one_line(f"{path} cannot be read as a data set", "Check that it is whole."), _quiet(bars=False):
        tables = _by_split(_loader(path)())
    files = [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]
    return _listing(tables, str(path), options, stamps(files, path if path.is_dir() else path.parent))


def _loader(path: Path) -> Callable[[], Any]:
    import datasets

    if path.is_file():
        return lambda: datasets.load_dataset(_TABLE_FILES[path.suffix.lower()], data_files=str(path))
    if is_saved(path):
        return lambda: datasets.load_from_disk(str(path))
    if is_image_folder(path):
        return lambda: datasets.load_dataset("imagefolder", data_dir=str(path))
    return lambda: datasets.load_dataset(str(path))


def _by_split(loaded: Any) -> Tables:
    import datasets

    return dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"": loaded}


def _listing(tables: Tables, where: str, options: DataOptions, prints: list[str]) -> Listing:
    tiles = [tile for split, table in tables.items() for tile in _tiles(split, table, where, options, len(tables) == 1)]
    if not tiles:
        raise DatasetError(f"{where} has no row. Give a data set with images and labels.")
    source = tiles[0].source
    assert isinstance(source, Row)
    image = source.table.column_names[0]
    first = _picture(source.table[0][image], f"{image} of {tiles[0].name}")
    return Listing(tiles, prints, depth_warning(first))


def _tiles(split: str, table: Any, where: str, options: DataOptions, alone: bool) -> Iterator[Tile]:
    image = _column(table, options.image_column, ("image",), "image", where)
    label = _column(table, options.label_column, ("label", "mask"), "label", where)
    encoded = _encoded(table, image, label, where)
    facts = _facts(table, where)
    names = _names(encoded, image, split, facts, options.name_column, where)
    _check_full(encoded, names, where)
    for number, name in enumerate(names):
        row = {key: values[number] for key, values in facts.items()}
        own, group = split_and_group(row)
        source = Row(encoded, number, name, options.water_ids, options.ignore_value, options.bands, options.columns)
        # A table of one split may tell its splits in a column, as an index does.
        yield Tile(name, source, group, (own or split) if alone else split, weight_of(row, name), row)


def _column(table: Any, asked: str | None, usual: tuple[str, ...], what: str, where: str) -> str:
    found = [name for name in ((asked,) if asked else usual) if name in table.column_names]
    if not found:
        raise DatasetError(
            f"{where} has no column {asked or what}; columns are {', '.join(table.column_names)}. "
            f"Give the one with the {what}s to --{what}-column."
        )
    return found[0]


def _encoded(table: Any, image: str, label: str, where: str) -> Any:
    """The two columns alone, as the bytes of their files: one damaged picture must not hide the others."""
    import datasets

    for column in (image, label):
        feature = table.features[column]
        if isinstance(feature, datasets.Image):
            table = table.cast_column(column, datasets.Image(decode=False))
        elif not (isinstance(feature, dict) and "bytes" in feature) and getattr(feature, "dtype", "") != "binary":
            raise DatasetError(
                f"{where}: column {column} holds {_kind(feature)}, no images. Columns are "
                f"{', '.join(table.column_names)}; choose with --image-column and --label-column."
            )
    return table.select_columns([image, label])


def _kind(feature: Any) -> str:
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return "class names"
    return str(getattr(feature, "dtype", type(feature).__name__))


def _facts(table: Any, where: str) -> dict[str, list[str]]:
    """Every column of plain values, as text."""
    import datasets

    plain = [
        name
        for name, feature in table.features.items()
        if isinstance(feature, datasets.Value | datasets.ClassLabel) and feature.dtype != "binary"
    ]
    with _one_line(f"{where} cannot be read as a data set", "Check that it is whole."):
        columns = table.select_columns(plain).to_dict() if plain else {}
    return {name: [_word(table.features[name], value) for value in values] for name, values in columns.items()}


def _word(feature: Any, value: Any) -> str:
    import datasets

    if value is None:
        return ""
    return str(feature.int2str(value)) if isinstance(feature, datasets.ClassLabel) and value >= 0 else str(value)


def _names(
    encoded: Any, image: str, split: str, facts: Mapping[str, list[str]], asked: str | None, where: str
) -> list[str]:
    if asked is not None and asked not in facts:
        raise DatasetError(
            f"{where} has no column {asked} of words or numbers; such columns are {', '.join(facts) or 'none'}. "
            "Give another to --name-column."
        )
    if (asked or "name") in facts:
        return facts[asked or "name"]
    paths = [Path(path).stem if path else "" for path in _paths(encoded, image)]
    if all(paths) and len(set(paths)) == len(paths) > 0:
        return paths
    return [f"{split or 'row'}_{number}" for number in range(len(encoded))]


def _paths(encoded: Any, image: str) -> list[str | None]:
    """Files that the images come from, without touching the bytes."""
    import pyarrow
    import pyarrow.compute

    column = encoded.data.column(image)
    if not pyarrow.types.is_struct(column.type) or column.type.get_field_index("path") < 0:
        return []
    found: list[str | None] = pyarrow.compute.struct_field(column, "path").to_pylist()
    return found


def _check_full(encoded: Any, names: list[str], where: str) -> None:
    for column, what in zip(encoded.column_names, ("image", "label"), strict=True):
        empty = encoded.data.column(column).is_null().to_pylist()
        missing = [name for name, gone in zip(names, empty, strict=True) if gone]
        if missing:
            raise DatasetError(
                f"{where}: {len(missing)} of {len(names)} rows have no {what}: {shortened(missing)}. "
                f"Fill column {column} or take them out; water-free tiles need a label of 0."
            )


def _picture(value: Any, name: str) -> Picture:
    if isinstance(value, bytes):
        return Picture(data=value, name=name)
    path = value.get("path")
    return Picture(Path(path) if path else None, value.get("bytes"), f"{name} ({path})" if path else name)


def _advice() -> str:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set, so it must be in the cache already; or give a folder that exists."
    return "Check the name and the connection and try again, or give a folder that exists."


@contextmanager
def _one_line(what: str, advice: str) -> Iterator[None]:
    """Any failure of the ``datasets`` library, a broken download among them, in one line."""
    try:
        yield
    except Exception as error:  # its own, pyarrow's, httpx', requests' and fsspec's have no common base
        raise DatasetError(f"{what} ({_reason(error)}). {advice}") from None


def _reason(error: BaseException) -> str:
    """First line of the innermost cause: the outer ones only say that something failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return (lines[0].rstrip(".: ") if lines else "") or type(error).__name__


@contextmanager
def _quiet(bars: bool) -> Iterator[None]:
    """No log lines of the libraries, whose failures come back as errors, and no progress bars where not wanted."""
    import datasets

    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    hidden = not bars and not datasets.are_progress_bars_disabled()
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        if hidden:
            datasets.disable_progress_bars()
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if hidden:
            datasets.enable_progress_bars()

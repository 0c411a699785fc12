"""Train, validation and test: as the data say, or made from a seed so that groups stay whole."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

import numpy as np

from geosam.datasets.folder import shortened
from geosam.datasets.options import DataOptions
from geosam.datasets.tile import Tile
from geosam.errors import DatasetError

Item = TypeVar("Item")
_IN_NAMES = "name:"
"""Before a regular expression that is looked for in the names."""
SPLIT_NAMES = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip
"""What others call the three splits."""


def split_of(name: str) -> str | None:
    """Our name of a split, or None for one that is none of the three."""
    return SPLIT_NAMES.get(name.strip().lower())


def split_folders(folder: Path) -> dict[str, Path]:
    """Subfolders that are named as a split, by our name of it."""
    found = [path for path in sorted(folder.iterdir()) if path.is_dir() and split_of(path.name)]
    return {split_of(path.name) or "": path for path in found}


@dataclass(frozen=True)
class Splits:
    """Tiles by split."""

    tiles: Mapping[str, Sequence[Tile]]
    """train and validation, and test if there is one."""
    warnings: tuple[str, ...]


def split_tiles(tiles: Sequence[Tile], options: DataOptions) -> Splits:
    """Sort tiles into splits, and split off a validation set where there is none.

    Tiles without a split belong to the training; those of a split that is none of the three are left out, and where
    ``group_by`` is given so are training tiles of a group that validation or test hold too. With ``resplit`` all three
    are made anew.

    Raises:
        DatasetError: ``group_by`` names no column of the data, or no tile is left of those that are wanted.
    """
    tiles, warnings = _known(_chosen(_grouped(_unsplit(tiles, options.resplit), options.group_by), options))
    parts: dict[str, list[Tile]] = {"train": [], "validation": [], "test": []}
    for tile in tiles:
        parts[tile.split].append(tile)
    if options.group_by is not None:
        parts["train"], left_out = _apart(parts)
        warnings += left_out
    share = options.validation * len(parts["train"])
    for split in ("test", "validation") if options.resplit else ("validation",):
        if parts["train"] and not parts[split]:
            parts["train"], parts[split], doubts = _split_off(parts["train"], split, share, options.seed)
            warnings += doubts
    if not parts["test"]:
        del parts["test"]
    return Splits(parts, (*warnings, *_shared_groups(parts)))


def _chosen(tiles: list[Tile], options: DataOptions) -> list[Tile]:
    """Those that names, groups and limit leave."""
    kept = [tile for tile in tiles if fnmatch(tile.name, options.names)]
    kept = [tile for tile in kept if not options.groups or tile.group in options.groups]
    if tiles and not kept:
        groups = sorted({tile.group for tile in tiles if tile.group})
        raise DatasetError(
            f"no tile is left of groups {', '.join(options.groups) or 'all'} and names {options.names!r}; there are "
            f"names such as {shortened(tile.name for tile in tiles)} and groups {shortened(groups) or 'none'}."
        )
    return list(evenly(kept, options.limit))


def evenly(items: Sequence[Item], limit: int | None) -> Sequence[Item]:
    """At most so many, evenly spread over the list."""
    if limit is None or len(items) <= limit:
        return items
    return [items[n * len(items) // limit] for n in range(limit)]


def _grouped(tiles: Sequence[Tile], column: str | None) -> list[Tile]:
    if column is None or column == "group":
        if column == "group" and not any(tile.group for tile in tiles):
            raise DatasetError("The data have no groups. Leave --group-by away, or name a column of the data.")
        return list(tiles)
    if column == "name":
        return [replace(tile, group="") for tile in tiles]
    if column.startswith(_IN_NAMES):
        return _by_name(tiles, column.removeprefix(_IN_NAMES))
    known = {key for tile in tiles for key in tile.facts}
    if column not in known:
        columns = ", ".join(sorted(known)) or "none"
        raise DatasetError(f"The data have no column {column}; columns are {columns}. Give another to --group-by.")
    return [replace(tile, group=tile.facts.get(column, "")) for tile in tiles]


def _by_name(tiles: Sequence[Tile], pattern: str) -> list[Tile]:
    """Groups are what a regular expression finds in the names: its first group, or all of it."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise DatasetError(f"--group-by {_IN_NAMES}{pattern} is no regular expression ({error}).") from None
    found = [expression.search(tile.name) for tile in tiles]
    if not any(found):
        names = shortened(tile.name for tile in tiles)
        raise DatasetError(f"--group-by {_IN_NAMES}{pattern} is in no name; names are such as {names}.")
    which = min(expression.groups, 1)
    return [replace(tile, group=one[which] or "" if one else "") for tile, one in zip(tiles, found, strict=True)]


def _apart(parts: Mapping[str, Sequence[Tile]]) -> tuple[list[Tile], tuple[str, ...]]:
    """Training tiles of groups that no other split has: of two splits that share one, training can spare it."""
    held = {tile.group for split in ("validation", "test") for tile in parts[split] if tile.group}
    kept = [tile for tile in parts["train"] if tile.group not in held]
    shared = sorted({tile.group for tile in parts["train"]} & held)
    if not shared:
        return kept, ()
    if not kept:
        raise DatasetError(
            f"every training tile is of a group that validation or test hold too: {shortened(shared)}. Give --group-by "
            "something finer, or leave it away."
        )
    count = len(parts["train"]) - len(kept)
    return kept, (
        f"{count} training tiles are left out, of groups that validation or test hold too: {shortened(shared)}",
    )


def _unsplit(tiles: Sequence[Tile], resplit: bool) -> Sequence[Tile]:
    """The tiles as if nobody had split them, if that is asked for."""
    return [replace(tile, split="") for tile in tiles] if resplit else tiles


def _known(tiles: Sequence[Tile]) -> tuple[list[Tile], tuple[str, ...]]:
    named = [(tile, split_of(tile.split) if tile.split else "train") for tile in tiles]
    other = Counter(tile.split for tile, split in named if split is None)
    kept = [tile if tile.split == split else replace(tile, split=split) for tile, split in named if split is not None]
    if not other:
        return kept, ()
    what = ", ".join(f"{name} ({count})" for name, count in other.items())
    return kept, (f"splits other than train, validation and test are left out: {what}",)


def _split_off(
    tiles: list[Tile], split: str, wanted: float, seed: int
) -> tuple[list[Tile], list[Tile], tuple[str, ...]]:
    """Training tiles and those of another split; whole groups, drawn until it has as near to ``wanted`` as it gets."""
    if len(tiles) < 2:
        return tiles, [], (f"there is only one tile, so none is left for {split}",)
    members = _members(tiles)
    doubts: tuple[str, ...] = ()
    if len(members) < 2:
        doubts = (f"all tiles are of the group {tiles[0].group}, so {split} tiles are neighbours of training tiles",)
        members = {str(number): [number] for number in range(len(tiles))}
    chosen = _drawn(members, wanted, np.random.default_rng(seed))
    train = [tile for number, tile in enumerate(tiles) if number not in chosen]
    return train, [replace(tile, split=split) for n, tile in enumerate(tiles) if n in chosen], doubts


def _members(tiles: Sequence[Tile]) -> dict[str, list[int]]:
    """Places in the list by group; a tile without group is one by itself."""
    members: dict[str, list[int]] = defaultdict(list)
    for number, tile in enumerate(tiles):
        members[f"group {tile.group}" if tile.group else f"tile {number} {tile.name}"].append(number)
    return dict(members)


def _drawn(members: Mapping[str, Sequence[int]], wanted: float, rng: np.random.Generator) -> set[int]:
    """Whole groups in random order, each only if it brings the number of tiles nearer to what is wanted."""
    keys = sorted(members)
    order = [keys[i] for i in rng.permutation(len(keys))]
    chosen: set[int] = set()
    taken = 0
    for key in order:
        more = len(chosen) + len(members[key])
        if taken < len(keys) - 1 and abs(more - wanted) < abs(len(chosen) - wanted):
            chosen.update(members[key])
            taken += 1
    # Every group is more than twice the share: the smallest is the nearest that there is.
    return chosen or set(members[min(keys, key=lambda key: len(members[key]))])


def _shared_groups(parts: Mapping[str, Sequence[Tile]]) -> list[str]:
    groups = {split: {tile.group for tile in tiles if tile.group} for split, tiles in parts.items()}
    said = []
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        both = sorted(groups.get(one, set()) & groups.get(other, set()))
        if both:
            said.append(f"{one} and {other} share {len(both)} groups, so scores are flattered: {shortened(both)}")
    return said

"""What looking through a source gives: tiles unread, and what tells these data from others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from geosam.datasets.pictures import Picture, is_deep
from geosam.datasets.tile import Tile
from geosam.errors import DatasetError


@dataclass(frozen=True)
class Listing:
    """Labelled tiles of a source."""

    tiles: Sequence[Tile]
    """Splits are as the source calls them; empty where it does not say."""
    stamps: Sequence[str]
    """Whatever changes when the data change: names, sizes and times of files, or a fingerprint."""
    warnings: Sequence[str] = field(default=())

    def __add__(self, other: Listing) -> Listing:
        return Listing(
            [*self.tiles, *other.tiles],
            [*self.stamps, *other.stamps],
            list(dict.fromkeys([*self.warnings, *other.warnings])),
        )


def stamps(files: Iterable[Path], root: Path) -> list[str]:
    """Name under ``root``, size and time of every file that is there."""
    lines = []
    for path in sorted(set(files)):
        if path.exists():
            known = path.stat()
            name = path.relative_to(root) if path.is_relative_to(root) else path
            lines.append(f"{name} {known.st_size} {known.st_mtime_ns}")
    return lines


def depth_warning(first: Picture) -> list[str]:
    """A word where the images have more than eight bits, told by the first one."""
    if not is_deep(first):
        return []
    return [f"images such as {first} have more than 8 bits; each is stretched between its percentiles 2 and 98"]


def weight_of(row: Mapping[str, str], where: str) -> float:
    """The ``weight`` that a row gives its tile; 1 where it gives none.

    Raises:
        DatasetError: It is no number above or equal to 0.
    """
    text = row.get("weight", "").strip()
    try:
        weight = float(text) if text else 1.0
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise DatasetError(f"{where}: the weight is {text!r}. Give a number from 0.")
    return weight

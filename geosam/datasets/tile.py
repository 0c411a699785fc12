"""One labelled tile, whatever it comes from, and how to walk over many of which some are damaged."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from geosam.datasets.labels import UInt8, UnreadableError
from geosam.errors import DatasetError

MOST_BAD = 0.05
"""Share of damaged tiles above which data are refused: a few are an accident, more are a fault of the whole."""


class TileSource(Protocol):
    """What a tile is read from: files, a row of a table, a window of an ortho. Picklable, holds no pixels."""

    def read(self) -> tuple[UInt8, UInt8]:
        """The image, uint8 (h, w, 3), and its label, uint8 (h, w) of 255, 0 and 128."""
        ...


@dataclass(frozen=True)
class Tile:
    """One labelled tile, read when asked for; picklable.

    Attributes:
        name: As its file, its row or its place has it; unique within one set of data.
        source: What it is read from.
        group: Place or date, for splits that keep neighbours together; empty if unknown.
        split: "train", "validation" or "test".
        weight: How often it is drawn, relative to the others.
        facts: The other columns that the data have of it, as text.
        gsd_m: Metres a pixel; None if unknown.
    """

    name: str
    source: TileSource = field(repr=False)
    group: str = ""
    split: str = ""
    weight: float = 1.0
    facts: Mapping[str, str] = field(default_factory=dict, repr=False)
    gsd_m: float | None = None

    def read(self) -> tuple[UInt8, UInt8]:
        """The image, uint8 (h, w, 3), and its label, uint8 (h, w) of 255 water, 0 dry, 128 ignore.

        Raises:
            UnreadableError: A file is damaged or gone; it is named.
            DatasetError: The sizes differ, or the label has another value.
        """
        image, label = self.source.read()
        check_sizes(image, label, self.name)
        return image, label


def across(values: UInt8, columns: tuple[float, float]) -> UInt8:
    """A part of the width of an image or label, (h, w, ...), as shares of it from 0 (left) to 1 (right)."""
    first, last = (round(share * values.shape[1]) for share in columns)
    return values[:, first : max(last, first + 1)]


def check_sizes(image: UInt8, label: UInt8, where: str) -> None:
    """Refuse a label that is not on its image's grid.

    Raises:
        DatasetError: The sizes differ.
    """
    if label.shape != image.shape[:2]:
        raise DatasetError(
            f"{where}: the label is {label.shape[1]} x {label.shape[0]} px and its image {image.shape[1]} x "
            f"{image.shape[0]} px. Give labels on the image's own grid."
        )


def readable(
    tiles: Sequence[Tile], most_bad: float = MOST_BAD, warn: Callable[[str], object] = warnings.warn
) -> Iterator[tuple[Tile, UInt8, UInt8]]:
    """Read tiles in order, and leave out those whose files are damaged.

    Args:
        tiles: What to read.
        most_bad: Greatest share of damaged tiles that is put up with.
        warn: Told of every tile that is left out, in one line.

    Yields:
        Tile, image, uint8 (h, w, 3), and label, uint8 (h, w).

    Raises:
        DatasetError: More than ``most_bad`` are damaged, or a label is wrong.
    """
    bad: list[str] = []
    for tile in tiles:
        try:
            image, label = tile.read()
        except UnreadableError as error:
            bad.append(str(error))
            if len(bad) > most_bad * len(tiles):
                raise DatasetError(
                    f"{len(bad)} of {len(tiles)} tiles cannot be read, more than {most_bad:.0%}; "
                    f"{'the last' if len(bad) > 1 else 'it'} is: {error}"
                ) from None
            warn(f"left out: {error}")
            continue
        yield tile, image, label

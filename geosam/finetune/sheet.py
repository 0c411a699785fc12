"""The contact sheet of a tuning run: image, truth, before, after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from geosam.datasets import LabelledData
from geosam.datasets.shown import found_over, truth_over
from geosam.finetune.store import Store, cut

Bool = NDArray[np.bool_]
UInt8 = NDArray[np.uint8]
_SIDE, _GAP, _TITLE = 256, 6, 18


def spread(numbers: Sequence[int], most: int = 8) -> list[int]:
    """At most so many chips, evenly spread."""
    if not numbers:
        return []
    picks = np.unique(np.linspace(0, len(numbers) - 1, min(most, len(numbers))).astype(int))
    return [numbers[int(pick)] for pick in picks]


def write_sheet(
    path: Path, data: LabelledData, store: Store, numbers: Sequence[int], before: Sequence[Bool], after: Sequence[Bool]
) -> None:
    """Draw some chips, a line each.

    Args:
        path: PNG.
        data: Where the images are read from.
        store: Where their labels are kept.
        numbers: Chips.
        before: What the untouched model finds in each, bool (S, S).
        after: What the tuned one finds.
    """
    columns = ("image", "truth (grey: not known)", "before (red false, orange missed)", "after")
    sheet = Image.new("RGB", (4 * (_SIDE + _GAP) + _GAP, _TITLE + len(numbers) * (_SIDE + _GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(columns):
        draw.text((_GAP + column * (_SIDE + _GAP), 3), title, fill="black")
    for line, (number, one, two) in enumerate(zip(numbers, before, after, strict=True)):
        for column, panel in enumerate(_panels(data, store, number, one, two)):
            sheet.paste(panel, (_GAP + column * (_SIDE + _GAP), _TITLE + line * (_SIDE + _GAP)))
    part = path.with_suffix(".part.png")
    sheet.save(part)
    part.replace(path)


def _panels(data: LabelledData, store: Store, number: int, before: Bool, after: Bool) -> list[Image.Image]:
    chip, label = store.chips[number], store.labels[number]
    image, _ = cut(*data.splits[chip.split][chip.tile].read(), chip.row, chip.col, label.shape[0])
    rgb = image.transpose(1, 2, 0)
    pictures = [rgb, truth_over(rgb, label), *(found_over(rgb, found, label) for found in (before, after))]
    return [Image.fromarray(np.ascontiguousarray(picture)).resize((_SIDE, _SIDE)) for picture in pictures]

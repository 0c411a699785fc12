"""What the values of a label mean, and how other people's values become ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geosam.errors import DatasetError

UInt8 = NDArray[np.uint8]

WATER, DRY, IGNORE = 255, 0, 128
"""Values of a label raster."""


class UnreadableError(DatasetError):
    """One tile's file is damaged or gone; others of the same data may well be sound."""


def water_label(
    values: NDArray[Any], where: str, water_ids: Sequence[int] = (), ignore_value: int | None = None
) -> UInt8:
    """A label of 255 water, 0 dry, 128 ignore.

    Args:
        values: Shape (h, w): 255, 0 and 128, or 0 and 1, or class ids where ``water_ids`` are given.
        where: The label's file or row, named in messages.
        water_ids: Class ids that are water; every other one is dry.
        ignore_value: A value that says nothing of the pixel, besides 128 where there are no class ids.

    Returns:
        uint8 (h, w).

    Raises:
        DatasetError: There is another value.
    """
    ignored = values == ignore_value if ignore_value is not None else np.zeros(values.shape, bool)
    if water_ids:
        label = np.where(np.isin(values, tuple(water_ids)), np.uint8(WATER), np.uint8(DRY))
    else:
        label = _two_values(values, ignored, where)
    label[ignored] = IGNORE
    return label


def has_two_values(values: NDArray[Any], ignore_value: int | None = None) -> bool:
    """Whether :func:`water_label` takes these values without class ids."""
    found = np.unique(values)
    found = found[found != ignore_value] if ignore_value is not None else found
    return bool(np.isin(found, (WATER, DRY, IGNORE)).all() or np.isin(found, (0, 1)).all())


def _two_values(values: NDArray[Any], ignored: NDArray[np.bool_], where: str) -> UInt8:
    known = values[~ignored]
    if not has_two_values(known):
        found = np.unique(values)
        shown = ", ".join(f"{value:g}" for value in found[:6]) + (", ..." if len(found) > 6 else "")
        raise DatasetError(
            f"{where} has the label values {shown}; expected 255 water, 0 dry, 128 ignore, or 0 and 1. "
            "Say which ids are water with --water-ids, and which is none with --ignore-value."
        )
    if known.max(initial=0) == 1:
        return np.where(values == 1, np.uint8(WATER), np.uint8(DRY))
    return np.array(np.where(ignored, IGNORE, values), np.uint8)

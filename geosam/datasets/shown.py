"""Labels, and what is right and wrong beside them, as colours over an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geosam.datasets.labels import DRY, IGNORE, WATER, UInt8

_BLUE, _RED, _ORANGE, _GREY = (30, 110, 255), (230, 30, 60), (255, 170, 0), (128, 128, 128)


def truth_over(rgb: UInt8, label: UInt8) -> UInt8:
    """An image uint8 (h, w, 3) with its label uint8 (h, w) on it: water blue, grey where nothing is known."""
    return _tinted(_tinted(rgb, label == WATER, _BLUE), label == IGNORE, _GREY)


def found_over(rgb: UInt8, found: NDArray[np.bool_], label: UInt8) -> UInt8:
    """An image with what was found on it, bool (h, w): right blue, false red, missed orange."""
    right = _tinted(rgb, found & (label == WATER), _BLUE)
    return _tinted(_tinted(right, found & (label == DRY), _RED), ~found & (label == WATER), _ORANGE)


def _tinted(rgb: UInt8, where: NDArray[np.bool_], colour: tuple[int, int, int]) -> UInt8:
    out = rgb.copy()
    out[where] = (0.45 * rgb[where] + 0.55 * np.array(colour)).astype(np.uint8)
    return out

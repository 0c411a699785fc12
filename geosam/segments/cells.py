"""Areas and boxes of a mask enlarged bilinearly, without enlarging it: only where a level passes is it worked out.

Between four neighbouring logits all pixels are above a level if all four are, and none is if none is. The others are a
line along the mask's outline.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Cells = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Rows and columns of places between four logits; those at 0 lie between the window's edge and its first logits."""

MOST = 0.1
"""Share of a window that its outline may be: if more is, to enlarge all of it is faster (measured)."""


@dataclass(frozen=True)
class Extent:
    """Of a mask as large as the tile, in pixels."""

    inner: int
    """Pixels above ``level``."""
    outer: int
    """Pixels above ``-level``."""
    box: tuple[int, int, int, int] | None
    """First and last column and row above 0, as left, top, right, bottom, ends included, from the picture's corner;
    None where no pixel is above 0."""

    @property
    def stability(self) -> float:
        """Share of the pixels above ``-level`` that are above ``level`` too; 0 where there are none."""
        return self.inner / self.outer if self.outer else 0.0


def extent(low: Floats, corner: tuple[int, int], times: int, level: float, ragged: float = MOST) -> Extent | None:
    """What a window of logits covers once every one of them has become ``times`` x ``times`` pixels.

    Args:
        low: Logits (h, w); the outermost are those of the picture's edge, or nowhere above ``-level``.
        corner: Row and column of the first in the picture.
        times: How often larger the mask becomes, even.
        level: Above 0.
        ragged: Share of the window.

    Returns:
        None of a ragged mask, whose outline is more than ``ragged`` of the window.
    """
    # Beyond the picture's edge logits go on as they are; half of what lies between those and its own is outside.
    edged = np.pad(low, 1, mode="edge")
    four = [edged[:-1, :-1], edged[:-1, 1:], edged[1:, :-1], edged[1:, 1:]]
    least = np.minimum(np.minimum(four[0], four[1]), np.minimum(four[2], four[3]))
    most = np.maximum(np.maximum(four[0], four[1]), np.maximum(four[2], four[3]))
    between = (most > -level) & (least <= level)
    if np.count_nonzero(between) > ragged * between.size:
        return None
    rows, cols = np.nonzero(between)
    cells: Cells = (rows, cols)
    values = np.stack([part[cells] for part in four], axis=1) @ _shares(times)
    _cut(values, cells, low.shape, times)
    whole = least > level
    inner, outer = (_pixels(whole, times) + int(np.count_nonzero(values > at)) for at in (level, -level))
    if not whole.any() and not (values > 0).any():
        return Extent(inner, outer, None)
    (top, bottom), (left, right) = (_ends(whole, values, cells, axis, times, low.shape[axis]) for axis in (0, 1))
    row, col = (times * at for at in corner)
    return Extent(inner, outer, (left + col, top + row, right + col, bottom + row))


def _shares(times: int) -> Floats:
    """Share of four logits, left before right and upper before lower, in the pixels between them, (4, times^2)."""
    after = (np.arange(times, dtype=np.float32) + np.float32(0.5)) / np.float32(times)
    both = np.stack([1 - after, after])
    shares: Floats = np.einsum("ai,bj->abij", both, both).reshape(4, times * times)
    return shares


def _cut(values: Floats, cells: Cells, shape: tuple[int, ...], times: int) -> None:
    """Have pixels outside the window, of cells at its edges, be above nothing."""
    rows, cols = cells
    edge = np.flatnonzero((rows == 0) | (rows == shape[0]) | (cols == 0) | (cols == shape[1]))
    row, col = (np.arange(times)[None] + times * at[edge, None] - times // 2 for at in cells)
    fits = [(at >= 0) & (at < times * length) for at, length in zip((row, col), shape, strict=True)]
    inside = (fits[0][:, :, None] & fits[1][:, None, :]).reshape(len(edge), times * times)
    values[edge] = np.where(inside, values[edge], np.float32(-np.inf))


def _pixels(full: NDArray[np.bool_], times: int) -> int:
    """Pixels between four logits, of those, bool (h + 1, w + 1), where all are."""
    weights = [np.full(length, times, np.int64) for length in full.shape]
    for weight in weights:
        weight[[0, -1]] = times // 2
    return int(weights[0] @ full.astype(np.int64) @ weights[1])


def _ends(
    whole: NDArray[np.bool_], values: Floats, cells: Cells, axis: int, times: int, length: int
) -> tuple[int, int]:
    """First and last row (axis 0) or column (1) of pixels above 0, counted from the window's edge."""
    full: NDArray[np.bool_] = np.asarray(whole.any(axis=1 - axis))
    at = cells[axis]
    found = []
    for places, side in ((range(len(full)), 0), (range(len(full) - 1, -1, -1), -1)):
        # The window lies close around the mask, so that few places are looked at.
        for place in places:
            wet = (values[at == place] > 0).reshape(-1, times, times).any(axis=(0, 2 - axis))
            hit = np.flatnonzero(np.logical_or(wet, full[place]))
            if len(hit):
                found.append(min(max(times * place - times // 2 + int(hit[side]), 0), times * length - 1))
                break
    return found[0], found[1]

"""The water bodies that points or a box ask for, among all the water that a model sees.

A mask decoder that was trained for minutes finds all water and hardly heeds its points. Here they decide: a body is
what hangs together around a water point, and the bar is lowered for a point where the model hesitates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

Logits = NDArray[np.float32]

LOWEST = -4.0
"""Below this logit (0.02) a point on water is believed to be a slip."""
_LEEWAY = 0.5
"""How far below the logit at its point a body that the model doubts may fall."""
_DRY = -20.0
_EIGHT = np.ones((3, 3), bool)


def bodies_asked(
    water: Logits,
    points: NDArray[np.float32],
    labels: NDArray[np.int64],
    stride: float,
    box: NDArray[np.float32] | None,
) -> Logits:
    """Logits of the asked bodies alone.

    Args:
        water: Logits of all water, (h, w).
        points: float (K, 2) as (x, y), in pixels of which ``stride`` make a cell of ``water``.
        labels: int (K,): 1 water, 0 dry; others are left out.
        stride: Pixels a cell.
        box: x0, y0, x1, y1 in pixels, within which bodies are looked for; or None.

    Returns:
        float32 (h, w), above 0 in the bodies; -20 where nothing was asked for.
    """
    seen = water if box is None else _within(water, box / stride)
    cells = _cells(points, stride, water.shape)
    wet, dry = cells[labels == 1], cells[labels == 0]
    if len(wet) == 0:
        return _mostly_inside(water, seen) if box is not None else np.full_like(water, _DRY)
    asked = np.full_like(water, _DRY)
    for row, col in wet:
        body, bar = _body(seen, int(row), int(col))
        np.maximum(asked, np.where(body, water - bar, _DRY), out=asked)
    return _cut(asked, wet, dry) if len(dry) else asked


def _body(seen: Logits, row: int, col: int) -> tuple[NDArray[np.bool_], float]:
    """What hangs together around a cell or its best neighbour, and the bar that it is above."""
    rows, cols = slice(max(row - 1, 0), row + 2), slice(max(col - 1, 0), col + 2)
    near = seen[rows, cols]
    best = np.unravel_index(int(np.argmax(near)), near.shape)
    found = float(near[best])
    if found < LOWEST:
        return np.zeros(seen.shape, bool), 0.0
    bar = 0.0 if found > 0 else found - _LEEWAY
    bodies, _ = ndimage.label(seen > bar, _EIGHT)
    return np.asarray(bodies == bodies[rows, cols][best]), bar


def _cut(asked: Logits, wet: NDArray[np.intp], dry: NDArray[np.intp]) -> Logits:
    """Bodies parted where the ground of dry points begins: at the shallows between the two."""
    marks = np.zeros(asked.shape, np.int32)
    marks[dry[:, 0], dry[:, 1]] = 2
    marks[wet[:, 0], wet[:, 1]] = 1
    grounds = watershed(-asked, marks, mask=asked > 0, connectivity=2)  # type: ignore[no-untyped-call]
    return np.where(grounds == 2, np.float32(_DRY), asked)


def _within(water: Logits, box: NDArray[np.float32]) -> Logits:
    rows, cols = np.ogrid[: water.shape[0], : water.shape[1]]
    inside = (cols + 0.5 >= box[0]) & (cols + 0.5 <= box[2]) & (rows + 0.5 >= box[1]) & (rows + 0.5 <= box[3])
    return np.where(inside, water, np.float32(_DRY))


def _mostly_inside(water: Logits, seen: Logits) -> Logits:
    """In the box: the bodies of which more than half lies there, and the one with most water there.

    That one may be a river that only passes through: a box drawn on a reach asks for the reach.
    """
    bodies, count = ndimage.label(water > 0, _EIGHT)
    cells = np.bincount(bodies.ravel(), minlength=count + 1)[1:]
    there = np.bincount(bodies[seen > _DRY], minlength=count + 1)[1:]
    if not there.any():
        return np.full_like(water, _DRY)
    kept = (there > cells / 2) | (there == there.max())
    return np.where(np.isin(bodies, 1 + np.flatnonzero(kept)), seen, np.float32(_DRY))


def _cells(points: NDArray[np.float32], stride: float, shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Row and column of the cell under each point, (K, 2)."""
    rowcol = np.floor(points[:, ::-1] / stride).astype(np.intp)
    return np.asarray(np.clip(rowcol, 0, np.array(shape, np.intp) - 1), np.intp)

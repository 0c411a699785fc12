"""Pixels at another resolution: the mean where coarser, linear where finer, valid pixels only.

GDAL can resample while it reads, but its weights see no NaN, and windows cut at fractions of a
pixel came back up to 19 grey values different from the same pixels of a larger window. Here a
pixel's weights depend on its own place alone, so that any window equals the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geosam.scene.header import Mask

ENOUGH = 0.5
"""A resampled pixel is valid where at least this share of its weight comes from valid pixels."""


@dataclass(frozen=True)
class Taps:
    """The source pixels of each output pixel of one axis, and their weights."""

    index: NDArray[np.int64]
    """Shape (taps, outputs)."""
    weight: NDArray[np.float32]
    """Shape (taps, outputs); each column sums to one."""

    def along(self, values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        """Weighted sums along an axis of (bands, h, w).

        Always in the order of the source and in float32, so that a pixel's value does not depend on the window.
        """
        shape = [1, 1, 1]
        shape[axis] = -1
        out: NDArray[np.float32] | None = None
        for index, weight in zip(self.index, self.weight, strict=True):
            term = _taken(values, index, axis) * weight.reshape(shape)
            out = term if out is None else np.add(out, term, out=out)
        return values if out is None else out


def _taken(values: NDArray[np.float32], index: NDArray[np.int64], axis: int) -> NDArray[np.float32]:
    """Like np.take; a view where the indices are evenly spaced, as at every whole ratio."""
    steps = np.diff(index)
    if len(index) > 1 and (steps[0] < 1 or (steps != steps[0]).any()):
        return np.take(values, index, axis)
    step = int(steps[0]) if len(index) > 1 else 1
    where = [slice(None)] * 3
    where[axis] = slice(int(index[0]), int(index[-1]) + 1, step)
    return values[tuple(where)]


@dataclass(frozen=True)
class Axis:
    """How output pixels of one axis lie over the source: output j covers [start + j * step, start + (j + 1) * step)."""

    start: float
    """Source pixel at which output 0 begins."""
    step: float
    """Source pixels an output pixel."""
    size: int
    """Source pixels there are."""

    def span(self, first: int, count: int) -> tuple[int, int]:
        """Source pixels that outputs ``first`` ... ``first + count - 1`` need, as (first, one past the last)."""
        low, high = self._edges(np.array([first, first + count - 1]))
        return int(np.clip(np.floor(low[0]), 0, self.size - 1)), int(np.clip(np.ceil(high[1]), 1, self.size))

    def taps(self, first: int, count: int) -> Taps:
        """Where outputs ``first`` ... ``first + count - 1`` look in the pixels of their :meth:`span`."""
        begin, end = self.span(first, count)
        low, high = self._edges(np.arange(first, first + count))
        reach = max(1, int((np.ceil(high) - np.floor(low)).max()))
        source = np.floor(low).astype(np.int64) + np.arange(reach)[:, None]
        weight = self._kernel(source, low, high)
        return Taps(np.clip(source, begin, end - 1) - begin, (weight / weight.sum(axis=0)).astype(np.float32))

    def _edges(self, outputs: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """First and last source coordinate with any weight; rounded, or 1e-16 too much takes in another pixel."""
        middle = self.start + (outputs + 0.5) * self.step
        half = self.step / 2 if self.step >= 1 else 1.0
        return np.round(middle - half, 6), np.round(middle + half, 6)

    def _kernel(
        self, source: NDArray[np.int64], low: NDArray[np.float64], high: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        if self.step >= 1:  # box: the part of each source pixel that the output pixel covers
            inside = (source >= 0) & (source < self.size)
            weight = np.where(inside, np.minimum(source + 1, high) - np.maximum(source, low), 0.0)
        else:  # tent: linear between the centres of source pixels; the edge pixel stands for what is beyond it
            weight = 1 - np.abs(source + 0.5 - (low + high) / 2)
        return np.asarray(np.maximum(weight, 0.0))


def resample(values: NDArray[np.float32], valid: Mask, rows: Taps, cols: Taps) -> tuple[NDArray[np.float32], Mask]:
    """Weighted mean of the valid pixels under each output pixel.

    Args:
        values: float32 (bands, h, w), 0 where not valid.
        valid: bool (h, w).
        rows: Taps of the row axis into h.
        cols: Taps of the column axis into w.

    Returns:
        Values float32 (bands, out_h, out_w), 0 where not valid, and valid bool (out_h, out_w).
    """
    whole = bool(valid.all())
    stack = values if whole else np.concatenate([values, valid[None].astype(np.float32)])
    out = cols.along(rows.along(stack, 1), 2)
    if whole:
        return out, np.ones(out.shape[1:], bool)
    # full weight is exactly one, whatever float32 sums up to: or a pixel would differ in its last
    # bit between a window with a hole somewhere else and one without
    weight = np.where(out[-1] > 1 - 1e-5, np.float32(1), out[-1])
    enough = weight >= ENOUGH - 1e-4
    mean = np.divide(out[:-1], weight, out=np.zeros_like(out[:-1]), where=enough)
    return mean, enough

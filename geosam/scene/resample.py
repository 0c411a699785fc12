"""Pixels at another resolution: the mean where coarser, linear where finer, valid pixels only.

GDAL can resample while it reads, but its weights see no NaN, and windows cut at fractions of a
pixel came back up to 19 grey values different from the same pixels of a larger window. Here a
pixel's weights depend on its own place alone, so that any window equals the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from geosam.scene.header import Mask

ENOUGH = 0.5
"""A resampled pixel is valid where at least this share of its weight comes from valid pixels."""


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

    def weights(self, first: int, count: int) -> sparse.csr_matrix:
        """Weights, float32 (count, span), each row summing to one."""
        begin, end = self.span(first, count)
        low, high = self._edges(np.arange(first, first + count))
        taps = int(np.ceil((high - low).max())) + 1
        source = np.floor(low).astype(np.int64)[:, None] + np.arange(taps)
        weight = self._kernel(source, low[:, None], high[:, None])
        column = np.clip(source, begin, end - 1) - begin
        weight /= weight.sum(axis=1, keepdims=True)
        row = np.broadcast_to(np.arange(count)[:, None], source.shape)
        matrix = sparse.csr_matrix(
            (weight.ravel().astype(np.float32), (row.ravel(), column.ravel())), (count, end - begin)
        )
        matrix.sum_duplicates()
        return matrix

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


def resample(
    values: NDArray[np.float32], valid: Mask, rows: sparse.csr_matrix, cols: sparse.csr_matrix
) -> tuple[NDArray[np.float32], Mask]:
    """Weighted mean of the valid pixels under each output pixel.

    Args:
        values: float32 (bands, h, w), 0 where not valid.
        valid: bool (h, w).
        rows: Weights (out_h, h).
        cols: Weights (out_w, w).

    Returns:
        Values float32 (bands, out_h, out_w), 0 where not valid, and valid bool (out_h, out_w).
    """
    whole = bool(valid.all())
    stack = values if whole else np.concatenate([values, valid[None].astype(np.float32)])
    out = _along_last(_along_last(stack.transpose(0, 2, 1), rows).transpose(0, 2, 1), cols)
    if whole:
        return out, np.ones(out.shape[1:], bool)
    # full weight is exactly one, whatever float32 sums up to: or a pixel would differ in its last
    # bit between a window with a hole somewhere else and one without
    weight = np.where(out[-1] > 1 - 1e-5, np.float32(1), out[-1])
    enough = weight >= ENOUGH - 1e-4
    mean = np.divide(out[:-1], weight, out=np.zeros_like(out[:-1]), where=enough)
    return mean, enough


def _along_last(values: NDArray[np.float32], weights: sparse.csr_matrix) -> NDArray[np.float32]:
    """(a, b, n) times weights (m, n) along the last axis: (a, b, m)."""
    flat = np.ascontiguousarray(values.reshape(-1, values.shape[-1]).T)
    out: NDArray[np.float32] = np.ascontiguousarray((weights @ flat).T)
    return out.reshape(*values.shape[:2], weights.shape[0])

"""How weighted values spread: mean, deviation, extremes and percentiles in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST_VALUES = 1 << 16
"""Distinct values that are kept apart. All of an 8- or 16-bit raster are; of others, values are binned beyond it."""


@dataclass
class Spread:
    """The distribution of weighted values that arrive in parts, in any order."""

    weight: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    step: float = 0.0
    """Width of a bin, a power of two; 0: every value is kept as it is."""
    _shift: float = np.nan
    _sum: float = 0.0
    _squares: float = 0.0
    _values: list[Floats] = field(default_factory=list)
    _weights: list[Floats] = field(default_factory=list)
    _held: int = 0

    def add(self, values: Floats, weights: Floats) -> None:
        """Take finite values (n,) with weights (n,) above 0."""
        if len(values) == 0:
            return
        if np.isnan(self._shift):
            self._shift = float(values[0])
        # Deviations from the first value: heights of 3000 m that differ by centimetres would drown in the squares.
        off = values - self._shift
        self.weight += float(weights.sum())
        self._sum += float(weights @ off)
        self._squares += float(weights @ (off * off))
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self._values.append(values)
        self._weights.append(weights)
        self._held += len(values)
        if self._held > 2 * MOST_VALUES:
            self._compact()

    @property
    def mean(self) -> float:
        """Weighted mean; NaN where nothing was added."""
        return self._shift + self._sum / self.weight if self.weight > 0 else float("nan")

    @property
    def std(self) -> float:
        """Weighted standard deviation of the population."""
        if self.weight == 0:
            return float("nan")
        off = self._sum / self.weight
        return float(np.sqrt(max(self._squares / self.weight - off * off, 0.0)))

    def percentiles(self, percents: tuple[float, ...]) -> list[float]:
        """The smallest value at or below which at least so many per cent of the weight lie.

        As ``numpy.quantile(..., weights=..., method="inverted_cdf")``; exact while ``step`` is 0, and else right to
        half a step, which is at most a 65,536th of the range of the values.
        """
        if self.weight == 0:
            return [float("nan")] * len(percents)
        self._compact()
        values, weights = self._values[0], self._weights[0]
        upto = np.cumsum(weights)
        # A part in 1e12 of slack: sums of the same weights in another order may differ in the last bits.
        wanted = np.array(percents) / 100 * upto[-1] * (1 - 1e-12)
        found = values[np.minimum(np.searchsorted(upto, wanted), len(values) - 1)] + self.step / 2
        return [float(value) for value in np.clip(found, self.low, self.high)]

    def _compact(self) -> None:
        """Equal values made one; where too many differ, all of them floored to multiples of a power of two.

        Bins of a larger power hold whole bins of the smaller ones, so that no order of arrival adds to the error.
        """
        values, weights = np.concatenate(self._values), np.concatenate(self._weights)
        if self.step == 0:
            values, where = np.unique(values, return_inverse=True)
            weights = np.bincount(where, weights, minlength=len(values)).astype(np.float64)
        if self.step > 0 or len(values) > MOST_VALUES:
            self.step = max(self.step, 2.0 ** np.floor(np.log2((self.high - self.low) / MOST_VALUES) + 1))
            values, weights = _binned(values, weights, self.step)
        self._values, self._weights, self._held = [values], [weights], len(values)


def _binned(values: Floats, weights: Floats, step: float) -> tuple[Floats, Floats]:
    """Lower edges of the bins that hold something, ascending, and their weights."""
    number = np.floor(values / step).astype(np.int64)
    first = int(number.min())
    found = np.bincount(number - first, weights)
    some = np.flatnonzero(found)
    return np.asarray((some + first) * step, np.float64), np.asarray(found[some], np.float64)

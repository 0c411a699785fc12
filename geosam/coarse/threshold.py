"""A threshold for a whole scene, and how much the scene's histogram believes in it.

Otsu's threshold halves a scene that has only land, and drifts into the land where a river covers
one pixel in a hundred. So a threshold is looked for twice (Otsu's, and one where both sides count
the same), kept within what is plausible for the index, and taken only where it lies in a valley
between two modes; else the index's physical default stands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Float = NDArray[np.floating]

BINS = 512
_SMOOTH_BINS = 6.0
"""Standard deviation, in bins, of the smoothing before modes are looked for: a 1/85 of the range."""
_MIN_SHARE = 0.001
"""A mode with fewer pixels is noise; the mask warns below the same 0.1 %."""
_MIN_DEPTH = 0.15
"""Depth below which a valley is a ripple."""


@dataclass(frozen=True)
class Fit:
    """A threshold and its credentials."""

    threshold: float
    """Scores above it are water."""
    separability: float
    """Share of the scene's variance that lies between the sides, in [0, 1]; Otsu's eta, 0.64 for one normal mode."""
    valley: float
    """Depth of the valley at the threshold, as a share of the lower mode beside it, in [0, 1]; 0 for one mode."""

    @property
    def bimodal(self) -> bool:
        """Whether the threshold parts two modes."""
        return self.valley >= _MIN_DEPTH


def fit_threshold(scores: Float, default: float, low: float, high: float) -> Fit:
    """The threshold that parts water from land in a sample of a scene.

    Args:
        scores: Index values, any shape; NaN and infinity are left out.
        default: Taken where no threshold within the bounds lies in a valley.
        low: Least plausible threshold.
        high: Greatest plausible threshold; equal to ``low`` for a score whose zero is calibrated.

    Returns:
        The threshold within [low, high], and how clearly it parts two modes.

    Source:
        Otsu, N. (1979). A threshold selection method from gray-level histograms. IEEE Trans. SMC
        9(1), 62-66.
    """
    seen = scores[np.isfinite(scores)]
    if seen.size < 2 or float(seen.max()) <= float(seen.min()):
        return Fit(default, 0.0, 0.0)
    counts, edges = _histogram(seen)
    bounded = [float(np.clip(cut, low, high)) for cut in (_otsu(counts, edges), _balanced(counts, edges, default))]
    fits = [_judge(cut, counts, edges) for cut in bounded]
    best = max(fits, key=lambda fit: fit.valley)
    return best if best.bimodal else _judge(default, counts, edges)


def _histogram(seen: Float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # A handful of wild pixels must not squeeze all others into one bin.
    ends = np.percentile(seen, [0.01, 99.99])
    if ends[0] >= ends[1]:
        ends = np.array([seen.min(), seen.max()])
    counts, edges = np.histogram(np.clip(seen, *ends), BINS)
    return counts.astype(np.float64), edges.astype(np.float64)


def _between(counts: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance between the two sides for a cut at every inner edge, shape (BINS - 1,)."""
    centres = (edges[1:] + edges[:-1]) / 2
    weight, moment = np.cumsum(counts), np.cumsum(counts * centres)
    left, total = weight[:-1], weight[-1]
    both = left * (total - left)
    gap = moment[-1] * left - moment[:-1] * total
    variance: NDArray[np.float64] = np.where(both > 0, gap**2 / np.maximum(both, 1e-300), 0.0) / total**2
    return variance


def _otsu(counts: NDArray[np.float64], edges: NDArray[np.float64]) -> float:
    variance = _between(counts, edges)
    # Between two modes with nothing in between every cut is as good: take the middle.
    best = np.flatnonzero(variance >= variance.max() * (1 - 1e-9))
    return float(edges[1:-1][best].mean())


def _balanced(counts: NDArray[np.float64], edges: NDArray[np.float64], start: float) -> float:
    """Otsu's threshold where both sides of the last one count the same, from ``start`` until it stays."""
    cut = start
    for _ in range(10):
        above = edges[:-1] >= cut
        sides = counts[above].sum(), counts[~above].sum()
        if min(sides) < _MIN_SHARE * counts.sum():
            return start
        new = _otsu(counts / np.where(above, sides[0], sides[1]), edges)
        if abs(new - cut) <= edges[1] - edges[0]:
            return new
        cut = new
    return cut


def _judge(cut: float, counts: NDArray[np.float64], edges: NDArray[np.float64]) -> Fit:
    at = int(np.clip(np.searchsorted(edges, cut), 1, BINS - 1))
    centres = (edges[1:] + edges[:-1]) / 2
    mean = np.average(centres, weights=counts)
    spread = np.average((centres - mean) ** 2, weights=counts)
    eta = float(_between(counts, edges)[at - 1] / spread) if spread > 0 else 0.0
    return Fit(cut, min(eta, 1.0), _valley(counts, at))


def _valley(counts: NDArray[np.float64], at: int) -> float:
    """How deep the lowest point between the highest modes on either side of bin ``at`` lies."""
    if min(counts[:at].sum(), counts[at:].sum()) < _MIN_SHARE * counts.sum():
        return 0.0
    smooth = ndimage.gaussian_filter1d(counts, _SMOOTH_BINS, mode="constant")
    left, right = int(smooth[:at].argmax()), at + int(smooth[at:].argmax())
    lower = min(smooth[left], smooth[right])
    return float(1.0 - smooth[left : right + 1].min() / lower)

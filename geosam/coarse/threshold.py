"""A threshold for a whole scene, and how much the scene's histogram believes in it.

Otsu's threshold halves a scene that has only land, parts forest from fields where water is a third,
small mode, and drifts into the land where a river covers one pixel in a hundred. So several cuts
compete (Otsu's, one where both sides count the same, and every low point of the histogram),
kept within what is plausible for the index. The deepest valley wins, a valley near the
index's physical default before one far from it; without any valley the default stands. Water that is rarer
than one pixel in a thousand, a brook in a large scene, competes too, at a discount: so do a few blue roofs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Float = NDArray[np.floating]

BINS = 512
_SMOOTH_BINS = 6.0
"""Standard deviation, in bins, of the smoothing before modes are looked for: a 1/85 of the range."""
_KERNEL_BINS = 2 * np.sqrt(np.pi) * _SMOOTH_BINS
"""Bins that a smoothed count effectively averages."""
_MIN_SHARE = 0.0001
"""A side with fewer pixels is noise."""
_RARE_SHARE = 0.001
"""A side with fewer pixels may be something else than the water looked for; the mask warns below the same 0.1 %."""
_MIN_DEPTH = 0.15
"""Depth below which a valley is a ripple."""
_MIN_SIGMAS = 4.0
"""Depth in standard deviations of the lower mode's count, below which a valley is chance."""


@dataclass(frozen=True)
class Fit:
    """A threshold and its credentials."""

    threshold: float
    """Scores above it are water."""
    separability: float
    """Share of the scene's variance that lies between the sides, in [0, 1]; Otsu's eta, 0.64 for one normal mode."""
    valley: float
    """How far the histogram falls below the lower mode on either side, in [0, 1]; 0 for one mode."""
    belief: float = 1.0
    """How likely it is, by its place and the sides' shares, that it parts water from land and not two kinds of land,
    in (0, 1]; 1 at the default."""

    @property
    def bimodal(self) -> bool:
        """Whether the threshold parts two modes."""
        return self.valley >= _MIN_DEPTH


def fit_threshold(scores: Float, default: float | None, low: float, high: float) -> Fit:
    """The threshold that parts water from land in a sample of a scene.

    Args:
        scores: Index values, any shape; NaN and infinity are left out.
        default: Taken where no threshold within the bounds lies in a valley. None, for scores
            without a physical zero: Otsu's threshold, valley or not.
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
        return Fit(float(np.clip(0.0, low, high)) if default is None else default, 0.0, 0.0)
    counts, edges = _histogram(seen)
    smooth = ndimage.gaussian_filter1d(counts, _SMOOTH_BINS, mode="constant")
    if default is None:
        return _judge(float(np.clip(_otsu(counts, edges), low, high)), counts, smooth, edges)
    cuts = np.clip([_otsu(counts, edges), _balanced(counts, edges, default), *_low_points(smooth, edges)], low, high)
    depths = np.array([_valley(counts, smooth, _bin(cut, edges)) for cut in cuts])
    beliefs = _plausible(cuts, default, low, high) * [_common(counts, _bin(cut, edges)) for cut in cuts]
    best = int(np.argmax(depths * beliefs))
    if depths[best] < _MIN_DEPTH:
        return _judge(default, counts, smooth, edges)
    return replace(_judge(float(cuts[best]), counts, smooth, edges), belief=float(beliefs[best]))


def _plausible(cuts: Float, default: float, low: float, high: float) -> Float:
    """How much a cut's place lets its valley count, in (0, 1]."""
    # Below the default a valley is as likely to part forest from fields; above it, only clear from turbid water.
    below = np.maximum(default - cuts, 0.0) / max(0.4 * (default - low), 1e-9)
    above = np.maximum(cuts - default, 0.0) / max(high - low, 1e-9)
    return np.asarray(1.0 / (1.0 + below**2 + above**2))


def _common(counts: NDArray[np.float64], at: int) -> float:
    """How much the share of the smaller side lets a cut's valley count, in [0.1, 1]."""
    smaller = min(counts[:at].sum(), counts[at:].sum()) / counts.sum()
    return float(np.clip((smaller / _RARE_SHARE) ** 2, 0.1, 1.0))


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


def _low_points(smooth: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centres of the bins where the smoothed histogram has a local minimum."""
    inner = smooth[1:-1]
    at = np.flatnonzero((inner <= smooth[:-2]) & (inner < smooth[2:])) + 1
    return (edges[at] + edges[at + 1]) / 2


def _bin(cut: float, edges: NDArray[np.float64]) -> int:
    """First bin above a cut."""
    return int(np.clip(np.searchsorted(edges, cut), 1, BINS - 1))


def _judge(cut: float, counts: NDArray[np.float64], smooth: NDArray[np.float64], edges: NDArray[np.float64]) -> Fit:
    at = _bin(cut, edges)
    centres = (edges[1:] + edges[:-1]) / 2
    mean = np.average(centres, weights=counts)
    spread = np.average((centres - mean) ** 2, weights=counts)
    eta = float(_between(counts, edges)[at - 1] / spread) if spread > 0 else 0.0
    return Fit(cut, min(eta, 1.0), _valley(counts, smooth, at))


def _valley(counts: NDArray[np.float64], smooth: NDArray[np.float64], at: int) -> float:
    """How far the smoothed histogram at bin ``at`` lies below the lower of the modes on either side."""
    if min(counts[:at].sum(), counts[at:].sum()) < _MIN_SHARE * counts.sum():
        return 0.0
    lower = min(smooth[:at].max(), smooth[at:].max())
    depth = float(1.0 - smooth[at - 1 : at + 1].min() / lower)
    return depth if depth * np.sqrt(lower * _KERNEL_BINS) >= _MIN_SIGMAS else 0.0

"""What is counted of a result against the truth, and the scores made of the counts.

Counts add up, over the strips of a raster as over the images of a data set, so that a pooled score is the
score of the sum. Undefined scores are None; where there is no water and none was found, everything is 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVELS = 256
"""Probabilities are counted in steps of 1/256, those of the mosaic."""
BINS = 15
"""Bins of the calibration error, as is customary (Guo et al. 2017)."""


def _no_levels() -> NDArray[np.int64]:
    return np.zeros((2, LEVELS + 1), np.int64)


@dataclass(frozen=True)
class Match:
    """Boundary pixels of both sides, and how many lie within the tolerance of the other side's."""

    found: int = 0
    """Boundary pixels of the prediction."""
    found_near: int = 0
    true: int = 0
    """Boundary pixels of the truth."""
    true_near: int = 0

    def __add__(self, other: Match) -> Match:
        return Match(
            self.found + other.found,
            self.found_near + other.found_near,
            self.true + other.true,
            self.true_near + other.true_near,
        )

    @property
    def f1(self) -> float:
        """Harmonic mean of the shares of both sides' boundary that lie near the other's; 1 if neither has one."""
        if not self.found or not self.true:
            return float(self.found == self.true)
        precision, recall = self.found_near / self.found, self.true_near / self.true
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@dataclass(frozen=True)
class Tally:
    """Counts of one result against its truth; pixels of unknown truth are in none of them."""

    tp: int = 0
    """Water found."""
    fp: int = 0
    """Dry ground taken for water."""
    fn: int = 0
    """Water missed."""
    tn: int = 0
    edges: Match = Match()
    """At the tolerance in pixels."""
    edges_m: Match | None = None
    """At the tolerance in metres; None where it was not asked for or a pixel has no size."""
    thin: int = 0
    """Pixels of the centreline of narrow water."""
    thin_found: int = 0
    levels: NDArray[np.int64] = field(default_factory=_no_levels)
    """Pixels by truth (dry, water) and probability, shape (2, 257); all zero where there is only a mask."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            tp=self.tp + other.tp,
            fp=self.fp + other.fp,
            fn=self.fn + other.fn,
            tn=self.tn + other.tn,
            edges=self.edges + other.edges,
            edges_m=_sum_of(self.edges_m, other.edges_m),
            thin=self.thin + other.thin,
            thin_found=self.thin_found + other.thin_found,
            levels=self.levels + other.levels,
        )

    @property
    def known(self) -> int:
        """Pixels that count."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def water_share(self) -> float | None:
        """Share of water in the truth."""
        return _share(self.tp + self.fn, self.known)

    @property
    def iou(self) -> float:
        """Intersection over union of water; 1 if there is none on either side."""
        return self._agreement(self.tp, self.tp + self.fp + self.fn)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall (Dice); 1 if there is no water on either side."""
        return self._agreement(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float | None:
        """Share of the water found that is water; None if none was found where there is some."""
        return 1.0 if self._empty else _share(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float | None:
        """Share of the water that was found; None if there is none, but some was found."""
        return 1.0 if self._empty else _share(self.tp, self.tp + self.fn)

    @property
    def accuracy(self) -> float | None:
        """Share of pixels that are right; next to nothing where water is rare."""
        return _share(self.tp + self.tn, self.known)

    @property
    def false_water(self) -> float | None:
        """Share of the dry pixels that was taken for water."""
        return _share(self.fp, self.fp + self.tn)

    @property
    def thin_recall(self) -> float | None:
        """Share of the centreline of narrow water that was found; None where there is no narrow water."""
        return _share(self.thin_found, self.thin)

    @property
    def ece(self) -> float | None:
        """Expected calibration error of the probability of water, in 15 bins; None for a mask.

        Source: Guo et al. 2017, On Calibration of Modern Neural Networks, eq. 3, for one class.
        """
        total = int(self.levels.sum())
        if total == 0:
            return None
        level = np.arange(LEVELS + 1)
        into = np.minimum(level * BINS // LEVELS, BINS - 1)
        water = np.bincount(into, self.levels[1], BINS)
        promised = np.bincount(into, self.levels.sum(axis=0) * level / LEVELS, BINS)
        return float(np.abs(water - promised).sum() / total)

    @property
    def _empty(self) -> bool:
        return self.tp + self.fp + self.fn == 0

    @staticmethod
    def _agreement(common: int, union: int) -> float:
        return common / union if union else 1.0

    def scores(self) -> dict[str, float | None]:
        """Every score by name."""
        return {
            "iou": self.iou,
            "f1": self.f1,
            "precision": self.precision,
            "recall": self.recall,
            "accuracy": self.accuracy,
            "boundary_f1": self.edges.f1,
            "boundary_f1_m": None if self.edges_m is None else self.edges_m.f1,
            "thin_recall": self.thin_recall,
            "false_water": self.false_water,
            "ece": self.ece,
            "water_share": self.water_share,
        }

    def counts(self) -> dict[str, Any]:
        """The counts that a person may want to see."""
        return {"tp": self.tp, "fp": self.fp, "fn": self.fn, "tn": self.tn, "thin_line_px": self.thin}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _sum_of(one: Match | None, other: Match | None) -> Match | None:
    return other if one is None else one if other is None else one + other


def column_weighted_f1(truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    """The score of the ancestor's files, kept so that they can be compared; it does not punish missed water.

    sklearn's ``f1_score(found, truth, average="weighted")`` on 2-D arrays takes every column for a label and
    weighs it by the water in its first argument: columns where nothing was found have no weight.

    Args:
        truth: Water, shape (h, w).
        found: Water found, shape (h, w).

    Returns:
        From 0 to 1; 0 if nothing was found.
    """
    return Columns.of(truth, found).f1


@dataclass(frozen=True)
class Columns:
    """Pixels by column, each shape (w,), of which :func:`column_weighted_f1` is made; add up over strips."""

    both: NDArray[np.int64]
    true: NDArray[np.int64]
    found: NDArray[np.int64]

    @classmethod
    def of(cls, truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> Columns:
        """Count the columns of a strip."""
        return cls((truth & found).sum(axis=0), truth.sum(axis=0), found.sum(axis=0))

    def __add__(self, other: Columns) -> Columns:
        return Columns(self.both + other.both, self.true + other.true, self.found + other.found)

    @property
    def f1(self) -> float:
        """Mean of the columns' F1, weighed by the water found in them."""
        if not self.found.sum():
            return 0.0
        f1 = 2 * self.both / np.maximum(self.true + self.found, 1)
        return float(np.average(f1, weights=self.found))

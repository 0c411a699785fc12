"""From the scores of images to the numbers of a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from geosam.evaluate.rows import Row
from geosam.evaluate.tally import Tally

_SPREAD = ("iou", "f1", "precision", "recall", "accuracy")
"""Scores of which mean, median and quartiles are given."""


@dataclass(frozen=True, eq=False)
class Scored:
    """One image in one row."""

    name: str
    group: str
    row: Row
    tally: Tally
    column_weighted_f1: float
    """The ancestor's score; see :func:`geosam.evaluate.tally.column_weighted_f1`."""
    method: str = ""
    failed: int = 0

    def line(self) -> dict[str, Any]:
        """A line of the table of images."""
        return {
            "name": self.name,
            "group": self.group,
            "row": self.row,
            **self.tally.scores(),
            **self.tally.counts(),
            "column_weighted_f1_of_ancestor": self.column_weighted_f1,
            "method": self.method,
            "failed_tiles": self.failed,
        }


def summary(images: Sequence[Scored], failure_iou: float = 0.7) -> dict[str, Any]:
    """The numbers of a row: over images (mean, median, quartiles, failures), pooled, and of wet and dry images apart.

    A score that is undefined for an image is left out of its mean; ``boundary_f1`` is a mean over images.
    """
    pooled = reduce(add, (image.tally for image in images))
    wet = [image for image in images if image.tally.tp + image.tally.fn]
    dry = [image for image in images if not image.tally.tp + image.tally.fn]
    facts: dict[str, Any] = {"n": len(images)}
    for name in _SPREAD:
        facts |= _spread(name, [getattr(image.tally, name) for image in images])
    facts |= {
        "boundary_f1": _mean([image.tally.edges.f1 for image in images]),
        "boundary_f1_m": _mean([image.tally.edges_m.f1 if image.tally.edges_m else None for image in images]),
        "thin_recall": pooled.thin_recall,
        "ece": pooled.ece,
        "false_water": pooled.false_water,
        "failures": _failures(images, failure_iou),
        "column_weighted_f1_of_ancestor": _mean([image.column_weighted_f1 for image in images]),
        "pooled": {**pooled.scores(), **pooled.counts()},
        "wet": {"n": len(wet), **_spread("iou", [i.tally.iou for i in wet]), "failures": _failures(wet, failure_iou)},
        "dry": {"n": len(dry), "false_water": reduce(add, (image.tally for image in dry), Tally()).false_water},
        "failed_tiles": sum(image.failed for image in images),
    }
    methods = Counter(image.method for image in images if image.method)
    return facts | ({"methods": dict(methods)} if methods else {})


def _spread(name: str, values: Sequence[float | None]) -> dict[str, float | None]:
    known = [value for value in values if value is not None]
    q25, median, q75 = np.percentile(known, (25, 50, 75)).tolist() if known else (None, None, None)
    return {f"{name}_mean": _mean(known), f"{name}_median": median, f"{name}_q25": q25, f"{name}_q75": q75}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _failures(images: Sequence[Scored], below: float) -> float | None:
    return _mean([float(image.tally.iou < below) for image in images])

"""How far a prediction can be trusted without a person: parts between 0 and 1, and one confidence of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from geosam.coarse import CoarseMask
from geosam.vector import Strip

Bools = NDArray[np.bool_]

OFFSET = 1.0
"""Logits that the threshold is moved up and down by: SAM's stability score (Kirillov et al. 2023, section 5)."""
WEIGHTS = {"predicted_iou": 1.0, "stability": 1.0, "views_iou": 2.0, "coarse_iou": 0.5}
"""Of the parts in the confidence. Views that agree say most, since a model is not trained to look sure there; a coarse
mask says least, since where there is no infrared it is often wrong itself."""
_STRIP_PX = 1 << 22


@dataclass(frozen=True)
class Scores:
    """Parts of a scene's confidence, 0 to 1; NaN where a part is not to be had."""

    predicted_iou: float
    """What the model expects of its own masks, mean over the tiles by their water."""
    stability: float
    """IoU of the water above a threshold moved up and down by one logit."""
    views_iou: float
    """Mean IoU of each turned or mirrored view with the mean of all."""
    coarse_iou: float
    """IoU with the first guess."""
    water: float
    """Share of the valid pixels that is water."""

    @property
    def confidence(self) -> float:
        """Geometric mean of the parts that there are, by :data:`WEIGHTS`: one part near 0 is enough to doubt."""
        parts = [(getattr(self, name), weight) for name, weight in WEIGHTS.items()]
        known = [(max(part, 1e-6), weight) for part, weight in parts if not math.isnan(part)]
        if not known:
            return math.nan
        return math.exp(sum(math.log(part) * weight for part, weight in known) / sum(weight for _, weight in known))


@dataclass
class Comparison:
    """Reads the probabilities of all views once, counts, and hands on the strips of their mean."""

    views: Sequence[Path]
    """Probability rasters of one grid, that of the tile as it is first."""
    coarse: CoarseMask | None
    threshold: float
    _same: dict[str, float] = field(default_factory=dict)
    _any: dict[str, float] = field(default_factory=dict)
    _valid: int = 0

    def strips(self) -> Iterator[Strip]:
        """Water by the mean of the views; afterwards :meth:`scores` is known."""
        with ExitStack() as stack:
            rasters = [stack.enter_context(rasterio.open(path)) for path in self.views]
            height, width = rasters[0].shape
            step = max(1, _STRIP_PX // width)
            for top in range(0, height, step):
                window = Window(0, top, width, min(step, height - top))
                strip = np.stack([raster.read(1, window=window) for raster in rasters])
                yield Strip(top, *self._compared(strip, window))

    def _compared(self, views: NDArray[np.float32], window: Window) -> tuple[Bools, NDArray[np.float32]]:
        valid = np.isfinite(views).all(axis=0)
        mean = np.where(valid, views.mean(axis=0), np.nan).astype(np.float32)
        water = mean > np.float32(self.threshold)
        logit = math.log(self.threshold / (1 - self.threshold))
        high, low = (1 / (1 + math.exp(-(logit + off))) for off in (OFFSET, -OFFSET))
        self._valid += int(valid.sum())
        self._count("water", water, water)
        self._count("stability", mean > high, mean > low)
        for number, view in enumerate(views):
            self._count(f"view {number}", water, (view > self.threshold) & valid)
        if self.coarse is not None:
            guess, known = self.coarse.read(window)
            self._count("coarse", water & known, guess & valid)
        return water, mean

    def _count(self, name: str, one: Bools, other: Bools) -> None:
        self._same[name] = self._same.get(name, 0) + float((one & other).sum())
        self._any[name] = self._any.get(name, 0) + float((one | other).sum())

    def _iou(self, name: str) -> float:
        """Two empty masks are the same."""
        return self._same[name] / self._any[name] if self._any[name] else 1.0

    def scores(self, expected: Sequence[tuple[float, float]]) -> Scores:
        """What was counted. ``expected``: predicted IoU and weight of each tile."""
        weight = sum(pixels for _, pixels in expected)
        own = sum(iou * pixels for iou, pixels in expected) / weight if weight else math.nan
        views = [self._iou(f"view {number}") for number in range(len(self.views))]
        return Scores(
            min(max(own, 0.0), 1.0) if weight else math.nan,
            self._iou("stability"),
            sum(views) / len(views) if len(views) > 1 else math.nan,
            math.nan if self.coarse is None else self._iou("coarse"),
            self._same["water"] / max(self._valid, 1),
        )

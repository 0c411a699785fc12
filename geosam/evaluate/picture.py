"""The worst images side by side: image, truth, prediction."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from geosam.datasets.shown import found_over, truth_over
from geosam.errors import OutputError
from geosam.evaluate.samples import Sample

_SIDE, _GAP, _TITLE = 320, 6, 18


@dataclass(frozen=True, eq=False)
class Case:
    """One image that went wrong, small enough to keep."""

    title: str
    panels: tuple[Image.Image, Image.Image, Image.Image]
    """Image, truth (blue; grey is not known), prediction (blue; red false, orange missed)."""

    @classmethod
    def of(cls, sample: Sample, found: NDArray[np.bool_], title: str) -> Case:
        """The three panels of an image."""
        truth, said = truth_over(sample.rgb, sample.label), found_over(sample.rgb, found, sample.label)
        return cls(title, (_small(sample.rgb), _small(truth), _small(said)))


@dataclass
class Worst:
    """The images with the lowest score seen so far."""

    keep: int = 8
    _heap: list[tuple[float, int, Case]] = field(default_factory=list)
    _seen: int = 0

    def see(self, score: float, case: Callable[[], Case]) -> None:
        """Look at an image; it is drawn only if it is among the worst. Perfect ones are not kept."""
        self._seen += 1
        if score >= 1 or (len(self._heap) == self.keep and -self._heap[0][0] <= score):
            return
        heapq.heappush(self._heap, (-score, self._seen, case()))
        if len(self._heap) > self.keep:
            heapq.heappop(self._heap)

    @property
    def cases(self) -> list[Case]:
        """The worst first."""
        return [case for _, _, case in sorted(self._heap, key=lambda entry: (-entry[0], entry[1]))]

    def write(self, path: Path) -> None:
        """Write the picture.

        Raises:
            OutputError: It cannot be written.
        """
        cases = self.cases
        heights = [_TITLE + max(panel.height for panel in case.panels) + _GAP for case in cases]
        sheet = Image.new("RGB", (3 * (_SIDE + _GAP) + _GAP, sum(heights) + _TITLE), "white")
        draw = ImageDraw.Draw(sheet)
        legend = "image | truth: blue water, grey not known | prediction: blue right, red false, orange missed"
        draw.text((_GAP, 3), legend if cases else "no image has an error", fill="black")
        for case, top in zip(cases, np.cumsum([_TITLE, *heights]).tolist(), strict=False):
            draw.text((_GAP, top + 3), case.title, fill="black")
            for column, panel in enumerate(case.panels):
                sheet.paste(panel, (_GAP + column * (_SIDE + _GAP), top + _TITLE))
        try:
            sheet.save(path)
        except (OSError, ValueError) as error:
            raise OutputError(
                f"{path} could not be written ({error}). Give --worst a path that ends in .png."
            ) from None


def _small(rgb: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(rgb)
    scale = _SIDE / max(picture.size)
    size = max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)
    return picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC)

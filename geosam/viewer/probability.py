"""The probability of water as a layer: a raster that was given, and over it what the model answered to prompts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.warp import reproject

from geosam.viewer.asking import Answer
from geosam.viewer.place import Place
from geosam.viewer.rasters import BLUES, QUIET, FileLayer, Picture, View, pixels_under

_NUMBERS = itertools.count(1)


@dataclass(frozen=True, eq=False)
class Seen:
    """The probability of one answer; a byte a pixel, since hundreds of them may be kept."""

    left: int
    """First column, in pixels of the working grid."""
    top: int
    """First row."""
    levels: NDArray[np.uint8]
    """Shape (h, w): 0 unknown, 1 to 255 the probability from 0 to 1."""
    number: int = field(default_factory=lambda: next(_NUMBERS))
    """Of its own, rising."""

    @classmethod
    def of(cls, answer: Answer) -> Seen:
        """What an answer says."""
        known = np.isfinite(answer.probability)
        levels = np.where(known, 1 + np.rint(np.nan_to_num(answer.probability) * 254), 0)
        return cls(answer.left, answer.top, levels.astype(np.uint8))


class ProbabilityLayer:
    """The given raster, and on the tiles that were asked what the model said there, the last answer on top.

    Args:
        place: Of the working grid.
        file: The raster that was given, if any.
        seen: Gives the answers that are shown just now, in order.
    """

    def __init__(self, place: Place, file: FileLayer | None, seen: Callable[[], Sequence[Seen]]) -> None:
        self._place, self._file, self._seen = place, file, seen

    def picture(self, grid: GeoBox, view: View) -> Picture:
        """See :class:`geosam.viewer.rasters.RasterLayer`."""
        sure, known = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, bool)
        if self._file is not None:
            given = self._file.picture(grid, view)
            sure, known = given.values[0], given.valid.copy()
        here = pixels_under(grid, self._place)
        for seen in self._seen():
            if here is not None and _meet(here, seen):
                levels = self._on(grid, seen)
                sure = np.where(levels > 0, np.rint((levels - 1.0) * (255 / 254)), sure).astype(np.uint8)
                known |= levels > 0
        return Picture(sure[None], known, BLUES)

    def _on(self, grid: GeoBox, seen: Seen) -> NDArray[np.uint8]:
        """Levels of an answer on a tile of the page."""
        out = np.zeros(grid.shape, np.uint8)
        affine = self._place.geobox.affine @ Affine.translation(seen.left, seen.top)
        with QUIET:
            reproject(
                seen.levels, out, src_transform=affine, src_crs=str(self._place.geobox.crs),
                dst_transform=grid.affine, dst_crs=str(grid.crs), resampling=Resampling.nearest,
            )  # fmt: skip
        return out


def _meet(here: tuple[NDArray[np.float64], NDArray[np.float64]], seen: Seen) -> bool:
    """Whether an answer lies under a tile; ``here`` are the tile's least and greatest (x, y) in pixels."""
    low, high = here
    height, width = seen.levels.shape
    return bool(
        low[0] < seen.left + width and high[0] > seen.left and low[1] < seen.top + height and high[1] > seen.top
    )

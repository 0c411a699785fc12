"""The rules of the first guess: what each reads, what it computes, which thresholds are plausible."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy import ndimage

from geosam import indices
from geosam.coarse.rgb import HALO_PX, RgbLook, fit_look, rgb_score
from geosam.coarse.runs import UNKNOWN

if TYPE_CHECKING:
    from geosam.scene import Scene

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]
UInt8 = NDArray[np.uint8]


_VEGETATION = 0.2
"""NDVI above which a pixel is leaves, whatever its NDWI: open water stays below, the Ucayali's mud below 0.11."""


@dataclass(frozen=True)
class BandRule:
    """An index of bands in their own unit."""

    method: str
    title: str
    roles: tuple[str, ...]
    index: Callable[[Mapping[str, Float]], Float]
    default: float = 0.0
    low: float | None = -0.3
    """Least plausible threshold; None: half a standard spread of the scene below the default."""
    high: float | None = 0.5
    veto: Callable[[Mapping[str, Float]], Bool] | None = None
    """True where a pixel is not water whatever the index says."""

    def sample(self, scene: Scene) -> Float:
        """Scores of a sample of the scene, NaN where unknown."""
        block = scene.sample(self.roles)
        return self._scores(block.values, block.valid)

    def classify(self, scene: Scene, window: Window, threshold: float) -> UInt8:
        """0 dry, 1 water, 255 unknown, for a window of the scene, shape (h, w)."""
        block = scene.read(window, self.roles)
        bands = dict(zip(self.roles, block.values, strict=True))
        scores = self.index(bands)
        water = scores > threshold
        if self.veto is not None:
            water &= ~self.veto(bands)
        classes = water.view(np.uint8)
        # An index of 0 / 0 says nothing: collars of zeros without a nodata tag end here.
        classes[~block.valid | np.isnan(scores)] = UNKNOWN
        return classes

    def bounds(self, scores: Float) -> tuple[float, float]:
        """Least and greatest plausible threshold."""
        if self.low is not None and self.high is not None:
            return self.low, self.high
        seen = scores[np.isfinite(scores)]
        spread = float(np.subtract(*np.percentile(seen, [84, 16]))) / 2 if seen.size else 0.0
        return self.default - spread / 2, self.default + spread / 2

    def _scores(self, values: Float, valid: Bool) -> Float:
        bands = dict(zip(self.roles, values, strict=True))
        scores = self.index(bands)
        if self.veto is not None and self.low is not None:  # Crops and forest: two kinds of land, no bank between.
            scores = np.where(self.veto(bands), np.minimum(scores, np.float32(self.low)), scores)
        return np.where(valid, scores, np.float32(np.nan))


@dataclass(frozen=True)
class RgbRule:
    """A score of the stretched RGB image."""

    method: str
    title: str
    score: Callable[[UInt8], Float]
    default: float | None
    low: float
    high: float
    halo: int = 2
    """Pixels around a window that its scores depend on."""
    roles: tuple[str, ...] = field(default=("red", "green", "blue"), init=False)

    def sample(self, scene: Scene) -> Float:
        """Scores of blocks spread over the scene at its own resolution, NaN where unknown."""
        rgb, valid = sample_rgb(scene)
        scores = np.stack([self.score(block) for block in rgb])
        return np.where(valid, scores, np.float32(np.nan))

    def classify(self, scene: Scene, window: Window, threshold: float) -> UInt8:
        """0 dry, 1 water, 255 unknown, for a window of the scene, shape (h, w)."""
        halo = self.halo
        row, col, height, width = window.row_off, window.col_off, window.height, window.width
        rgb, valid = scene.read_rgb(Window(col - halo, row - halo, width + 2 * halo, height + 2 * halo))
        inner = np.s_[halo : halo + height, halo : halo + width]
        classes = (self.score(rgb)[inner] > threshold).view(np.uint8)
        classes[~valid[inner]] = UNKNOWN
        return classes

    def bounds(self, scores: Float) -> tuple[float, float]:
        """Least and greatest plausible threshold."""
        return self.low, self.high


Rule = BandRule | RgbRule


def _no_leaves(bands: Mapping[str, Float]) -> Bool:
    return indices.ndvi(bands["red"], bands["nir"]) > _VEGETATION


BAND_RULES: dict[str, BandRule] = {
    rule.method: rule
    for rule in (
        BandRule("mndwi", "MNDWI", ("green", "swir1"), lambda b: indices.mndwi(b["green"], b["swir1"])),
        BandRule(
            "awei",
            "AWEI",
            ("green", "nir", "swir1", "swir2"),
            lambda b: indices.awei_nsh(b["green"], b["nir"], b["swir1"], b["swir2"]),
            low=None,
            high=None,
        ),
        BandRule(
            "awei-sh",
            "AWEI with shadows",
            ("blue", "green", "nir", "swir1", "swir2"),
            lambda b: indices.awei_sh(b["blue"], b["green"], b["nir"], b["swir1"], b["swir2"]),
            low=None,
            high=None,
        ),
        BandRule(
            "ndwi-ndvi",
            "NDWI guarded by NDVI",
            ("red", "green", "nir"),
            lambda b: indices.ndwi(b["green"], b["nir"]),
            veto=_no_leaves,
        ),
        BandRule("ndwi", "NDWI", ("green", "nir"), lambda b: indices.ndwi(b["green"], b["nir"])),
    )
}
"""The spectral rules, the most trusted first: SWIR before NIR."""


def _excess_green(rgb: UInt8) -> Float:
    scores = indices.excess_green(*_planes(rgb))
    return -_mean5(np.nan_to_num(scores, copy=False, nan=0.0))


def _darkness(rgb: UInt8) -> Float:
    return _mean5(1.0 - rgb.max(axis=2) * np.float32(1 / 255))


def _hsv_ranges(rgb: UInt8) -> Float:
    """One inside the ranges of blue to cyan and of black water, zero outside."""
    hue, saturation, value = indices.hsv(*_planes(rgb))
    blue = (hue > 0.45) & (hue < 0.72) & (saturation > 0.12)
    inside: Float = (blue | (value < 0.2)).astype(np.float32)
    return inside


RGB_RULES: dict[str, RgbRule] = {
    rule.method: rule
    for rule in (
        RgbRule("exg", "minus excess green", _excess_green, default=None, low=-0.1, high=0.05),
        RgbRule("dark", "darkness", _darkness, default=None, low=0.45, high=0.85),
        RgbRule("hsv", "HSV ranges", _hsv_ranges, default=0.5, low=0.5, high=0.5, halo=0),
    )
}
"""The simple rules of plain RGB, for scenes that are known to suit them; ``auto`` takes the look instead."""


def look_rule(look: RgbLook) -> RgbRule:
    """The rule of plain RGB that ``auto`` takes: dark, smooth, and of the scene's own water colour."""
    return RgbRule("rgb", "RGB look", lambda rgb: rgb_score(rgb, look), 0.0, 0.0, 0.0, halo=HALO_PX)


def fitted_look_rule(scene: Scene) -> RgbRule:
    """The same, fitted to a scene."""
    return look_rule(fit_look(*sample_rgb(scene)))


def sample_rgb(scene: Scene, side: int = 256, across: int = 5) -> tuple[UInt8, Bool]:
    """Blocks of a scene at its own resolution, evenly spread, since texture does not survive decimation.

    Args:
        scene: The scene.
        side: Side of a block in pixels.
        across: Blocks in either direction at most.

    Returns:
        RGB of shape (n, side, side, 3) and valid of shape (n, side, side); a block that overhangs a
        small scene is not valid there.
    """
    starts = [_spread(length, side, across) for length in scene.shape]
    windows = [Window(col, row, side, side) for row in starts[0] for col in starts[1]]
    looks = [scene.read_rgb(window) for window in windows]
    return np.stack([rgb for rgb, _ in looks]), np.stack([valid for _, valid in looks])


def _spread(length: int, side: int, across: int) -> list[int]:
    count = min(across, max(1, length // side))
    return [int(at) for at in np.linspace(0, max(0, length - side), count)]


def _planes(rgb: UInt8) -> list[UInt8]:
    return [rgb[..., band] for band in range(3)]


def _mean5(image: Float) -> Float:
    mean: Float = ndimage.uniform_filter(image, 5, mode="nearest")
    return mean


def known_methods() -> list[str]:
    """Every method by name."""
    return ["auto", *BAND_RULES, "rgb", *RGB_RULES, "learned"]

"""From band units to the eight bits that models were trained on, once for the whole scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Stretch:
    """A straight line a band: ``low`` becomes 0, ``high`` becomes 255, and what is beyond is clipped."""

    low: Triple
    """Red, green, blue in band units."""
    high: Triple
    """Red, green, blue in band units; always above ``low``."""

    def apply(self, rgb: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Stretch to eight bits.

        Args:
            rgb: float32 (3, h, w) in band units; NaN becomes 0.

        Returns:
            uint8 (h, w, 3).
        """
        low = np.asarray(self.low, np.float32)[:, None, None]
        gain = 255 / (np.asarray(self.high, np.float64) - np.asarray(self.low, np.float64))
        scaled = (np.asarray(rgb, np.float32) - low) * gain.astype(np.float32)[:, None, None] + np.float32(0.5)
        eight = np.nan_to_num(np.clip(scaled, 0, 255), copy=False).astype(np.uint8)
        return np.ascontiguousarray(np.moveaxis(eight, 0, -1))

    @property
    def is_identity(self) -> bool:
        """Whether eight-bit values come out as they went in."""
        return self.low == (0.0, 0.0, 0.0) and self.high == (255.0, 255.0, 255.0)


IDENTITY = Stretch((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
DARK, BRIGHT = 1.0, 99.5
"""Percentiles between which a scene's values lie, bar shadows, glint and clouds."""
FOOT = 0.08
"""Room left below the dark percentile, as a share of the span: dark water keeps its texture."""
DIM_BRIGHT, FLAT_SPAN = 128.0, 80.0
"""Eight-bit imagery is stretched if it is darker or flatter than this; photographs reach 160-255 and span 120-230."""
LEAST_SPAN = 64.0
"""... to this many levels at least, so that noise over plain water is not blown up more than fourfold."""


def fit_stretch(rgb: NDArray[np.float32], valid: NDArray[np.bool_], eight_bit: bool) -> Stretch:
    """The stretch that makes a scene look like an ordinary photograph.

    Eight-bit imagery has been made for looking at, and models are trained on such tiles as they
    are, so it stays untouched unless it is very dark or flat. Everything else gets one gain for
    the three bands: with a gain a band, each histogram is pulled to the same range, which turns
    brown water grey and forest purple. The dark end lies halfway between one joint value, which
    leaves the blue of haze in top-of-atmosphere imagery, and one a band, which tints scenes that
    have no dark ground.

    Args:
        rgb: float32 (3, h, w), a sample of the scene in band units.
        valid: bool (h, w), at least one pixel True.
        eight_bit: The bands are uint8 without scale and offset.
    """
    pixels = rgb[:, valid].astype(np.float64)
    dark = np.percentile(pixels, DARK, axis=1)
    dark = np.full(3, dark.min()) if eight_bit else (dark + dark.min()) / 2
    span = float(np.percentile(pixels - dark[:, None], BRIGHT))
    if eight_bit and dark[0] + span >= DIM_BRIGHT and span >= FLAT_SPAN:
        return IDENTITY
    # a constant scene divides by no zero, nor by what float32 cannot tell from it
    span = max(span, LEAST_SPAN if eight_bit else 1e-5 * float(np.abs(dark).max()), 1e-30)
    return Stretch(_triple(dark - FOOT * span), _triple(dark + span))


def _triple(values: NDArray[np.float64]) -> Triple:
    red, green, blue = (float(value) for value in values)
    return red, green, blue

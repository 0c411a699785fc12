"""Water and land in other colours than they had, so that water is known by its form and surface and not by its hue.

The labelled tiles have the water of few rivers, and most of it is darker than its banks. A network that learnt from
them alone takes dark forest for water, and a brown river in it for a road. So the land and the water of a tile are
each given a mean colour and a contrast of their own: sediment, peat, algae, ice-melt, and forest, soil, gravel, snow.
Shadows that are laid over land, and stay land, keep darkness by itself from being a sign of water.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

UInt8 = NDArray[np.uint8]
Float = NDArray[np.float32]
Hues = tuple[tuple[float, float, float], ...]

WATER_HUES = ((1.15, 1.0, 0.78), (1.0, 1.0, 1.0), (0.85, 1.05, 0.9), (0.75, 1.0, 1.15), (1.05, 1.05, 0.85))
"""Brown, grey, green, blue and olive water: red, green and blue over their mean."""
LAND_HUES = ((0.85, 1.15, 0.85), (0.95, 1.15, 0.75), (1.15, 1.0, 0.8), (1.0, 1.0, 1.0), (0.8, 1.1, 1.05))
"""Forest, meadow, soil, rock, and forest under haze."""
DARKEST, LIGHTEST = 0.05, 0.6
"""Range of the mean colours' lightness."""
APART = 0.07
"""Least difference between the two mean colours, of a range of 1 in each of the three bands."""


def repainted(
    image: UInt8, label: UInt8, rng: np.random.Generator, lightest: tuple[float, float] = (LIGHTEST, LIGHTEST)
) -> UInt8:
    """Give water, land, or both another mean colour and contrast; what is drawn on them stays.

    Args:
        image: uint8 (h, w, 3).
        label: uint8 (h, w): 255 water, 0 dry, 128 ignore.
        rng: Draws colours, contrasts and the sharpness of the bank.
        lightest: Greatest lightness of the water, of 1: were it a line, and were it the whole tile. What is wide,
            light and without a mark is a beach, a desert or snow.

    Returns:
        uint8 (h, w, 3).
    """
    x = image.astype(np.float32) / np.float32(255)
    water = label == 255
    limit = lightest[0] + (lightest[1] - lightest[0]) * float(water.mean())
    if not water.any() or water.all():
        hues, light = (WATER_HUES, limit) if water.any() else (LAND_HUES, LIGHTEST)
        return _as_bytes(_painted(x, water | True, hues, light, rng))
    which = int(rng.integers(3))  # Water, land, both.
    painted_water = _painted(x, water, WATER_HUES, limit, rng) if which != 1 else x
    painted_land = _painted(x, ~water, LAND_HUES, LIGHTEST, rng) if which != 0 else x
    means = [part[mask].mean(axis=0) for part, mask in ((painted_water, water), (painted_land, ~water))]
    if np.abs(means[0] - means[1]).max() < APART:
        return image
    share = ndimage.gaussian_filter(water.astype(np.float32), float(rng.uniform(0.4, 1.2)))[..., None]
    return _as_bytes(painted_land + (painted_water - painted_land) * share)


def shaded(image: UInt8, label: UInt8, rng: np.random.Generator) -> UInt8:
    """Shadows of clouds or hills over a part of a tile; what they lie on stays what it is.

    Shapes, dtypes and draws as in :func:`repainted`. Shadows are bluer than what is lit.
    """
    side = max(label.shape)
    cells = int(rng.integers(3, 9))
    noise = ndimage.zoom(rng.normal(0, 1, (cells, cells)), side / cells, order=3)[: label.shape[0], : label.shape[1]]
    dark = (noise > np.quantile(noise, rng.uniform(0.5, 0.9))).astype(np.float32)
    dark = ndimage.gaussian_filter(dark, float(rng.uniform(0.6, 4.0)))[..., None]
    tint = np.array([1.0, 1.05, 1.2], np.float32) * np.float32(rng.uniform(0.2, 0.6))
    x = image.astype(np.float32) / np.float32(255)
    return _as_bytes(x * (1 - dark * (1 - np.minimum(tint, 1.0))))


def _painted(x: Float, where: NDArray[np.bool_], hues: Hues, lightest: float, rng: np.random.Generator) -> Float:
    """The whole picture with the part's mean moved to a drawn colour, and its contrast changed."""
    hue = np.array(hues[int(rng.integers(len(hues)))]) * np.exp(rng.normal(0, 0.06, 3))
    colour = (hue * np.exp(rng.uniform(np.log(DARKEST), np.log(lightest)))).astype(np.float32)
    rest = x - x[where].mean(axis=0)
    if rng.random() < 0.5:
        rest = np.repeat(rest.mean(axis=2, keepdims=True), 3, axis=2)
    lightness = colour.mean() / max(float(x[where].mean()), 0.02)
    contrast = np.float32(np.exp(rng.uniform(np.log(0.4), np.log(1.2))) * np.clip(lightness, 0.3, 1.5))
    return np.asarray(colour + rest * contrast, np.float32)


def _as_bytes(x: Float) -> UInt8:
    return np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)

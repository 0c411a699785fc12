"""Water in plain RGB: dark, smooth, and of the scene's own water colour.

No colour rule carries over from one river to the next: brown, grey, black and shaded water is
common, blue is not. What carries over best is how it looks: darker and much smoother than the
land around it. So each pixel gets log-odds of water from three signs (brightness, texture, and
texture of the wider surroundings), each taken as it is and relative to the scene's median.
Only then colour comes in: the pixels that are clearly water and clearly land by those signs say
which colours tell them apart in this scene.

The seven weights were fitted by ridge logistic regression on labelled aerial, satellite and drone
imagery of 0.3-10 m. Ranked by an area under the ROC curve on the kind of imagery that the
fit had not seen, the three signs reached 0.86; with excess green, blueness and saturation added,
0.80 to 0.83: fixed colour weights fit the imagery they came from, and no other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]
UInt8 = NDArray[np.uint8]

HALO_PX = 16
"""Pixels around a window that its scores depend on: 2 + 10 of the texture boxes, 3 of the last mean, one to spare."""

_OWN = np.array([-1.368, -0.311, -0.803], np.float32)
_RELATIVE = np.array([-4.274, -0.394, -0.683], np.float32)
_BIAS = np.float32(-3.557)
_SURE = 0.8
"""Log-odds (odds 2.2 to 1) beyond which a pixel teaches the scene's colours."""
_COLOUR_WEIGHT, _COLOUR_LIMIT = np.float32(0.25), np.float32(4.0)
"""The colour's log-odds count a quarter and at most one unit: full weight cost 0.09 IoU on narrow rivers."""


@dataclass(frozen=True)
class RgbLook:
    """What was learned from one scene: its medians and its water colours."""

    centre: tuple[float, float, float]
    """Median of brightness, log texture and log wide texture."""
    colour: tuple[float, float, float]
    """Weights of red share, blue share and brightness; zeros where the scene taught none."""
    offset: float
    """Added to the weighted colour, so that zero lies midway between water and land."""


def fit_look(rgb: UInt8, valid: Bool) -> RgbLook:
    """Learn the medians and the water colours of a scene from a sample of it.

    Args:
        rgb: Stretched image at the scene's own resolution, shape (h, w, 3) or (n, h, w, 3) for n
            separate blocks.
        valid: True where there is data, shape of ``rgb`` without its last axis.

    Returns:
        The look; a neutral one where nothing is valid.
    """
    blocks = rgb if rgb.ndim == 4 else rgb[np.newaxis]
    seen = valid if valid.ndim == 3 else valid[np.newaxis]
    return _fit([_view(block) for block in blocks], list(seen))


def rgb_score(rgb: UInt8, look: RgbLook) -> Float:
    """Log-odds of water by the look of an RGB image.

    Args:
        rgb: Stretched image, shape (h, w, 3); :data:`HALO_PX` pixels on each side are affected by
            what lies beyond the image.
        look: From :func:`fit_look`.

    Returns:
        Shape (h, w): above zero is water.
    """
    return _score(_view(rgb), look)


def fitted_score(rgb: UInt8, valid: Bool) -> Float:
    """Log-odds of water in a tile that is a scene of its own: both steps above, the signs computed once."""
    view = _view(rgb)
    return _score(view, _fit([view], [valid]))


@dataclass(frozen=True)
class _View:
    rgb: UInt8
    bright: Float
    """Mean of the three bands in [0, 1], shape (h, w)."""
    signs: Float
    """Brightness, log texture and log wide texture, shape (3, h, w)."""


def _view(rgb: UInt8) -> _View:
    bright = _brightness(rgb)
    return _View(rgb, bright, _signs(bright))


def _fit(views: list[_View], valid: list[Bool]) -> RgbLook:
    # Every third row and column: neighbours repeat each other, and the boxes are 5 px wide anyway.
    thin = [seen[::3, ::3] for seen in valid]
    signs = np.concatenate([view.signs[:, ::3, ::3][:, t] for view, t in zip(views, thin, strict=True)], axis=1)
    if signs.size == 0:
        return RgbLook((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.0)
    centre = np.median(signs, axis=1)
    odds = np.concatenate(
        [_smooth_and_dark(view.signs, centre)[::3, ::3][t] for view, t in zip(views, thin, strict=True)]
    )
    shares = np.concatenate(
        [_colours(view.rgb[::3, ::3], view.bright[::3, ::3])[:, t] for view, t in zip(views, thin, strict=True)], axis=1
    )
    colour, offset = _discriminant(shares[:, odds > _SURE], shares[:, odds < -_SURE], odds.size)
    return RgbLook(_three(centre), _three(colour), offset)


def _score(view: _View, look: RgbLook) -> Float:
    score = _smooth_and_dark(view.signs, np.array(look.centre))
    if any(look.colour):
        weights = np.array(look.colour, np.float32)
        colour = np.tensordot(weights, _colours(view.rgb, view.bright), axes=1) + np.float32(look.offset)
        score += _COLOUR_WEIGHT * np.clip(_box(colour, 5), -_COLOUR_LIMIT, _COLOUR_LIMIT)
    return score


def _brightness(rgb: UInt8) -> Float:
    """Mean of the three bands in [0, 1]."""
    total = rgb[..., 0].astype(np.float32)
    total += rgb[..., 1]
    total += rgb[..., 2]
    total *= np.float32(1 / 765)
    return total


def _signs(bright: Float) -> Float:
    """Brightness, log texture and log wide texture, shape (3, h, w)."""
    mean = _box(bright, 5)
    spread = _box(bright * bright, 5)
    spread -= mean * mean
    np.sqrt(np.maximum(spread, 0.0, out=spread), out=spread)
    return np.stack([mean, np.log(spread + np.float32(0.01)), np.log(_box(spread, 21) + np.float32(0.01))])


def _smooth_and_dark(signs: Float, centre: NDArray[np.floating]) -> Float:
    """Log-odds from the signs alone, shape (h, w); a 7 px mean takes the speckle out."""
    score = np.tensordot(_OWN + _RELATIVE, signs, axes=1)
    score += _BIAS - np.float32(_RELATIVE @ centre)
    return _box(score, 7)


def _colours(rgb: UInt8, bright: Float) -> Float:
    """Red share, blue share (of red + green + blue) and brightness, shape (3, h, w)."""
    # Shares of a nearly black pixel are noise: below a sum of 30 they fade to nothing.
    scale = np.float32(1.0) / np.maximum(bright * np.float32(765), np.float32(30))
    return np.stack([rgb[..., 0] * scale, rgb[..., 2] * scale, bright])


def _discriminant(water: Float, land: Float, seen: int) -> tuple[NDArray[np.float64], float]:
    """Fisher's linear discriminant; zeros where either side is under 1 % of what was seen."""
    if min(water.shape[1], land.shape[1]) < max(10, 0.01 * seen):
        return np.zeros(3), 0.0
    within = (np.cov(water) + np.cov(land)) / 2 + np.eye(3) * 1e-4
    ends = water.mean(axis=1, dtype=np.float64), land.mean(axis=1, dtype=np.float64)
    weights = np.linalg.solve(within, ends[0] - ends[1])
    return weights, -float(weights @ (ends[0] + ends[1])) / 2


def _box(image: Float, size: int) -> Float:
    smooth: Float = ndimage.uniform_filter(image, size, mode="nearest")
    return smooth


def _three(values: NDArray[np.floating]) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third

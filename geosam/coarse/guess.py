"""The rules of plain RGB on one tile in memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geosam.coarse.rgb import fitted_score
from geosam.coarse.rules import RGB_RULES
from geosam.coarse.threshold import fit_threshold
from geosam.errors import OptionsError


def guess_water(rgb: NDArray[np.uint8], valid: NDArray[np.bool_], method: str = "auto") -> NDArray[np.bool_]:
    """Water in one RGB tile by the rules of the coarse mask, the tile taken as a scene of its own.

    Meant for training and evaluation: the mistakes are those of the real first guess. Nothing is
    dropped or filled by area, since a bare tile has no metres.

    Args:
        rgb: Stretched tile, shape (h, w, 3).
        valid: True where there is data, shape (h, w).
        method: ``auto`` or ``rgb`` (dark, smooth, of the tile's own water colour), ``exg``,
            ``dark`` or ``hsv``.

    Returns:
        True where water is guessed, shape (h, w); False where not valid.

    Raises:
        OptionsError: The method is not one of plain RGB.
    """
    if method in ("auto", "rgb"):
        return (fitted_score(rgb, valid) > 0) & valid
    if method not in RGB_RULES:
        raise OptionsError(f"{method!r} is no rule of plain RGB. Use one of auto, rgb, {', '.join(RGB_RULES)}.")
    rule = RGB_RULES[method]
    scores = rule.score(rgb)
    water: NDArray[np.bool_] = scores > fit_threshold(scores[valid], rule.default, rule.low, rule.high).threshold
    return water & valid

"""Tiles that show two places at once, so that water is known by its own look and not by a tile known by heart.

There are far fewer labelled tiles than training draws, and whole tiles without water are learnt as such: a river there
would be overlooked. So the water of one tile, with more or less of its banks, is laid into another; or a wandering
line parts the two. Land laid into land, by the same shapes, keeps the seam from being a sign of water.
Of the kind of CutMix (Yun et al., 2019) and copy-paste (Ghiasi et al., 2021).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

UInt8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]
Place = tuple[UInt8, UInt8]

BY_WATER = 0.6
"""Share of the mixed tiles that are parted along water; a line parts the others."""


def two_places(here: Place, there: Place, rng: np.random.Generator) -> Place:
    """Lay a part of one labelled tile into another.

    Args:
        here: Image uint8 (s, s, 3) and label uint8 (s, s): 255 water, 0 dry, 128 ignore.
        there: Another of the same size, whose part is laid over the first.
        rng: Draws what is laid where, how sharp its edge is and how far the light is matched.

    Returns:
        Image and label of the same shapes; every label is that of the place which is seen there.
    """
    region = _region(here[1], there[1], rng)
    image, label = there
    if rng.random() < 0.5:
        image = _lit_alike(image, here[0], float(rng.uniform(0.3, 1.0)))
    label = np.where(region, label, here[1]).astype(np.uint8)
    share = region.astype(np.float32)
    if rng.random() < 0.7:
        share = ndimage.gaussian_filter(share, float(rng.uniform(0.4, 2.5)))
    mixed = here[0] + (image.astype(np.float32) - here[0]) * share[..., None]
    return np.rint(mixed).astype(np.uint8), label


def _region(here: UInt8, there: UInt8, rng: np.random.Generator) -> Bool:
    """Where the second place is seen: its water and banks, all but the first one's, or one side of a line."""
    if rng.random() < BY_WATER:
        for label, keeps in ((there, True), (here, False)):
            if (label == 255).any():
                around = _widened(label == 255, float(np.exp(rng.uniform(np.log(1.5), np.log(48.0)))))
                return around if keeps else ~around
    return _one_side(here.shape[0], rng)


def _widened(water: Bool, by_px: float) -> Bool:
    """Water and what lies nearer to it than some pixels."""
    return np.asarray(ndimage.distance_transform_edt(~water) <= by_px, bool)


def _one_side(side: int, rng: np.random.Generator) -> Bool:
    """One side of a line through a square, straight or wandering."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    across = (x - side / 2) * np.float32(np.cos(angle)) + (y - side / 2) * np.float32(np.sin(angle))
    noise = ndimage.zoom(rng.normal(0, 1, (8, 8)), side / 8, order=1)[:side, :side]
    wander = noise * side * rng.choice([0.0, 0.06, 0.2])
    return np.asarray(across + wander > rng.uniform(-0.3, 0.3) * side, bool)


def _lit_alike(image: UInt8, model: UInt8, share: float) -> UInt8:
    """An image moved towards the mean colour of another, by a share of the difference."""
    step = (model.mean(axis=(0, 1)) - image.mean(axis=(0, 1))) * share
    return np.asarray(np.clip(image + step, 0, 255), np.uint8)

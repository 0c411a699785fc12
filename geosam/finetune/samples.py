"""Training samples: a picture, the prompts a run would give it, and the mask they ask for.

Three ways of asking, told apart by what is given, so that the model can tell them apart too:

- nothing: all water there is (the no-prompt mode);
- the coarse mask as a dense prompt, with its points: all water, the mask being a hint with mistakes;
- points or a box alone: the water bodies that the water points lie in, and no other. A point that
  lies on dry ground asks for nothing, and gets nothing: this is what lets prompts steer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geosam.coarse import guess_water
from geosam.options import PromptOptions
from geosam.prompts import Prompts, joined, sample_prompts

Bool = NDArray[np.bool_]
UInt8 = NDArray[np.uint8]

OWN_MISTAKES = 0.75
"""Share of the coarse masks that a colour rule makes; the others are the truth spoilt, a better hint than a run has."""


@dataclass(frozen=True)
class Sample:
    """One training example of side S.

    Attributes:
        image: uint8 (3, S, S).
        label: uint8 (S, S): 255 water asked for, 0 not, 128 ignore.
        truth: uint8 (S, S): 255 all water there is, 0 dry, 128 ignore.
        points: float32 (K, 2) as (x, y) pixels.
        labels: int64 (K,): 1 water, 0 dry.
        box: float32 (4,) or None.
        mask: float32 (S/4, S/4), 1 water, -1 dry, or None.
    """

    image: UInt8
    label: UInt8
    truth: UInt8
    points: NDArray[np.float32]
    labels: NDArray[np.int64]
    box: NDArray[np.float32] | None = None
    mask: NDArray[np.float32] | None = None


def make_sample(
    image: UInt8, label: UInt8, rng: np.random.Generator, ways: tuple[float, float, float] = (0.3, 0.35, 0.35)
) -> Sample:
    """Draw a way of asking, by the odds of ``ways``, and build its sample of an image (S, S, 3) and a label (S, S)."""
    way = rng.choice(["none", "hint", "body"], p=np.array(ways) / sum(ways))
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    if way == "none":
        return Sample(planes, label, label, np.zeros((0, 2), np.float32), np.zeros(0, np.int64))
    if way == "hint":
        return _hinted(planes, image, label, rng)
    return _of_one_body(planes, image, label, rng)


def _hinted(planes: UInt8, image: UInt8, label: UInt8, rng: np.random.Generator) -> Sample:
    """All water, with the coarse mask and its points as a hint."""
    coarse = coarse_with_mistakes(image, label, rng)
    options = PromptOptions(points=int(rng.integers(1, 4)), dry_points=int(rng.integers(0, 3)))
    prompts = joined(sample_prompts(coarse, np.ones_like(coarse), options, rng))
    return Sample(planes, label, label, prompts.points[0], prompts.labels[0], mask=dense_prompt(coarse))


def dense_prompt(water: Bool) -> NDArray[np.float32]:
    """A coarse mask (h, w) as the dense prompt, float32 (h/4, w/4): share of water from -1 to 1."""
    h, w = water.shape
    share = water.reshape(h // 4, 4, w // 4, 4).mean(axis=(1, 3), dtype=np.float32)
    return np.asarray(share * 2 - 1, np.float32)


def coarse_with_mistakes(image: UInt8, label: UInt8, rng: np.random.Generator) -> Bool:
    """A coarse mask as a run would have it: a colour rule's own, or the truth spoilt."""
    if rng.random() < OWN_MISTAKES:
        valid = np.ones(label.shape, bool)
        return np.asarray(guess_water(image, valid), bool)
    return spoilt(label == 255, rng)


def spoilt(water: Bool, rng: np.random.Generator) -> Bool:
    """Truth at a coarse resolution with a wandering bank, lost bodies and false ones."""
    step = int(rng.choice([2, 4, 8]))
    h, w = water.shape
    share = water.reshape(h // step, step, w // step, step).mean(axis=(1, 3), dtype=np.float32)
    noise = ndimage.gaussian_filter(rng.normal(size=share.shape).astype(np.float32), float(rng.uniform(1, 6)))
    noise *= np.float32(rng.uniform(0, 0.9) / (noise.std() + 1e-6) * 0.3)
    blurred = ndimage.gaussian_filter(share, float(rng.uniform(0.3, 2.5)))
    coarse = blurred + noise > rng.uniform(0.3, 0.7)
    if rng.random() < 0.3:
        labels, count = ndimage.label(coarse)
        lost = np.flatnonzero(rng.random(count + 1) < 0.4)
        coarse &= ~np.isin(labels, lost[lost > 0])
    if rng.random() < 0.3:
        blob = ndimage.gaussian_filter(rng.normal(size=share.shape).astype(np.float32), float(rng.uniform(2, 8)))
        coarse |= blob > np.quantile(blob, rng.uniform(0.9, 0.995))
    return np.asarray(np.kron(coarse, np.ones((step, step), bool)), bool)


def _of_one_body(planes: UInt8, image: UInt8, label: UInt8, rng: np.random.Generator) -> Sample:
    """The water bodies hit by the points of one prompted body, and no other."""
    source = label == 255 if rng.random() < 0.75 else coarse_with_mistakes(image, label, rng)
    options = PromptOptions(
        points=int(rng.integers(1, 5)), dry_points=int(rng.integers(0, 4)), boxes=True, dense=False, max_bodies=12
    )
    prompts = sample_prompts(source, label != 128, options, rng)
    if len(prompts) == 0:
        return _pointing_at_dry(planes, label, rng)
    row = int(rng.integers(len(prompts)))
    points, labels = points_of(prompts, row, label.shape[0], 1.5, rng)
    target = hit(label, points[labels == 1])
    box = None
    if prompts.boxes is not None and target.any() and rng.random() < 0.2:
        box = jittered(box_of(target == 255), label.shape[0], rng) if (target == 255).any() else None
        if box is not None and rng.random() < 0.5:
            points, labels = points[:0], labels[:0]
    return Sample(planes, target, label, points, labels, box)


def points_of(
    prompts: Prompts, row: int, side: int, jitter_px: float, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Points of one body of a tile, shaken a little, at times with a dry point in another body.

    Returns:
        Points float32 (K, 2) as (x, y) pixels and labels int64 (K,): 1 water, 0 dry.
    """
    keep = prompts.labels[row] >= 0
    points, labels = prompts.points[row][keep], prompts.labels[row][keep]
    points = points + rng.uniform(-jitter_px, jitter_px, points.shape).astype(np.float32)
    if rng.random() < 0.3 and len(prompts) > 1:
        other = (row + 1 + int(rng.integers(len(prompts) - 1))) % len(prompts)
        points = np.concatenate([points, prompts.points[other][:1]])
        labels = np.concatenate([labels, np.zeros(1, np.int64)])
    return np.clip(points, 0.5, side - 0.5).astype(np.float32), labels


def _pointing_at_dry(planes: UInt8, label: UInt8, rng: np.random.Generator) -> Sample:
    """Points at dry ground labelled water: the right answer is nothing."""
    rows, cols = np.nonzero(label == 0)
    count = min(int(rng.integers(1, 5)), len(rows))
    pick = rng.choice(len(rows), count, replace=False) if count else np.zeros(0, np.intp)
    points = np.stack([cols[pick], rows[pick]], axis=1).astype(np.float32) + 0.5
    return Sample(planes, hit(label, points), label, points, np.ones(count, np.int64))


def hit(label: UInt8, points: NDArray[np.float32]) -> UInt8:
    """The label with only those water bodies that a point lies in; other water counts as not asked for."""
    bodies, _ = ndimage.label(label != 0)  # Through the ignored seam: a bank is no reason to cut a body in two.
    rows, cols = points[:, 1].astype(int), points[:, 0].astype(int)
    on_water = label[rows, cols] == 255
    asked = np.isin(bodies, np.unique(bodies[rows[on_water], cols[on_water]])) & (bodies > 0)
    target = np.where((label == 255) & ~asked, 0, label).astype(np.uint8)
    return target


def box_of(water: Bool) -> NDArray[np.float32]:
    """The tight box of a mask that is not empty, float32 (4,): x0, y0, x1, y1 in pixels."""
    rows, cols = np.flatnonzero(water.any(axis=1)), np.flatnonzero(water.any(axis=0))
    return np.array([cols[0], rows[0], cols[-1] + 1, rows[-1] + 1], np.float32)


def jittered(box: NDArray[np.float32], side: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A box with every side moved by up to a twenty-fifth of the tile, as the ancestor did."""
    return np.clip(box + rng.uniform(-side / 25, side / 25, 4), 0, side).astype(np.float32)

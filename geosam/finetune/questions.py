"""Questions to a promptable model: the prompts of one body, and the mask they ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from geosam.finetune.options import TuneOptions
from geosam.finetune.samples import box_of, hit, jittered, points_of, spoilt
from geosam.options import PromptOptions
from geosam.prompts import WATER, Prompts, joined, no_prompts, sample_prompts

Bool = NDArray[np.bool_]
UInt8 = NDArray[np.uint8]
Kind = Literal["none", "dense", "points", "box"]

SAMPLED_PX = 512
"""Points are sampled on a mask of at most about this side: erosion of a 1024 px mask costs more than decoding it."""


@dataclass(frozen=True)
class Way:
    """How all tiles of one step are asked, so that they can be decoded together."""

    kind: Kind
    from_coarse: bool
    points: int
    dry_points: int


def draw_way(options: TuneOptions, understands: frozenset[str], rng: np.random.Generator) -> Way:
    """A way of asking, of those the model understands or is to learn."""
    none = options.none * ("none" in understands or options.learn_none)
    dense = options.dense * ("mask" in understands or options.learn_dense)
    rest = max(1 - none - dense, 0.0)
    odds = np.array([none, dense, rest * (1 - options.boxes), rest * options.boxes])
    kinds: tuple[Kind, ...] = ("none", "dense", "points", "box")
    return Way(
        kind=kinds[int(rng.choice(4, p=odds / odds.sum()))],
        from_coarse=bool(rng.random() < options.coarse),
        points=int(rng.integers(1 if options.vary_points else options.points, options.points + 1)),
        dry_points=int(rng.integers(0 if options.vary_points else options.dry_points, options.dry_points + 1)),
    )


def ask_about(label: UInt8, guess: Bool, way: Way, jitter_px: float, rng: np.random.Generator) -> tuple[Prompts, UInt8]:
    """One question about a tile.

    Args:
        label: uint8 (S, S): 255 water, 0 dry, 128 not known.
        guess: bool (S, S), the coarse mask.
        way: How to ask.
        jitter_px: How far points are shaken.
        rng: Draws body and points.

    Returns:
        Prompts of exactly one row, and the mask they ask for, uint8 (S, S): 255, 0 and 128.
    """
    if way.kind == "none":
        return no_prompts(), label
    if way.kind == "dense":
        return _hinted(label, guess if way.from_coarse else spoilt(label == 255, rng), way, rng)
    source = guess & (label != 128) if way.from_coarse else label == 255
    prompts = _sampled(source, label != 128, PromptOptions(points=way.points, dry_points=way.dry_points), rng)
    if len(prompts) == 0:
        return _pointing_at_dry(label, way, rng)
    row = int(rng.integers(len(prompts)))
    points, labels = points_of(prompts, row, label.shape[0], jitter_px, rng)
    asked = hit(label, points[labels == WATER])
    if way.kind == "box" and (asked == 255).any():
        box = jittered(box_of(asked == 255), label.shape[0], rng)
        points, labels = points[:0], labels[:0]
        return Prompts(points[None], labels[None], box[None]), asked
    return Prompts(points[None], labels[None]), asked


def _hinted(label: UInt8, coarse: Bool, way: Way, rng: np.random.Generator) -> tuple[Prompts, UInt8]:
    options = PromptOptions(points=way.points, dry_points=way.dry_points)
    prompts = joined(_sampled(coarse, np.ones_like(coarse), options, rng))
    return Prompts(prompts.points, prompts.labels, None, coarse), label


def _sampled(water: Bool, valid: Bool, options: PromptOptions, rng: np.random.Generator) -> Prompts:
    """As in segmentation, on every so many-th pixel of a large tile."""
    step = max(water.shape[0] // SAMPLED_PX, 1)
    found = sample_prompts(water[::step, ::step], valid[::step, ::step], options, rng)
    return Prompts(found.points * step, found.labels)


def _pointing_at_dry(label: UInt8, way: Way, rng: np.random.Generator) -> tuple[Prompts, UInt8]:
    """Points said to be water where none is: the right answer is nothing (or what they happen to hit)."""
    rows, cols = np.nonzero(label != 128)
    if len(rows) == 0:
        return no_prompts_at(label.shape[0] / 2), label
    pick = rng.choice(len(rows), way.points)
    points = np.stack([cols[pick], rows[pick]], axis=1).astype(np.float32) + np.float32(0.5)
    return Prompts(points[None], np.full((1, way.points), WATER, np.int64)), hit(label, points)


def no_prompts_at(middle: float) -> Prompts:
    """One water point in the middle of a tile of which nothing is known."""
    return Prompts(np.full((1, 1, 2), middle, np.float32), np.full((1, 1), WATER, np.int64))

"""Batches of training samples: the n-th batch of a run is always the same one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from geosam.datasets import Pair, load_folder
from geosam.finetune.augment import crop, turn, weather
from geosam.finetune.mixing import two_places
from geosam.finetune.recipe import DataSource, Recipe, Stage
from geosam.finetune.repainting import repainted, shaded
from geosam.finetune.samples import Sample, make_sample

UInt8 = NDArray[np.uint8]
OWN_HINTS = 0.3
"""Share of the dense prompts that the model makes itself."""

TOKEN_STEP = 8
"""Points are padded to a multiple of this, as in prediction."""


@dataclass(frozen=True)
class Batch:
    """N samples of side S as tensors; see :class:`geosam.finetune.samples.Sample`.

    Attributes:
        images: uint8 (N, 3, S, S).
        label: uint8 (N, 1, S, S): 255 water asked for, 0 not, 128 ignore.
        truth: uint8 (N, 1, S, S): 255 all water there is.
        points: float32 (N, K, 2), K a multiple of eight.
        labels: int64 (N, K): 1 water, 0 dry, 2 and 3 the corners of a box, -1 padding.
        mask: float32 (N, 1, S/4, S/4).
        has_mask: bool (N,).
        origin: Where the tiles lie in a full-size tile, (x, y) pixels.
        prompts: Whether the mask decoder is to learn from it, or the encoder alone.
        own_hint: bool (N,), rows whose dense prompt is to be what the model itself finds without one.
        own_scale: Of the look that gives it: 0.5 for half the resolution, as the first look at a scene, or 1.
    """

    images: Tensor
    label: Tensor
    truth: Tensor
    points: Tensor
    labels: Tensor
    mask: Tensor
    has_mask: Tensor
    origin: tuple[float, float]
    prompts: bool = True
    own_hint: Tensor | None = None
    own_scale: float = 1.0


class _Source:
    """One source of pictures and labels, held in memory or made from a seed."""

    def __init__(self, options: DataSource, root: Path, cache: Path) -> None:
        self.options, self.cache = options, cache
        self.pictures: list[tuple[UInt8, UInt8]] = []
        self.dry: list[tuple[UInt8, UInt8]] = []
        if options.folder != "synth":
            self._load(root)

    def _load(self, root: Path) -> None:
        o = self.options
        pairs = load_folder(
            root / o.folder, images=o.images, masks=o.masks, splits=o.splits, except_groups=o.except_groups,
            names=o.names, columns=o.columns, negatives=o.negatives,
        )  # fmt: skip
        wet = [pair for pair in pairs if pair.mask is not None]
        self.pictures = [pair.read() for pair in wet]
        self.dry = [pair.read() for pair in pairs if pair.mask is None]
        weights = np.array([self._weight(pair) for pair in wet])
        self.odds = weights / weights.sum()

    def _weight(self, pair: Pair) -> float:
        return self.options.tier_weights.get(pair.facts.get("tier", ""), 1.0)

    def draw(self, rng: np.random.Generator) -> tuple[UInt8, UInt8]:
        """A picture (h, w, 3) and its label (h, w)."""
        if self.options.folder == "synth":
            return self._synthetic(self.options.first_seed + int(rng.integers(self.options.scenes)))
        if self.dry and rng.random() < self.options.negative_share:
            return self.dry[int(rng.integers(len(self.dry)))]
        return self.pictures[int(rng.choice(len(self.pictures), p=self.odds))]

    def _synthetic(self, seed: int) -> tuple[UInt8, UInt8]:
        """A made scene; kept on disk, since drawing one costs more than a training step."""
        from geosam.synth import make_tile

        kept = self.cache / f"{seed}.npz"
        if kept.exists():
            with np.load(kept) as stored:
                return stored["rgb"], stored["label"]
        tile = make_tile(seed, size_px=512)
        label = tile.water.astype(np.uint8) * np.uint8(255)
        part = kept.with_suffix(f".{np.random.default_rng().integers(1 << 30)}.part.npz")
        np.savez(part, rgb=tile.rgb, label=label)
        part.replace(kept)
        return tile.rgb, label


class Batches(Dataset[Batch]):
    """``batches[n]`` is the n-th batch of the run; nothing depends on what was drawn before.

    What stage of the schedule it belongs to follows from n and the greatest number of steps, or,
    where the clock is what ends the run, from ``stage``, which :meth:`reach` moves on in every process.
    """

    def __init__(self, recipe: Recipe, root: Path, cache: Path) -> None:
        self.schedule = recipe.schedule
        self.stage = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self.full_side = int(recipe.model.get("image_size", 512))
        self.sources = [_Source(options, root, cache) for options in recipe.data]
        cache.mkdir(parents=True, exist_ok=True)  # A fault of the data leaves nothing behind.
        weights = np.array([source.options.weight for source in self.sources])
        self.odds = weights / weights.sum()

    def __len__(self) -> int:
        return self.schedule.steps

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.schedule.seed, step])
        stage = self.schedule.stages[max(int(self.stage), self.schedule.stage_at(step / self.schedule.steps))]
        large = stage.large_every > 0 and step % stage.large_every == stage.large_every - 1
        side = stage.side * (2 if large else 1)
        count = max(stage.batch // (4 if large else 1), 1)
        samples = [self._sample(side, stage, rng) for _ in range(count)]
        room = self.full_side - side
        origin = (float(rng.integers(room + 1)), float(rng.integers(room + 1))) if room > 0 else (0.0, 0.0)
        batch = replace(collate(samples, origin), prompts=stage.prompts)
        return _with_own_hints(batch, rng) if stage.prompts else batch

    def reach(self, done: float) -> None:
        """Move on to the stage at a share of the budget that is done."""
        self.stage.fill_(self.schedule.stage_at(done))

    def _sample(self, side: int, stage: Stage, rng: np.random.Generator) -> Sample:
        image, label = self._place(side, rng)
        odds = stage.mixed if (label == 255).any() else stage.mixed_dry
        if odds and rng.random() < odds:
            image, label = two_places((image, label), self._place(side, rng), rng)
        if stage.repainted and rng.random() < stage.repainted:
            image = repainted(image, label, rng, stage.repainted_light)
        if stage.shaded and rng.random() < stage.shaded:
            image = shaded(image, label, rng)
        if rng.random() < stage.weather:
            image = weather(image, rng)
        return make_sample(image, label, rng, stage.ways if stage.prompts else (1.0, 0.0, 0.0))

    def _place(self, side: int, rng: np.random.Generator) -> tuple[UInt8, UInt8]:
        """One crop of one tile, turned."""
        source = self.sources[int(rng.choice(len(self.sources), p=self.odds))]
        return turn(*crop(*source.draw(rng), side, source.options.zoom, rng), rng)


def collate(samples: Sequence[Sample], origin: tuple[float, float]) -> Batch:
    """Stack samples of one side; a box becomes two corner points, as SAM's encoder has it."""
    side = samples[0].label.shape[0]
    widest = max(len(sample.points) + (2 if sample.box is not None else 0) for sample in samples)
    room = max(-(-widest // TOKEN_STEP) * TOKEN_STEP, TOKEN_STEP)
    points = np.zeros((len(samples), room, 2), np.float32)
    labels = np.full((len(samples), room), -1, np.int64)
    mask = np.zeros((len(samples), 1, side // 4, side // 4), np.float32)
    for row, sample in enumerate(samples):
        given, kinds = _with_box(sample)
        points[row, : len(given)], labels[row, : len(given)] = given, kinds
        if sample.mask is not None:
            mask[row, 0] = sample.mask
    return Batch(
        torch.from_numpy(np.stack([sample.image for sample in samples])),
        torch.from_numpy(np.stack([sample.label for sample in samples]))[:, None],
        torch.from_numpy(np.stack([sample.truth for sample in samples]))[:, None],
        torch.from_numpy(points),
        torch.from_numpy(labels),
        torch.from_numpy(mask),
        torch.tensor([sample.mask is not None for sample in samples]),
        origin,
    )


def _with_own_hints(batch: Batch, rng: np.random.Generator) -> Batch:
    """Let half of the dense prompts be the model's own first look, whose mistakes no other mask has.

    These rows get no points: those of the spoilt truth would tell what the model's own mask does not know.
    """
    own = batch.has_mask & torch.from_numpy(rng.random(len(batch.has_mask)) < OWN_HINTS)
    labels = torch.where(own[:, None], -1, batch.labels)
    return replace(batch, labels=labels, own_hint=own, own_scale=float(rng.choice([0.5, 1.0])))


def _with_box(sample: Sample) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    if sample.box is None:
        return sample.points, sample.labels
    corners = sample.box.reshape(2, 2)
    return np.concatenate([sample.points, corners]), np.concatenate([sample.labels, np.array([2, 3])])

"""The questions of a step, made ahead on other threads, and the loss of the model's answers."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geosam.finetune.kept import detached, embeddings_of
from geosam.finetune.losses import iou_head, mask_loss
from geosam.finetune.options import TuneOptions
from geosam.finetune.questions import Kind, UInt8, Way, ask_about, draw_way
from geosam.finetune.quick import quick
from geosam.finetune.store import Store
from geosam.finetune.suited import Suited
from geosam.models.image_encoder import Features
from geosam.predict.views import turned
from geosam.prompts import Prompts

Losses = tuple[Tensor, Tensor, Tensor]
"""Of every tile the loss, its mask part and its IoU part, each float (n,)."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """A tile as one step sees it, and what it is asked.

    Attributes:
        number: Of the chip in the store.
        view: In which it is seen.
        kind: How it is asked; the same for all tiles of a step.
        label: uint8 (S, S) in that view: 255 water, 0 dry, 128 not known.
        prompts: Of one row.
        asked_for: The mask they ask for, as ``label``.
    """

    number: int
    view: int
    kind: Kind
    label: UInt8
    prompts: Prompts
    asked_for: UInt8


class Lessons:
    """Makes questions about the chips of a store, and says what a model's answers cost."""

    def __init__(self, model: Any, store: Store, options: TuneOptions, suits: Suited, threads: int = 1) -> None:
        self.model, self.store, self.options, self.suits = model, store, options, suits
        # A question about a tile of 1024 px takes 20 to 50 ms, which is more than a GPU needs to decode it.
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="lessons")

    def ask(self, numbers: Sequence[int], epoch: int, step: int) -> list[Future[Lesson]]:
        """Begin to ask about some chips; the same questions for the same seed, epoch and step."""
        rng = np.random.default_rng([self.options.seed, epoch, step])
        way = draw_way(self.options, self.model.understands, rng)
        return [self.pool.submit(self._lesson, number, epoch, way) for number in numbers]

    def _lesson(self, number: int, epoch: int, way: Way) -> Lesson:
        rng = np.random.default_rng([self.options.seed, epoch, 1_000_000 + number])
        view = int(rng.integers(self.suits.views))
        label, guess = (turned(part, view) for part in (self.store.labels[number], self.store.guess(number)))
        prompts, asked_for = ask_about(label, guess, way, self.options.jitter_px, rng)
        return Lesson(number, view, way.kind, label, prompts, asked_for)

    def loss(self, lessons: Sequence[Lesson]) -> Losses:
        """What the model's answers cost."""
        tensors = self.store.tensors([one.number for one in lessons], [one.view for one in lessons])
        with quick(self.model.device, self.model.dtype):
            return self._cost(tensors, lessons)

    def _cost(self, tensors: dict[str, Tensor], lessons: Sequence[Lesson]) -> Losses:
        embeddings = embeddings_of(self.model, tensors)
        if not (self.options.none and getattr(self.model, "plain", False)):
            return self._of_masks(embeddings, lessons)
        water = self._of_water(embeddings, lessons)
        if lessons[0].kind == "none":
            return water
        # Detached, or a question about one body would teach the way down to see that body alone.
        asked = self._of_masks(detached(embeddings), lessons)
        return water[0] + asked[0], water[1] + asked[1], water[2] + asked[2]

    def _of_water(self, embeddings: Features, lessons: Sequence[Lesson]) -> Losses:
        """Of the way down's answer to nothing asked; it predicts no IoU."""
        assert embeddings.water is not None
        truth, known = self._truth([one.label for one in lessons])
        size = (truth.shape[-2], truth.shape[-1])
        logits = F.interpolate(embeddings.water, size, mode="bilinear", align_corners=False)
        loss = mask_loss(self.options.loss, logits.float(), truth, known)
        return loss, loss, torch.zeros_like(loss)

    def _of_masks(self, embeddings: Any, lessons: Sequence[Lesson]) -> Losses:
        """Of the decoder's answers."""
        target, known = self._truth([one.asked_for for one in lessons])
        masks = torch.zeros(len(lessons), device=target.device)
        heads = torch.zeros_like(masks)
        for many in (False, True) if self.options.multimask else (False,):
            low, predicted = self.model.ask(embeddings, [one.prompts for one in lessons], many=many)
            size = (target.shape[-2], target.shape[-1])
            logits = F.interpolate(low, size, mode="bilinear", align_corners=False)
            each = torch.stack(
                [mask_loss(self.options.loss, one, target, known) for one in torch.split(logits, 1, dim=1)], dim=1
            )
            best = each.argmin(dim=1, keepdim=True)
            masks = masks + each.gather(1, best)[:, 0]
            # Without gradients, as the IoU that is reached has none; picking one of one would copy all of it.
            chosen = logits.detach() if not many else _picked(logits.detach(), best)
            heads = heads + iou_head(predicted.gather(1, best), chosen, target, known)
        return masks + self.options.iou_weight * heads, masks, heads

    def _truth(self, masks: Sequence[UInt8]) -> tuple[Tensor, Tensor]:
        """Water and what is known of masks of 255, 0 and 128, each float (n, 1, S, S)."""
        truth = torch.from_numpy(np.stack(masks))[:, None].to(self.model.device)
        return (truth == 255).float(), (truth != 128).float()


def _picked(logits: Tensor, best: Tensor) -> Tensor:
    """Of each tile's logits, (n, M, h, w), those of one mask, (n, 1, h, w), by its number, (n, 1)."""
    return logits.gather(1, best[..., None, None].expand(-1, 1, *logits.shape[-2:]))

"""Many points on one tile: the masks of each point by itself, as the automatic mask generator asks for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from geosam.errors import ModelError, RunError
from geosam.models.protocol import DRY_LOGIT, Embeddings, PromptableModel
from geosam.prompts import WATER, Prompts, no_prompts

Clicks = Callable[[Embeddings, NDArray[np.float32], float], tuple[Tensor, Tensor]]
"""From the embeddings of one tile, n points, float32 (n, 2) as (x, y) in its pixels, and a limit, to those of their
masks whose predicted IoU is greater (0: to all): logits float32 (k, h, w) at the network's low resolution, and the
predicted IoUs, float32 (k,)."""

_BANK_PX = 3
"""Pixels around a body whose logits say how sure its outline is."""

Answers = Callable[[Embeddings, NDArray[np.float32]], tuple[Tensor, Tensor]]
"""The same for all masks: logits float32 (n, M, h, w) and predicted IoUs (n, M); M masks a point, 1 or 3."""


def clicks_of(model: PromptableModel) -> Clicks:
    """How a model answers many points of one tile.

    A model may bring a way of its own as a method ``clicks``, which is an :data:`Answers`.

    Raises:
        ModelError: It does not understand points, or cannot answer them one by one.
    """
    if "points" not in model.understands:
        known = ", ".join(sorted(model.understands))
        raise ModelError(
            f"{model.name} does not understand points (it understands {known}), and segments are asked for by points. "
            "Choose another --model, for example sam-vit-base."
        )
    own = getattr(model, "clicks", None)
    if own is not None:
        return _passing(own, model)
    if _is_plain_sam(model):
        from geosam.models.points import PointDecoder

        return PointDecoder(model)
    if "none" in model.understands and masks_a_point(model) == 1:
        return BodiesHit(model)
    if not hasattr(model, "ask") or not hasattr(model, "unpack"):
        raise ModelError(f"{model.name} does not give the masks of single points. Choose another --model.")
    return _passing(_asked_by(model), model)


class BodiesHit:
    """The way of river-tiny and its kin, which find all water at once: a point's mask is the body that it lies in.

    Asked by a point alone they give nearly the same answer for every point. What stands for the predicted IoU is the
    mean probability of the body.
    """

    def __init__(self, model: PromptableModel) -> None:
        self.model = model
        self._seen: tuple[Embeddings, Tensor, NDArray[np.int32]] | None = None

    @torch.inference_mode()
    def __call__(self, embeddings: Embeddings, points: NDArray[np.float32], least: float) -> tuple[Tensor, Tensor]:
        """Each body that a point lies in, once, at the tile's own resolution; see :data:`Clicks`."""
        if self._seen is None or self._seen[0] is not embeddings:
            logits = self.model.decode(embeddings, [no_prompts()])[0].float().cpu()
            labels = np.asarray(ndimage.label((logits > 0).numpy())[0], np.int32)
            self._seen = embeddings, logits, labels
        _, logits, labels = self._seen
        col, row = np.floor(points).astype(int).T
        hit = np.unique(labels[row, col])
        bodies = [_body(logits, labels, int(number)) for number in hit[hit > 0]]
        low = torch.stack(bodies) if bodies else logits.new_zeros(0, *logits.shape)
        inside = low > 0
        predicted = (low.sigmoid() * inside).sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp(min=1)
        passed = above(predicted, least, self.model)
        return low[passed], predicted[passed]


def _body(logits: Tensor, labels: NDArray[np.int32], number: int) -> Tensor:
    """Logits of one body and its bank, surely dry elsewhere."""
    near = ndimage.binary_dilation(labels == number, iterations=_BANK_PX) & ((labels == number) | (labels == 0))
    return torch.where(torch.from_numpy(near), logits, torch.full_like(logits, DRY_LOGIT))


def masks_a_point(model: PromptableModel) -> int:
    """3 of a model that gives whole, part and sub-part, else 1."""
    return 3 if getattr(model, "multimask", False) else 1


def above(predicted: Tensor, least: float, model: PromptableModel) -> Tensor:
    """Which masks pass a limit of their predicted IoU; 0: all do.

    Raises:
        RunError: The model predicted NaN.
    """
    if torch.isnan(predicted).any():
        raise RunError(f"model {model.name} gave NaN as {model.dtype}; try --dtype float32.")
    return predicted > least if least > 0 else torch.ones_like(predicted, dtype=torch.bool)


def _is_plain_sam(model: Any) -> bool:
    from geosam.models.sam import SamAdapter

    return type(model) is SamAdapter


def _passing(answers: Answers, model: PromptableModel) -> Clicks:
    """All masks, then those that pass."""

    def clicks(embeddings: Embeddings, points: NDArray[np.float32], least: float) -> tuple[Tensor, Tensor]:
        logits, predicted = answers(embeddings, points)
        passed = above(predicted, least, model)
        return logits[passed], predicted[passed]

    return clicks


def _asked_by(model: Any) -> Answers:
    """The way of every model that can be trained: the tile's embeddings once for each point."""

    @torch.inference_mode()
    def answers(embeddings: Embeddings, points: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
        parts = {name: part.expand(len(points), *part.shape[1:]) for name, part in model.pack(embeddings).items()}
        prompts = [Prompts(xy[None, None], np.full((1, 1), WATER)) for xy in points]
        found: tuple[Tensor, Tensor] = model.ask(model.unpack(parts), prompts, many=masks_a_point(model) > 1)
        return found

    return answers

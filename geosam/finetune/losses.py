"""Losses on mask logits with an explicit channel axis, and on the predicted IoU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def binary_cross_entropy(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy over the known pixels of each mask.

    Args:
        logits: float (N, 1, h, w).
        target: float (N, 1, h, w), 1 water, 0 dry.
        known: float (N, 1, h, w), 0 where the label is to be ignored.

    Returns:
        float (N,); 0 for a mask without a known pixel.
    """
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * known
    return loss.sum(dim=(1, 2, 3)) / known.sum(dim=(1, 2, 3)).clamp(min=1)


def dice(logits: Tensor, target: Tensor, known: Tensor, smooth: float = 100.0) -> Tensor:
    """One minus the Dice coefficient of each mask; shapes as in :func:`binary_cross_entropy`.

    ``smooth`` is in pixels: it keeps the loss of an empty target gentle, so that a stray pixel
    in a dry tile does not weigh as much as a missed river.
    """
    p = logits.sigmoid() * known
    overlap = (p * target).sum(dim=(1, 2, 3))
    total = p.sum(dim=(1, 2, 3)) + (target * known).sum(dim=(1, 2, 3))
    return 1 - (2 * overlap + smooth) / (total + smooth)


def intersection_over_union(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """IoU of each mask cut at probability 0.5, float (N,); 1 where both are empty."""
    p, t = (logits > 0) & (known > 0), (target > 0.5) & (known > 0)
    union = (p | t).sum(dim=(1, 2, 3))
    overlap = (p & t).sum(dim=(1, 2, 3))
    return torch.where(union > 0, overlap / union.clamp(min=1), 1.0)


def iou_head(predicted: Tensor, logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Squared error of the predicted IoU, float (N, 1), against the one reached; result float (N,)."""
    with torch.no_grad():
        reached = intersection_over_union(logits, target, known)
    return (predicted[:, 0] - reached) ** 2

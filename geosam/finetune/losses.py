"""Losses on mask logits with an explicit channel axis, and on the predicted IoU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from geosam.finetune.options import Loss


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


def focal(logits: Tensor, target: Tensor, known: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss over the known pixels of each mask, float (N,); shapes as in :func:`binary_cross_entropy`.

    Source: Lin et al. (2017), Focal Loss for Dense Object Detection, equation 5.
    """
    p = logits.sigmoid()
    right = p * target + (1 - p) * (1 - target)
    weight = (alpha * target + (1 - alpha) * (1 - target)) * (1 - right) ** gamma
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight * known
    return loss.sum(dim=(1, 2, 3)) / known.sum(dim=(1, 2, 3)).clamp(min=1)


def boundary(logits: Tensor, target: Tensor, known: Tensor, stride: int = 4) -> Tensor:
    """Probability times signed distance from the target's bank, in sides of the tile, float (N,).

    Negative inside: the loss is least when all of the target and nothing else is found, and a
    pixel counts the more the farther from the bank it is wrong. A mask without a bank gives 0.
    Source: Kervadec et al. (2019), Boundary loss for highly unbalanced segmentation, equation 5.

    Args:
        logits: float (N, 1, h, w).
        target: float (N, 1, h, w).
        known: float (N, 1, h, w).
        stride: Every so many-th pixel of each axis is looked at.
    """
    small = [part[..., ::stride, ::stride] for part in (logits, target, known)]
    distance = torch.stack([_signed_distance(mask) for mask in small[1][:, 0]])[:, None].to(logits)
    loss = small[0].sigmoid() * distance * small[2]
    return loss.sum(dim=(1, 2, 3)) / small[2].sum(dim=(1, 2, 3)).clamp(min=1)


def _signed_distance(mask: Tensor) -> Tensor:
    """Distance to the bank of a mask (h, w) in sides of it, negative inside; 0 where there is no bank."""
    water = mask.detach().cpu().numpy() > 0.5
    if water.all() or not water.any():
        return torch.zeros(mask.shape)
    away = ndimage.distance_transform_edt(~water) - ndimage.distance_transform_edt(water)
    return torch.from_numpy(away.astype("float32")) / max(mask.shape)


def mask_loss(name: Loss, logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """The loss of a name of :data:`~geosam.finetune.options.Loss` on each mask, float (N,).

    ``sam`` is 20 focal : 1 Dice, after Kirillov et al. (2023), Segment Anything, appendix A.
    """
    if name == "bce":
        return binary_cross_entropy(logits, target, known)
    if name == "dice":
        return dice(logits, target, known)
    if name == "focal":
        return focal(logits, target, known)
    if name == "sam":
        return 20 * focal(logits, target, known) + dice(logits, target, known)
    both = binary_cross_entropy(logits, target, known) + dice(logits, target, known)
    return both + boundary(logits, target, known) if name == "boundary" else both

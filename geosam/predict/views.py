"""The eight views of a tile (the group D4): the same ground, turned and mirrored, is asked about again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geosam.prompts import Prompts

if TYPE_CHECKING:
    from geosam.models import PromptableModel

VIEWS = 8
"""View n: n % 4 quarter turns, counter-clockwise, and from 4 on a mirror image of what they give."""


def turned(planes: NDArray[Any], view: int) -> NDArray[Any]:
    """One view of the last two axes, (..., h, w) or for odd views (..., w, h)."""
    out = np.rot90(planes, view % 4, axes=(-2, -1))
    return np.ascontiguousarray(out[..., ::-1] if view >= 4 else out)


def turned_tensor(planes: Tensor, view: int) -> Tensor:
    """As :func:`turned`."""
    out = torch.rot90(planes, view % 4, (-2, -1))
    return out.flip(-1) if view >= 4 else out


def turned_back(planes: Tensor, view: int) -> Tensor:
    """The tile that :func:`turned_tensor` made this view of."""
    return torch.rot90(planes.flip(-1) if view >= 4 else planes, -(view % 4), (-2, -1))


def turned_prompts(prompts: Prompts, view: int, shape: tuple[int, int]) -> Prompts:
    """Prompts of a view of a tile of this height and width, pixels."""
    boxes = None
    if prompts.boxes is not None:
        corners = _turned_points(prompts.boxes.reshape(-1, 2, 2), view, shape)
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    mask = None if prompts.mask is None else turned(prompts.mask[: shape[0], : shape[1]], view)
    return replace(prompts, points=_turned_points(prompts.points, view, shape), boxes=boxes, mask=mask)


def _turned_points(points: NDArray[np.float32], view: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Points (..., 2) as (x, y); a quarter turn counter-clockwise takes the right border to the top."""
    x, y, (height, width) = points[..., 0], points[..., 1], shape
    for _ in range(view % 4):
        x, y, height, width = y, width - x, width, height
    return np.stack([width - x if view >= 4 else x, y], axis=-1).astype(np.float32)


def mean_logits(model: PromptableModel, images: Tensor, prompts: Sequence[Prompts], views: int) -> Tensor:
    """Mean over the first so many views of a model's logits of water, float32 (B, h, w).

    Args:
        model: Embeds and decodes.
        images: uint8 (B, 3, h, w).
        prompts: One a tile.
        views: 2 to 8.
    """
    total, shape = None, (images.shape[2], images.shape[3])
    # The mirror image first, so that two views are a tile and its mirror image; then turns.
    for view in (0, 4, 2, 6, 1, 5, 3, 7)[:views]:
        embeddings = model.embed(turned_tensor(images, view).contiguous())
        logits = model.decode(embeddings, [turned_prompts(one, view, shape) for one in prompts])
        back = turned_back(logits, view).float()
        total = back if total is None else total + back
    assert total is not None
    return total / views

"""What an index of bands that the model does not see says of a tile, on the model's device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from geosam.models.device import to_device

MODEL_SAY = 4.0
"""Greatest log-odds of a model beside a trusted index: it is over-confident on ground unlike its training's."""


@dataclass(frozen=True)
class Hint:
    """A coarse mask that is trusted."""

    water: NDArray[np.bool_]
    """Shape (tile_px, tile_px)."""
    known: NDArray[np.bool_]
    """Same shape; elsewhere it says nothing."""
    trust: float
    """Log-odds of water well inside it."""

    def added_to(self, logits: Tensor) -> Tensor:
        """Logits of water of the tile or its upper left part, float32 (h, w), with what the mask says added."""
        height, width = logits.shape
        water, known = (
            to_device(torch.from_numpy(np.ascontiguousarray(one)), logits.device) for one in (self.water, self.known)
        )
        says = log_odds(water, known, self.trust)[:height, :width]
        return logits.clamp(-MODEL_SAY, MODEL_SAY) + says


def log_odds(water: Tensor, known: Tensor, trust: float) -> Tensor:
    """What a mask says of each pixel, as log-odds of water.

    It is least sure at its own edges, where a pixel is part water: there it has 0.6 of its trust,
    and all of it from the third pixel on.

    Args:
        water: Bool (h, w).
        known: Bool (h, w).
        trust: Log-odds from the third pixel on.

    Returns:
        float32 (h, w); 0 where nothing is known.
    """
    # Which of the two kinds are found within so many pixels.
    around = torch.stack([water, ~water])[None].float()
    steps = torch.ones(water.shape, device=water.device)
    for _ in range(2):
        around = F.max_pool2d(around, 3, stride=1, padding=1)
        steps += around.sum(dim=1)[0] < 2
    share = torch.where(known, 0.4 + 0.2 * steps, 0.0)
    return torch.where(water, trust * share, -trust * share)

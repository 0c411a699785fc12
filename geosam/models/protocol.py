"""What every model can do: embed tiles once, then decode prompts on them as often as wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from geosam.prompts import Prompts

Embeddings: TypeAlias = Any
"""What a model keeps of a batch of tiles. Opaque: only the model that made it can read it."""

DRY_LOGIT = -20.0
"""Logit of a tile that was given no water body: a probability of 2e-9, and finite, so that it can be averaged."""


def best_of(logits: Tensor, predicted: Tensor) -> Tensor:
    """Of the M masks of each body the one of highest predicted IoU.

    Args:
        logits: float (n, M, h, w).
        predicted: IoUs that the model expects of them, float (n, M).

    Returns:
        float (n, 1, h, w).
    """
    best = predicted.argmax(dim=1)
    return logits[torch.arange(len(logits), device=logits.device), best][:, None]


@runtime_checkable
class PromptableModel(Protocol):
    """A model that is given tiles and prompts, and gives logits of water.

    One that was trained to give whole, part and sub-part of a body says so by an attribute ``multimask = True``.

    Attributes:
        name: As the user named it; written to the report and to every polygon.
        tile_px: Side of the tiles it was trained on, in pixels; tiles are never resized.
        step_px: It also takes tiles that are smaller, in either direction, by a multiple of this; None: full ones only.
        sha256: Of its weights, in hex.
        device: Where it runs.
        dtype: Precision of its inner arithmetic; logits are float32 whatever it is.
        threshold: Probability at which its masks are best.
        understands: Which prompts mean something to it, of "points", "boxes", "mask", "none".
    """

    name: str
    tile_px: int
    step_px: int | None
    sha256: str
    device: torch.device
    dtype: torch.dtype
    threshold: float
    understands: frozenset[str]

    def embed(self, images: Tensor) -> Embeddings:
        """Encode tiles, uint8 (B, 3, tile_px, tile_px) as RGB, on any device; smaller ones as ``step_px`` says."""
        ...

    def decode(self, embeddings: Embeddings, prompts: Sequence[Prompts]) -> Tensor:
        """Logits of water, float32 on :attr:`device`, of the tiles' shape: (B, tile_px, tile_px).

        Args:
            embeddings: Of B tiles, from this model's :meth:`embed`.
            prompts: One a tile. Kinds of prompt that the model does not understand are passed over. With ``multimask``
                a body's mask is the one of three whose predicted IoU is highest.

        Returns:
            Logits; the bodies of one tile are joined by their maximum, and a tile without any
            body is :data:`DRY_LOGIT` everywhere.

        Raises:
            ModelError: A body has no prompt that the model understands, or ``multimask`` asks for masks it has not.
        """
        ...

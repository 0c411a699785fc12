"""What is kept of a tile, so that the frozen encoder need not run again: what the first part that learns is given.

Of a SAM that is the image embedding. river-tiny answers with its encoder's way down, from the embedding to fine
features and to all water; so that learns with the decoder, and what it is given is kept instead of what it gives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from geosam.models.device import autocast
from geosam.models.image_encoder import Features, WayDown

_GIVEN = ("embedding", "fine4", "fine8")
"""What a way down is given, by the names under which it is kept."""


def way_down_of(model: Any) -> WayDown | None:
    """The way down of a model's encoder; None for those that have none."""
    return getattr(getattr(model.module, "image_encoder", None), "way_down", None)


@torch.no_grad()  # Not inference_mode, whose tensors a way down that learns could not be given.
def encoded(model: Any, images: Tensor) -> dict[str, Tensor]:
    """What is kept of tiles, uint8 (B, 3, S, S) as RGB: named tensors, each (B, ...)."""
    way_down = way_down_of(model)
    if way_down is None:
        packed: dict[str, Tensor] = model.pack(model.encode(images))
        return packed
    seen: list[Any] = []
    hook = way_down.register_forward_pre_hook(lambda _module, given: seen.append(given))
    try:
        model.encode(images)  # Not embed, which may run a faster copy of the encoder.
    finally:
        hook.remove()
    return dict(zip(_GIVEN, seen[0], strict=True))


def embeddings_of(model: Any, tensors: dict[str, Tensor]) -> Any:
    """Embeddings from what was kept, with gradients where the weights want them; ``pixels`` are encoded now."""
    if "pixels" in tensors:
        return model.encode(tensors["pixels"])
    way_down = way_down_of(model)
    if way_down is None:
        return model.unpack(tensors)
    with autocast(model.device, model.dtype):
        return way_down(*(tensors[name].to(model.device).float() for name in _GIVEN))


def detached(features: Features) -> Features:
    """The same features, to which gradients do not go back."""
    fine = [None if part is None else part.detach() for part in (features.stride4, features.stride8, features.water)]
    return Features(features.embedding.detach(), *fine)

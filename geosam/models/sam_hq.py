"""Segment Anything in High Quality (Ke et al. 2023): SAM with a token for crisp masks, which sees early features."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from geosam.models.sam import SamAdapter
from geosam.models.segment_anything import SamEmbeddings


class SamHqAdapter(SamAdapter):
    """SAM-HQ on transformers' ``SamHQModel``; its encoder is SAM's."""

    def _features(self, pixels: Tensor) -> SamEmbeddings:
        """The image embedding, and tokens after the first global layer, float (B, g, g, C)."""
        encoder = self.model.vision_encoder
        first = next(n for n, layer in enumerate(encoder.layers, start=1) if layer.window_size == 0)
        early = self._encode(_part(encoder, layers=encoder.layers[:first], neck=_as_it_is), pixels)
        late = _part(encoder, patch_embed=_as_it_is, pos_embed=None, layers=encoder.layers[first:])
        return SamEmbeddings(self._encode(late, early), (early,))

    def _details(self, fine: tuple[Tensor, ...], tiles: Sequence[int]) -> dict[str, Any]:
        # On one tile the decoder works its early features out once, for all bodies.
        early = fine[0][tiles[:1] if len(set(tiles)) == 1 else tiles]
        return {"hq_token_only": False, "intermediate_embeddings": [early]}


def _part(encoder: Any, **others: Any) -> SimpleNamespace:
    """An encoder with some of its parts replaced."""
    parts = {name: getattr(encoder, name) for name in ("patch_embed", "pos_embed", "layers", "neck")}
    return SimpleNamespace(**{**parts, **others})


def _as_it_is(x: Tensor) -> Tensor:
    return x

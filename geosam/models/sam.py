"""Segment Anything (Kirillov et al. 2023)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from geosam.models.attention import compiled_encode, plain_encode
from geosam.models.bodies import to_sam_xy
from geosam.models.segment_anything import CHUNK, MEAN, STD, SamEmbeddings, SegmentAnything

__all__ = ["CHUNK", "MEAN", "STD", "SamAdapter", "SamEmbeddings", "to_sam_xy"]


class SamAdapter(SegmentAnything):
    """SAM on transformers' ``SamModel``, with an encoder that suits the device."""

    def __init__(self, model: Any, **facts: Any) -> None:
        super().__init__(model, **facts)
        self._encode = plain_encode(self.device)

    def _features(self, pixels: Tensor) -> SamEmbeddings:
        return SamEmbeddings(self._encode(self.model.vision_encoder, pixels))

    def compile(self) -> None:
        """Have the encoder compiled at its first batch; see :func:`~geosam.models.attention.compiled_encode`."""
        self._encode = compiled_encode(self.device)

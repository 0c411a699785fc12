"""SAM 2 (Ravi et al. 2024) on single images, and EdgeTAM (Zhou et al. 2025), which has its shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from geosam.models.segment_anything import SamEmbeddings, SegmentAnything


class Sam2Adapter(SegmentAnything):
    """SAM 2 on transformers' ``Sam2Model``: a hierarchical encoder, whose fine stages reach the decoder.

    A checkpoint of the video model will do; its memory is not loaded.
    """

    empty_point = True

    def _features(self, pixels: Tensor) -> SamEmbeddings:
        """Image embedding, and features at strides 4 and 8 as the decoder takes them."""
        model = self.model
        maps = list(model.vision_encoder(pixels).fpn_hidden_states)
        # Stands for the memory of earlier frames, of which an image has none.
        maps[-1] = maps[-1] + model.no_memory_embedding.view(1, -1, 1, 1)
        fine = (model.mask_decoder.conv_s0(maps[0]), model.mask_decoder.conv_s1(maps[1]))
        return SamEmbeddings(maps[2], fine)

    def _details(self, fine: tuple[Tensor, ...], tiles: Sequence[int]) -> dict[str, Any]:
        return {"high_resolution_features": [part[tiles] for part in fine]}


class EdgeTamAdapter(Sam2Adapter):
    """EdgeTAM on transformers' ``EdgeTamModel``: SAM 2 with a RepViT for encoder."""

"""The small SAM: a light encoder with SAM's prompt encoder and mask decoder.

One class serves ``river-tiny`` and MobileSAM (Zhang et al. 2023, Faster Segment Anything); what
differs is in :class:`TinySamConfig`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geosam.models.image_encoder import Features, ImageEncoder
from geosam.models.mask_decoder import MaskDecoder
from geosam.models.prompt_encoder import PromptEncoder

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
"""SAM's normalisation of 8-bit RGB."""


@dataclass(frozen=True)
class TinySamConfig:
    """What a small SAM is built of; saved as JSON beside or inside the weights."""

    backbone: str = "resnet18"
    """A timm model whose four stages have strides 4, 8, 16 and 32."""
    widths: tuple[int, ...] | None = None
    """Channels of the four stages, for a ResNet; None: those of its name."""
    image_size: int = 512
    """Side of a tile as the network sees it, pixels."""
    stride16_last: bool = False
    """MobileSAM's TinyViT: the last stage keeps stride 16."""
    far_sight: bool = False
    """The coarsest stage attends to the whole tile."""
    skips: bool = True
    """Fine stages of the encoder reach the decoder, for crisp banks and thin channels."""
    no_prompt: bool = True
    """Trained to find all water when it is given no prompt."""
    dense_prompt: bool = True
    """Trained to take the coarse mask as a dense prompt."""
    magnify: int = 1
    """A scene's tiles are enlarged so many times, 1, 2 or 4, before they are looked at."""
    threshold: float = 0.5
    """Probability at which its masks are best, chosen on training data."""

    def to_dict(self) -> dict[str, Any]:
        """The options as plain JSON values."""
        return asdict(self)


MOBILE_SAM = TinySamConfig(
    backbone="tiny_vit_5m_224", image_size=1024, stride16_last=True, skips=False, no_prompt=False, dense_prompt=False
)
"""The layout of the published MobileSAM checkpoint."""


class TinySam(nn.Module):
    """Encode tiles once, then decode any number of prompts on them."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: TinySamConfig | None = None) -> None:
        super().__init__()
        self.config = config = TinySamConfig() if config is None else config
        self.image_encoder = ImageEncoder(
            config.backbone,
            stride16_last=config.stride16_last,
            skips=config.skips,
            widths=config.widths,
            far_sight=config.far_sight,
        )
        self.prompt_encoder = PromptEncoder(image_size=config.image_size)
        self.mask_decoder = MaskDecoder(skips=config.skips)
        self.register_buffer("pixel_mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def encode(self, images: Tensor, encoder: Callable[[Tensor], Features] | None = None, magnify: int = 1) -> Features:
        """Features of 8-bit RGB tiles, uint8 or float 0..255 (B, 3, H, W), enlarged ``magnify`` times.

        Once enlarged, H and W are to be multiples of 32. ``encoder`` stands in for the network's own, such as a faster
        copy of it.
        """
        x = (images.float() - self.pixel_mean) / self.pixel_std
        x = x.contiguous(memory_format=torch.channels_last)
        if magnify > 1:  # After scaling, which is then cheaper and comes to the same.
            x = F.interpolate(x, scale_factor=magnify, mode="bilinear", align_corners=False)
        features: Features = (self.image_encoder if encoder is None else encoder)(x)
        return features

    def decode(
        self,
        features: Features,
        points: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        has_mask: Tensor | None = None,
        masks: Sequence[int] = (0,),
        origin: tuple[float, float] = (0.0, 0.0),
    ) -> tuple[Tensor, Tensor]:
        """Logits of N prompts, the n-th on the n-th features (see :meth:`Features.take`).

        Args:
            features: Of N tiles of side S.
            points: float (N, K, 2) as (x, y) pixels, (0, 0) the outer corner of the first pixel; K may be 0.
            labels: int64 (N, K): 1 water, 0 dry, 2 and 3 the corners of a box, negative padding.
            mask: Dense prompt, float (N, 1, S/4, S/4): 1 water, -1 dry, 0 unknown; or None.
            has_mask: bool (N,), which rows of ``mask`` count; None: all.
            masks: Mask tokens to decode.
            origin: Where this tile's corner lies in a tile of ``image_size``, (x, y) pixels.

        Returns:
            Logits float (N, len(masks), S/4, S/4) and predicted IoUs float (N, len(masks)).
        """
        grid = (features.embedding.shape[2], features.embedding.shape[3])
        shift = points.new_tensor(origin)
        tokens = self.prompt_encoder.points(points + shift, labels)
        dense = self.prompt_encoder.dense(mask, points.shape[0], grid, has_mask)
        found: tuple[Tensor, Tensor] = self.mask_decoder(
            features, self.prompt_encoder.grid_positions(grid, origin), tokens, dense, masks
        )
        return found

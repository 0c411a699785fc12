"""Small image encoders: a timm backbone and a neck that brings it to SAM's embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Features:
    """What the encoder knows of a batch of B tiles of side S.

    Attributes:
        embedding: float (B, 256, S/16, S/16), what SAM calls the image embedding.
        stride4: float (B, C4, S/4, S/4), or None for a network without skips.
        stride8: float (B, C8, S/8, S/8), or None.
    """

    embedding: Tensor
    stride4: Tensor | None = None
    stride8: Tensor | None = None

    def take(self, index: Tensor) -> Features:
        """The features of the tiles in ``index``, int64 (N,); a tile may be taken several times."""
        pick = [None if part is None else part[index] for part in (self.embedding, self.stride4, self.stride8)]
        embedding = pick[0]
        assert embedding is not None
        return Features(embedding, pick[1], pick[2])


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of a (B, C, H, W) tensor, as SAM uses it."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x, float (B, C, H, W), at every pixel."""
        # F.layer_norm over the last axis is fused on every device; a hand-written mean and
        # variance over axis 1 is several times slower on a CPU.
        y = F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), self.weight, self.bias, self.eps)
        return y.permute(0, 3, 1, 2)


class ImageEncoder(nn.Module):
    """A hierarchical timm backbone with stages at strides 4, 8, 16 and 32, and SAM's neck.

    ``stride16_last=True`` is MobileSAM's TinyViT: the last stage keeps stride 16 and feeds the
    neck alone. Otherwise the stages at stride 16 and 32 are summed, so that the embedding sees
    far without losing the backbone's own downsampling, which is what makes it cheap.
    """

    backbone: Any

    def __init__(self, backbone: str, embed_dim: int = 256, stride16_last: bool = False, skips: bool = True) -> None:
        super().__init__()
        self.backbone = timm.create_model(backbone, pretrained=False, num_classes=0)
        self.backbone.head = nn.Identity()
        if stride16_last:
            self.backbone.stages[3].downsample.conv2.conv.stride = (1, 1)
        self.stride16_last, self.skips = stride16_last, skips
        channels = [info["num_chs"] for info in self.backbone.feature_info]
        self.channels: tuple[int, int] = (channels[0], channels[1])
        self.neck = nn.Sequential(
            nn.Conv2d(channels[3 if stride16_last else 2], embed_dim, 1, bias=False),
            LayerNorm2d(embed_dim),
            nn.Conv2d(embed_dim, embed_dim, 3, padding=1, bias=False),
            LayerNorm2d(embed_dim),
        )
        self.lateral = None if stride16_last else nn.Conv2d(channels[3], embed_dim, 1, bias=False)

    def stages(self, x: Tensor) -> list[Tensor]:
        """The outputs of the four stages, fine to coarse."""
        first = self.backbone.patch_embed if hasattr(self.backbone, "patch_embed") else self.backbone.stem
        x, found = first(x), []
        for stage in self.backbone.stages:
            x = stage(x)
            found.append(x)
        return found

    def forward(self, x: Tensor) -> Features:
        """Encode normalised images, float (B, 3, S, S) with S a multiple of 32."""
        fine, finer8, middle, deep = self.stages(x)
        if self.lateral is None:
            embedding = self.neck(deep)
        else:
            wide = F.interpolate(self.lateral(deep), scale_factor=2, mode="nearest")
            embedding = self.neck[1:](self.neck[0](middle) + wide)
        return Features(embedding, fine, finer8) if self.skips else Features(embedding)

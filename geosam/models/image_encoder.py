"""Small image encoders: a timm backbone, SAM's neck, and a way down to fine features.

Sources: Lin et al. (2017), Feature Pyramid Networks, for the way down; Ravi et al. (2024), SAM 2,
for giving a decoder the fine stages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geosam.models.efficientnet import SCALES, EfficientNetLite
from geosam.models.resnet import ResNet18

FINE_CHANNELS = 64
"""Channels of the features at strides 4 and 8."""


@dataclass(frozen=True)
class Features:
    """What the encoder knows of a batch of B tiles of side S.

    Attributes:
        embedding: float (B, 256, S/16, S/16), what SAM calls the image embedding.
        stride4: float (B, 64, S/4, S/4), fine features that know of the coarse ones, or None for a
            network without skips.
        stride8: float (B, 64, S/8, S/8), or None.
        water: float (B, 1, S/4, S/4), logits of all water without a prompt, or None.
    """

    embedding: Tensor
    stride4: Tensor | None = None
    stride8: Tensor | None = None
    water: Tensor | None = None

    def take(self, index: Tensor) -> Features:
        """The features of the tiles in ``index``, int64 (N,); a tile may be taken several times."""
        fine = [None if part is None else part[index] for part in (self.stride4, self.stride8, self.water)]
        return Features(self.embedding[index], *fine)


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


class _Mix(nn.Sequential):
    """A 3 x 3 convolution with norm and ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


class WayDown(nn.Module):
    """From the embedding to fine features and to logits of all water, as a feature pyramid does.

    A plain head like this learns in minutes what the mask decoder takes hours to find; the decoder
    then has only to learn what prompts change.
    """

    def __init__(self, channels: tuple[int, int], embed_dim: int, width: int = FINE_CHANNELS) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(embed_dim, width, 1)
        self.lateral4, self.lateral8 = nn.Conv2d(channels[0], width, 1), nn.Conv2d(channels[1], width, 1)
        self.mix4, self.mix8 = _Mix(width), _Mix(width)
        self.water = nn.Conv2d(width, 1, 1)
        if self.water.bias is not None:
            nn.init.constant_(self.water.bias, -1.0)  # Most ground is dry.

    def forward(self, embedding: Tensor, fine: Tensor, finer8: Tensor) -> Features:
        """Features of an embedding and of the backbone's stages at strides 4 and 8."""
        stride8 = self.mix8(self.lateral8(finer8) + F.interpolate(self.narrow(embedding), scale_factor=2))
        stride4 = self.mix4(self.lateral4(fine) + F.interpolate(stride8, scale_factor=2))
        return Features(embedding, stride4, stride8, self.water(stride4))


class FarSight(nn.Module):
    """Attention of every place of the coarsest grid to every other one, added to what is there.

    A reach of a river that looks like mud is told by another one of the same colour that does not. There are no
    positions in it, so that a tile of any size is looked at in the same way, and at first it adds nothing.
    """

    def __init__(self, dim: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = LayerNorm2d(dim), LayerNorm2d(dim)
        self.qkv, self.out = nn.Conv2d(dim, 3 * dim, 1, bias=False), nn.Conv2d(dim, dim, 1)
        last = nn.Conv2d(2 * dim, dim, 1)
        self.mlp = nn.Sequential(nn.Conv2d(dim, 2 * dim, 1), nn.GELU(), last)
        for weight in (*self.out.parameters(), *last.parameters()):
            nn.init.zeros_(weight)

    def forward(self, x: Tensor) -> Tensor:
        """Look around in x, float (B, dim, H, W)."""
        b, dim, h, w = x.shape
        q, k, v = (
            part.flatten(2).transpose(1, 2).reshape(b, h * w, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, dim=1)
        )
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h * w, dim)
        x = x + self.out(seen.transpose(1, 2).reshape(b, dim, h, w))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class ImageEncoder(nn.Module):
    """A hierarchical timm backbone with stages at strides 4, 8, 16 and 32, and SAM's neck.

    ``stride16_last=True`` is MobileSAM's TinyViT: the last stage keeps stride 16 and feeds the
    neck alone. Otherwise the stages at stride 16 and 32 are summed, so that the embedding sees
    far without losing the backbone's own downsampling, which is what makes it cheap.
    """

    backbone: Any

    def __init__(
        self,
        backbone: str,
        embed_dim: int = 256,
        stride16_last: bool = False,
        skips: bool = True,
        widths: tuple[int, ...] | None = None,
        far_sight: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = _backbone(backbone, widths)
        self.backbone.head = nn.Identity()
        if stride16_last:
            self.backbone.stages[3].downsample.conv2.conv.stride = (1, 1)
        channels = [info["num_chs"] for info in self.backbone.feature_info][-4:]
        self.neck = nn.Sequential(
            nn.Conv2d(channels[3 if stride16_last else 2], embed_dim, 1, bias=False),
            LayerNorm2d(embed_dim),
            nn.Conv2d(embed_dim, embed_dim, 3, padding=1, bias=False),
            LayerNorm2d(embed_dim),
        )
        self.far_sight = FarSight(channels[3]) if far_sight else None
        self.lateral = None if stride16_last else nn.Conv2d(channels[3], embed_dim, 1, bias=False)
        self.way_down = WayDown((channels[0], channels[1]), embed_dim) if skips else None

    def parts(self) -> list[nn.Module]:
        """The backbone's stem and its four stages, in their order."""
        net = self.backbone
        if hasattr(net, "layer1"):  # timm's ResNet names its parts otherwise.
            stem = nn.Sequential(net.conv1, net.bn1, net.act1, net.maxpool)
            return [stem, net.layer1, net.layer2, net.layer3, net.layer4]
        return [net.patch_embed if hasattr(net, "patch_embed") else net.stem, *net.stages]

    def stages(self, x: Tensor) -> list[Tensor]:
        """The outputs of the four stages, fine to coarse."""
        stem, *stages = self.parts()
        x, found = stem(x), []
        for stage in stages:
            x = stage(x)
            found.append(x)
        return found

    def forward(self, x: Tensor) -> Features:
        """Encode normalised images, float (B, 3, S, S) with S a multiple of 32."""
        fine, finer8, middle, deep = self.stages(x)
        if self.far_sight is not None:
            deep = self.far_sight(deep)
        if self.lateral is None:
            embedding = self.neck(deep)
        else:
            wide = F.interpolate(self.lateral(deep), scale_factor=2, mode="nearest")
            embedding = self.neck[1:](self.neck[0](middle) + wide)
        return Features(embedding) if self.way_down is None else self.way_down(embedding, fine, finer8)


def _backbone(name: str, widths: tuple[int, ...] | None) -> Any:
    if name in SCALES:
        return EfficientNetLite(name)
    if name == "resnet18":
        return ResNet18(widths)
    import timm  # Not above: with torchvision, which it imports, it takes longer than torch.

    options: dict[str, Any] = {} if widths is None else {"channels": widths}
    return timm.create_model(name, pretrained=False, num_classes=0, **options)

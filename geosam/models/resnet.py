"""ResNet-18, river-tiny's encoder up to 0.4.0, without timm, whose imports take longer than all else of loading it.

Source: He et al. (2015), Deep Residual Learning for Image Recognition. Weights, their names and their first values are
those of timm's ``resnet18``, so that either reads what the other has written.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)


class Block(nn.Module):
    """Two 3 x 3 convolutions, added to what came in."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module | None = None
        if stride != 1 or before != width:
            self.downsample = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """From float (B, before, H, W) to (B, width, H/stride, W/stride)."""
        short = x if self.downsample is None else self.downsample(x)
        y = torch.relu_(self.bn1(self.conv1(x)))
        return torch.relu_(self.bn2(self.conv2(y)).add_(short))


class ResNet18(nn.Module):
    """The stem and four stages of two blocks each, of strides 4, 8, 16 and 32; :class:`ImageEncoder` runs them."""

    def __init__(self, widths: tuple[int, ...] | None = None) -> None:
        super().__init__()
        widths = WIDTHS if widths is None else widths
        self.feature_info = [{"num_chs": width} for width in widths]
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.act1 = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        for stage, (before, width) in enumerate(zip((64, *widths), widths, strict=False), start=1):
            blocks = nn.Sequential(Block(before, width, 2 if stage > 1 else 1), Block(width, width, 1))
            self.add_module(f"layer{stage}", blocks)
        self._first_values()

    def _first_values(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, Block):
                nn.init.zeros_(module.bn2.weight)  # A block changes nothing at first.

"""EfficientNet-Lite, the encoder of river-tiny: plain convolutions that run fast on any CPU.

Source: Tan and Le (2019), EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks; the Lite variants
leave out squeeze-and-excitation and use ReLU6. Padding is TensorFlow's, one-sided where a stride meets an even side,
because the published weights were learned with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-3
"""Of the batch norms, as in the published weights."""

SCALES = {"efficientnet_lite0": (1.0, 1.0), "efficientnet_lite1": (1.0, 1.1), "efficientnet_lite2": (1.1, 1.2)}
"""Names, and how many times wider and deeper than the plan they are."""

_STEM = 32
_PLAN = (
    (16, 1, 3, 1, 1), (24, 2, 3, 2, 6), (40, 2, 5, 2, 6), (80, 3, 3, 2, 6), (112, 3, 5, 1, 6), (192, 4, 5, 2, 6),
    (320, 1, 3, 1, 6),
)  # fmt: skip
"""Channels, blocks, kernel, stride and expansion of each group of blocks."""

_STAGES = ((0, 2), (2, 3), (3, 5), (5, 7))
"""Groups from and to that make the stages of strides 4, 8, 16 and 32."""

_MEAN, _SPREAD = 127.0, 128.0
"""What the published weights subtract from and divide 8-bit colours by."""


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution in bfloat16 whose gradients are taken in single precision.

    On CPUs with bfloat16 every other convolution of a training step takes half the time in it, but the
    gradients of this kind take up to twenty times as long, so that the whole step would be slower.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.steps = stride, padding
        return F.conv2d(x, weight.to(x.dtype), None, stride, padding, 1, x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        stride, padding = ctx.steps
        wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[1], False)
        below, steps, _ = torch.ops.aten.convolution_backward(
            gradients[0].float(), x.float(), weight, None, stride, padding, (1, 1), False, (0, 0), x.shape[1], wanted
        )
        return (below.to(x.dtype) if wanted[0] else None), (steps if wanted[1] else None), None, None


class _Plain(nn.Conv2d):
    """A convolution that knows which precision is the fastest for its gradients."""

    def forward(self, x: Tensor) -> Tensor:
        """From float (B, C, H, W)."""
        if self.groups > 1 and x.dtype == torch.bfloat16 and x.device.type == "cpu" and torch.is_grad_enabled():
            return cast(Tensor, _Depthwise.apply(x, self.weight, self.stride, self.padding))
        return super().forward(x)


class _Strided(_Plain):
    """A convolution of stride 2 padded as TensorFlow's "same" pads it."""

    @property
    def lead(self) -> int:
        """Rows and columns of padding that the upper left has less of than the lower right."""
        return (self.kernel_size[0] - self.stride[0]) % 2

    def forward(self, x: Tensor) -> Tensor:
        """From float (B, C, H, W), H and W even."""
        before = (self.kernel_size[0] - self.stride[0]) // 2
        return super().forward(F.pad(x, (before, before + self.lead, before, before + self.lead)))


def _conv(before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    padding = 0 if stride > 1 else kernel // 2
    kind = _Strided if stride > 1 else _Plain
    return [kind(before, after, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(after, eps=EPS)]


def _clamped(before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(*_conv(before, after, kernel, stride, groups), nn.ReLU6(inplace=True))


class Block(nn.Module):
    """Widen, look around channel by channel, narrow; added to what came in where the shape allows."""

    def __init__(self, before: int, width: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = before * expand
        self.expand = _clamped(before, wide) if expand > 1 else None
        self.depthwise = _clamped(wide, wide, kernel, stride, groups=wide)
        self.project = nn.Sequential(*_conv(wide, width))
        self.adds = stride == 1 and before == width

    def forward(self, x: Tensor) -> Tensor:
        """From float (B, before, H, W) to (B, width, H/stride, W/stride)."""
        wide = x if self.expand is None else self.expand(x)
        narrow: Tensor = self.project(self.depthwise(wide))
        return narrow + x if self.adds else narrow


class EfficientNetLite(nn.Module):
    """The stem and four stages of strides 4, 8, 16 and 32; :class:`ImageEncoder` runs them."""

    def __init__(self, name: str = "efficientnet_lite0") -> None:
        super().__init__()
        wider, deeper = SCALES[name]
        self.stem = _clamped(3, _STEM, 3, 2)
        groups, before = [], _STEM
        for place, (channels, blocks, kernel, stride, expand) in enumerate(_PLAN):
            width = _whole(channels * wider)
            # The first and the last group keep their depth, as the stem keeps its width, in all Lite variants.
            depth = blocks if place in (0, len(_PLAN) - 1) else math.ceil(blocks * deeper)
            steps = [stride] + [1] * (depth - 1)
            inputs = [before] + [width] * (depth - 1)
            groups.append([Block(i, width, kernel, s, expand) for i, s in zip(inputs, steps, strict=True)])
            before = width
        self.stages = nn.ModuleList(
            nn.Sequential(*(block for group in groups[start:end] for block in group)) for start, end in _STAGES
        )
        self.feature_info = [{"num_chs": _whole(_PLAN[end - 1][0] * wider)} for _, end in _STAGES]
        self._first_values()

    def _first_values(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")


def _whole(channels: float) -> int:
    """The nearest multiple of eight that loses no more than a tenth."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


def from_published(
    weights: Mapping[str, Tensor], network: EfficientNetLite, mean: Sequence[float], spread: Sequence[float]
) -> dict[str, Tensor]:
    """Published ImageNet weights under the names that are used here.

    Args:
        weights: A state of the PyTorch port's ``EfficientNet``: ``_conv_stem.weight``, ``_blocks.0._bn1.bias``, ...
        network: What they are for.
        mean: What is subtracted from 8-bit red, green and blue before ``network`` sees them.
        spread: What they are divided by; the stem is changed so that it gives what it gave for its own scaling.

    Returns:
        A state of ``network``. The classifier is left out.
    """
    found = _renamed(weights, network)
    kernel = found["stem.0.weight"]
    scale = kernel.new_tensor(spread) / _SPREAD
    shift = (kernel.new_tensor(mean) - _MEAN) / _SPREAD
    found["stem.1.running_mean"] = found["stem.1.running_mean"] - (kernel.sum(dim=(2, 3)) * shift).sum(dim=1)
    found["stem.0.weight"] = kernel * scale.view(1, 3, 1, 1)
    return found


def _renamed(weights: Mapping[str, Tensor], network: EfficientNetLite) -> dict[str, Tensor]:
    parts = {"stem.0": "_conv_stem", "stem.1": "_bn0"}
    blocks = [name for name, module in network.named_modules() if isinstance(module, Block)]
    for place, name in enumerate(blocks):
        block = network.get_submodule(name)
        kinds = ["expand", "depthwise", "project"] if block.expand is not None else ["depthwise", "project"]
        theirs = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
        for kind in kinds:
            parts[f"{name}.{kind}.0"] = f"_blocks.{place}._{kind}_conv"
            parts[f"{name}.{kind}.1"] = f"_blocks.{place}.{theirs[kind]}"
    state = network.state_dict()
    return {key: weights[f"{parts[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}"] for key in state}

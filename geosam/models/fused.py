"""A convolution, its padding and the clamp behind it in one pass: on a CPU half of the time of the three apart.

Clamping and padding read and write whole tensors for next to no arithmetic. oneDNN clamps what it has just computed,
and a kernel with an empty first row and column needs no padding on one side alone, for which a copy would be made.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Clamp = tuple[float, float]


class FusedConv(nn.Module):
    """A convolution, and a clamp or none, for answering alone: it has no gradients.

    Args:
        conv: With its batch norm folded in; see :func:`can_be_fused`.
        lead: Rows and columns of padding that the upper left has less of than the lower right.
        clamp: Least and greatest value that comes out, or None.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d, lead: int, clamp: Clamp | None) -> None:
        super().__init__()
        before = int(conv.padding[0]) if not lead else (conv.kernel_size[0] - conv.stride[0]) // 2
        self.stride, self.padding, self.groups, self.clamp = list(conv.stride), [before + lead] * 2, conv.groups, clamp
        weight = F.pad(conv.weight.detach(), (lead, 0, lead, 0))
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last), persistent=False)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach(), persistent=False)
        self._cast: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor | None]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """From float (B, C, H, W), in the precision of autocast where that is on."""
        kind = x.device.type
        weight, bias = self._in(torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype)
        x = x.to(weight.dtype)
        if self.clamp is not None and _fuses(x):
            return self._in_one_pass(x, weight, bias)
        y = F.conv2d(x, weight, bias, self.stride, self.padding, 1, self.groups)
        return y if self.clamp is None else y.clamp_(*self.clamp)

    def _in_one_pass(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        run = torch.ops.mkldnn._convolution_pointwise
        limits = list(cast(Clamp, self.clamp))
        found = run(x, weight, bias, self.padding, self.stride, [1, 1], self.groups, "hardtanh", limits, "")
        return cast(Tensor, found)

    def _in(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Weights in a precision, cast once."""
        key = dtype, self.weight.device
        if key not in self._cast:
            self._cast[key] = self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype)
        return self._cast[key]


def can_be_fused(conv: nn.Conv2d) -> bool:
    """Whether the convolution is one of the plain ones that :class:`FusedConv` stands for."""
    square = len({*conv.kernel_size}) == 1 and len({*conv.stride}) == 1 and len({*conv.padding}) == 1
    return square and conv.padding_mode == "zeros" and set(conv.dilation) == {1} and not isinstance(conv.padding, str)


def _fuses(x: Tensor) -> bool:
    """Whether oneDNN can be asked directly; a compiler does the like by itself."""
    there: Any = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
    plain = x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)
    has_it = there is not None and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return plain and has_it and not torch.compiler.is_compiling()

"""Batch norms and clamps folded into the convolutions before them: half the time for the same answers."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from geosam.models.fused import Clamp, FusedConv, can_be_fused

Net = TypeVar("Net", bound=nn.Module)


class Folded:
    """A network's folded copy, made anew when its weights have changed since."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._made_of: tuple[int, ...] | None = None
        self._copy: nn.Module | None = None

    def __call__(self) -> nn.Module:
        """The copy; it answers what the network answers in eval mode, to rounding."""
        # Every change in place, an optimiser's or load_state_dict's, counts a tensor's version up.
        state = (*self.network.parameters(), *self.network.buffers())
        now = tuple(part for tensor in state for part in (id(tensor), tensor._version))
        if self._copy is None or now != self._made_of:
            self._copy, self._made_of = folded(self.network), now
        return self._copy


def folded(network: Net) -> Net:
    """A copy for answering alone, in eval mode and without gradients.

    Folded are the norms that stand right behind a convolution in an ``nn.Sequential``, and a ReLU or ReLU6 right
    behind them; others stay as they are.
    """
    copy = deepcopy(network).eval().requires_grad_(False)
    for part in list(copy.modules()):
        if isinstance(part, nn.Sequential):
            _fold(part)
    return copy


def _fold(parts: nn.Sequential) -> None:
    for place in range(len(parts) - 1):
        conv, norm = parts[place], parts[place + 1]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            plain, parts[place + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
            parts[place] = _fused(plain, parts, place + 2) if can_be_fused(plain) else plain


def _fused(conv: nn.Conv2d, parts: nn.Sequential, behind: int) -> FusedConv:
    """The convolution with the clamp that stands behind it, if there is one."""
    clamp = _clamp_of(parts[behind]) if behind < len(parts) else None
    if clamp is not None:
        parts[behind] = nn.Identity()
    return FusedConv(conv, int(getattr(conv, "lead", 0)), clamp)


def _clamp_of(part: nn.Module) -> Clamp | None:
    if isinstance(part, nn.Hardtanh):  # ReLU6 is one.
        return float(part.min_val), float(part.max_val)
    return (0.0, math.inf) if isinstance(part, nn.ReLU) else None

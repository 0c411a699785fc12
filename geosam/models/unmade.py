"""The image of a point in SAM's two-way transformer, known by its products and never made.

All points of a tile begin with one image. The tokens of a point change it twice: to x it adds A' U, where A are the
weights of T tokens in H heads, R = H T maps over the N tokens of the image, and U (R, C) is what they bring; then it is
normalised. With C = 256 channels and R = 56, to project x once for all points, and U in place of A' U, takes a third of
the multiplications of projecting the sum, and N x C numbers of every point need not go to memory and back. The norm's
variance follows from the same products: |x + A' U|^2 = |x|^2 + A . (2 U x + U U' A).

Written for P points; N tokens of the image, C channels, T tokens of a point, H heads of d channels, D = H d.
Source: Kirillov et al. (2023), Segment Anything, appendix A, for the transformer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def centred(x: Tensor) -> Tensor:
    """Without its mean over the channels, which the norm takes off anyway."""
    return x - x.mean(dim=-1, keepdim=True)


def through(heads: Tensor, by_head: Tensor) -> Tensor:
    """Heads (P, H, T, d) through a projection, (H, d, C): (P, H * T, C)."""
    return torch.einsum("phtd,hdc->phtc", heads, by_head).flatten(1, 2)


def times(heads: Tensor, known: Tensor, out: Tensor) -> Tensor:
    """Products of heads (P, H, T, d) with what all points share, (H, d, N), in ``out``, (P, H, T, N)."""
    places = known.expand(len(heads), -1, -1, -1).flatten(0, 1)  # Copied for several points only.
    torch.bmm(heads.flatten(0, 1), places, out=out.flatten(0, 1))
    return out


def softmax_(x: Tensor, dim: int) -> Tensor:
    """Softmax in place; twice as fast as torch's own along an axis of a few."""
    x.sub_(x.amax(dim, keepdim=True)).exp_()
    return x.div_(x.sum(dim, keepdim=True))


class Room:
    """Memory that is used again and again: fresh pages of the system cost as much as filling them."""

    def __init__(self) -> None:
        self._flat: Tensor | None = None

    def __call__(self, like: Tensor, *shape: int) -> Tensor:
        """A tensor of any values; what was had before is lost."""
        size = math.prod(shape)
        if self._flat is None or self._flat.numel() < size:
            self._flat = like.new_empty(size)
        return self._flat[:size].view(shape)


def brought(attn: Any, scale: Tensor | None = None) -> Tensor:
    """What the tokens bring by head, from the output projection of their attention: (H, d, C), centred."""
    weight = centred(attn.out_proj.weight.T if scale is None else centred(attn.out_proj.weight.T) * scale)
    return weight.view(attn.num_attention_heads, -1, weight.shape[-1])


class Before:
    """What all points of a tile share of the image before a norm: ``scale * x + k``, to which a point adds its own."""

    def __init__(self, x: Tensor, k: Tensor, norm: Any) -> None:
        """Take x (N, C) and k (C,), both centred, and the norm that follows."""
        self.x, self.k, self.norm = x, k, norm
        self.square, self.cross, self.constant = (x * x).sum(dim=1), 2 * (x @ k), k @ k

    def products(self, by_head: Tensor) -> Tensor:
        """Of x with (H, d, C): (H, d, N)."""
        return (by_head.flatten(0, 1) @ self.x.T).view(*by_head.shape[:2], -1)


class Projection:
    """How an attention's linear layer sees the image after the norm, as far as all points share it."""

    def __init__(self, before: Before, linear: Any, heads: int, positions: Tensor | None = None) -> None:
        """Take the layer, and the positions, (N, C), that are added to the image before it."""
        weight, norm = linear.weight, before.norm
        scaled = weight * norm.weight
        self.weight = scaled.view(heads, -1, scaled.shape[-1])
        """(H, d, C)."""
        self.x = before.products(self.weight)
        """(H, d, N)."""
        self.k = (scaled @ before.k).view(heads, 1, -1)
        constant = weight @ norm.bias + linear.bias
        self.constant = constant.view(heads, 1, -1)
        """(H, 1, d) both."""
        self.positions = None if positions is None else (weight @ positions.T + constant[:, None]).view_as(self.x)
        """(H, d, N)."""


@dataclass(frozen=True)
class Unmade:
    """The image of P points after a norm: ``inverse * (scale * x + k + maps' own) * weight + bias``."""

    before: Before
    maps: Tensor
    """(P, M, N): M = R after the first update, 2 R after the second."""
    own: Tensor
    """(P, M, C)."""
    inverse: Tensor
    """One over the standard deviation, (P, 1, N)."""
    scale: Tensor | None
    """(P, 1, N); None: 1, and k is 0."""

    @classmethod
    def of(cls, before: Before, maps: Tensor, own: Tensor, shared: Tensor, scale: Tensor | None = None) -> Unmade:
        """Find the norm's scale.

        Args:
            before: What the points share.
            maps: (P, M, N).
            own: (P, M, C), centred.
            shared: Products of ``own`` with x, (P, M, N); is overwritten.
            scale: Of x, (P, 1, N).
        """
        total = before.square
        shared.mul_(2) if scale is None else shared.mul_(2 * scale)
        terms = shared.baddbmm_(own @ own.transpose(1, 2), maps)
        if scale is not None:
            terms += 2 * (own @ before.k)[..., None]
            total = (before.square * scale + before.cross) * scale + before.constant
        total = total + terms.mul_(maps).sum(dim=1, keepdim=True)
        mean = (total / own.shape[-1]).clamp_(min=0)  # Of a constant image rounding may leave less.
        return cls(before, maps, own, mean.add_(before.norm.eps).rsqrt_(), scale)

    def take(self, which: Tensor) -> Unmade:
        """Those of some of the points, bool (P,)."""
        scale = None if self.scale is None else self.scale[which]
        return Unmade(self.before, self.maps[which], self.own[which], self.inverse[which], scale)

    def scores(self, heads: Tensor, layer: Projection, out: Tensor) -> Tensor:
        """Products of heads, (P, H, T, d), with the image by a layer with positions, in ``out``, (P, H, T, N)."""
        rows = times(heads, layer.x, out).flatten(1, 2)
        if self.scale is not None:
            rows.mul_(self.scale).add_((heads * layer.k).sum(dim=-1).flatten(1)[..., None])
        rows.baddbmm_(through(heads, layer.weight) @ self.own.transpose(1, 2), self.maps).mul_(self.inverse)
        assert layer.positions is not None
        places = layer.positions.expand(len(heads), -1, -1, -1).flatten(0, 1)
        out.flatten(0, 1).baddbmm_(heads.flatten(0, 1), places)
        return out

    def seen(self, weights: Tensor, layer: Projection) -> Tensor:
        """What tokens see of the image by a layer: (P, H, T, d).

        Args:
            weights: By token and head, (P, H, T, N), each summing to one; is overwritten.
            layer: Has no positions.
        """
        count, heads, tokens, _ = weights.shape
        rows = weights.flatten(1, 2).mul_(self.inverse)
        by_map = (rows @ self.maps.transpose(1, 2)).view(count, heads, tokens, -1)
        own = (self.own @ layer.weight.flatten(0, 1).T).view(count, -1, heads, layer.weight.shape[1])
        found: Tensor = torch.einsum("phtm,pmhd->phtd", by_map, own) + layer.constant
        if self.scale is not None:
            found += weights.sum(dim=-1, keepdim=True) * layer.k
            rows.mul_(self.scale)
        found += torch.matmul(weights, layer.x.transpose(1, 2))
        return found

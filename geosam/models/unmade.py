"""The image of a point in SAM's two-way transformer, known by its products and never made.

All points of a tile begin with one image. The tokens of a point change it twice: to x it adds A' U, where A are the
weights of T tokens in H heads, R = H T maps over the N tokens of the image, and U (R, C) is what they bring; then it is
normalised. With C = 256 channels and R = 56, to project x once for all points, and U in place of A' U, takes a third of
the multiplications of projecting the sum, and N x C numbers of every point need not go to memory and back. The norm's
variance follows from the same products: |x + A' U|^2 = |x|^2 + A . (2 U x + U U' A).

Written for P points; N tokens of the image, C channels, T tokens of a point, H heads of d channels, D = H d. Maps have
their points after their tokens, (H, T, P, N): what all points share is then one product a head, not one of few rows for
every point, and those of one point are still the rows of a matrix.
Source: Kirillov et al. (2023), Segment Anything, appendix A, for the transformer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    """Products of heads (P, H, T, d) with what all points share, (H, d, N), in ``out``, (H, T, P, N)."""
    torch.bmm(_side_by_side(heads), known, out=out.flatten(1, 2))
    return out


def _side_by_side(heads: Tensor) -> Tensor:
    """Heads of all points, (P, H, T, d), as (H, T * P, d)."""
    return heads.permute(1, 2, 0, 3).flatten(1, 2)


def softmax_(x: Tensor, dim: int) -> Tensor:
    """Softmax in place."""
    return torch.softmax(x, dim, out=x)


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
        if positions is None:  # Is only ever multiplied from the other side.
            self.x = self.x.transpose(1, 2).contiguous().transpose(1, 2)


@dataclass(frozen=True)
class Unmade:
    """The image of P points after a norm: ``inverse * (scale * x + k + maps' own) * weight + bias``."""

    before: Before
    maps: Tensor
    """(M, P, N): M = R after the first update, 2 R after the second."""
    own: Tensor
    """(P, M, C)."""
    inverse: Tensor
    """One over the standard deviation, (P, N)."""
    scale: Tensor | None
    """(P, N); None: 1, and k is 0."""

    @classmethod
    def of(cls, before: Before, maps: Tensor, own: Tensor, shared: Tensor, scale: Tensor | None = None) -> Unmade:
        """Find the norm's scale.

        Args:
            before: What the points share.
            maps: (M, P, N).
            own: (P, M, C), centred.
            shared: Twice the products of ``own`` with x, (M, P, N); is overwritten.
            scale: Of x, (P, N).
        """
        total = before.square
        if scale is not None:
            shared.mul_(scale)
            total = (before.square * scale + before.cross) * scale + before.constant
            total += ((2 * own @ before.k)[:, None] @ maps.transpose(0, 1))[:, 0]
        _add_squares(shared, own, maps)
        total = total + shared.mul_(maps).sum(dim=0)
        mean = (total / own.shape[-1]).clamp_(min=0)  # Of a constant image rounding may leave less.
        return cls(before, maps, own, mean.add_(before.norm.eps).rsqrt_(), scale)

    def scores(self, heads: Tensor, whose: Sequence[int] | None, layer: Projection, out: Tensor) -> Tensor:
        """Products with the image by a layer with positions.

        Args:
            heads: Of Q questions, (Q, H, T, d).
            whose: The point whose image each is about, Q numbers; None: Q = P, each about its own.
            layer: Has positions.
            out: (H, T, Q, N), is filled and given back.
        """
        rows = times(heads, layer.x, out).flatten(0, 1)
        if self.scale is not None:
            rows.mul_(self._of(self.scale, whose)).add_((heads * layer.k).sum(dim=-1).flatten(1).T[..., None])
        mixed = through(heads, layer.weight) @ self._of(self.own, whose).transpose(1, 2)
        if whose is None:
            rows.transpose(0, 1).baddbmm_(mixed, self.maps.transpose(0, 1))
        for number, point in enumerate(whose or ()):  # Without a copy of their maps.
            rows[:, number].addmm_(mixed[number], self.maps[:, point])
        rows.mul_(self._of(self.inverse, whose))
        assert layer.positions is not None
        out.flatten(1, 2).baddbmm_(_side_by_side(heads), layer.positions)
        return out

    def seen(self, weights: Tensor, whose: Sequence[int] | None, layer: Projection) -> Tensor:
        """What is seen of the image by a layer, (Q, H, T, d).

        Args:
            weights: By head, token and question, (H, T, Q, N), each summing to one; is overwritten.
            whose: As in :meth:`scores`.
            layer: Has no positions.
        """
        heads, tokens, count, _ = weights.shape
        rows = weights.flatten(0, 1).mul_(self._of(self.inverse, whose))
        if whose is None:
            by_map = rows.transpose(0, 1) @ self.maps.permute(1, 2, 0)
        else:
            by_map = torch.stack([rows[:, number] @ self.maps[:, point].T for number, point in enumerate(whose)])
        own = (by_map @ self._of(self.own, whose)).view(count, heads, tokens, -1)
        found: Tensor = torch.einsum("qhtc,hdc->qhtd", own, layer.weight) + layer.constant
        if self.scale is not None:
            found += weights.sum(dim=-1).permute(2, 0, 1)[..., None] * layer.k
            rows.mul_(self._of(self.scale, whose))
        shared = (weights.flatten(1, 2) @ layer.x.transpose(1, 2)).view(heads, tokens, count, -1)
        return found.add_(shared.permute(2, 0, 1, 3))

    def _of(self, part: Tensor, whose: Sequence[int] | None) -> Tensor:
        """A part of the points asked about."""
        return part if whose is None else part[list(whose)]


def _add_squares(terms: Tensor, own: Tensor, maps: Tensor) -> None:
    """Add to terms, (M, P, N), what makes their products with the maps, in sum, greater by A' U U' A, U (P, M, C)."""
    gram, half = own @ own.transpose(1, 2), len(maps) // 2
    upper = torch.cat([gram[:, :half, :half], 2 * gram[:, :half, half:]], dim=2)  # A quarter less to multiply.
    points = maps.transpose(0, 1)
    terms[:half].transpose(0, 1).baddbmm_(upper, points)
    terms[half:].transpose(0, 1).baddbmm_(gram[:, half:, half:], points[:, half:])

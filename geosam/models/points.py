"""SAM's mask decoder for many single points on one tile, on the weights that transformers holds.

It computes what transformers' ``SamMaskDecoder`` computes, with a quarter of the multiplications, and a tenth of them
for points of which no mask passes:

- The image of a point, as the decoder's transformer updates it, is never made; see :mod:`geosam.models.unmade`.
- Predicted IoUs follow from one of the tokens, so that the others look a last time, and masks are made, only of points
  that have one which passes.
- The image stays channels last: transposed convolutions of stride 2 are products, and only masks are put in order.

Source: Kirillov et al. (2023), Segment Anything, appendix A, for the decoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from geosam.models.bodies import to_sam_xy
from geosam.models.clicks import above
from geosam.models.segment_anything import SamEmbeddings
from geosam.models.unmade import Before, Projection, Room, Unmade, brought, centred, softmax_, through, times

TOGETHER = {"cpu": 1}
"""Points whose maps over the image are worked on at once; on other devices all. Those of one are 1 MB, and a CPU's
cache should hold them."""
TOKENS = {"cpu": 512}
"""Tokens of the image that are enlarged at once; on other devices all. These are 1 MB too."""


class PointDecoder:
    """Masks of single points; a :data:`~geosam.models.clicks.Clicks`."""

    def __init__(self, adapter: Any) -> None:
        self.adapter = adapter
        self.decoder = adapter.model.mask_decoder
        self._seen: tuple[Tensor, _Shared] | None = None

    @torch.inference_mode()
    def __call__(self, embeddings: SamEmbeddings, points: NDArray[np.float32], least: float) -> tuple[Tensor, Tensor]:
        """Masks that pass; see :data:`~geosam.models.clicks.Clicks`."""
        adapter, decoder = self.adapter, self.decoder
        xy = torch.from_numpy(to_sam_xy(points))[None, :, None].to(adapter.device)
        labels = torch.ones(xy.shape[:3], dtype=torch.int64, device=adapter.device)
        sparse, dense = adapter.model.prompt_encoder(
            input_points=xy, input_labels=labels, input_boxes=None, input_masks=None
        )
        if self._seen is None or self._seen[0] is not embeddings.image:
            self._seen = embeddings.image, _Shared(decoder, embeddings.image + dense[:1], adapter)
        shared = self._seen[1]
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).expand(len(points), -1, -1)
        point = torch.cat([own, sparse[0]], dim=1)
        tokens, images = _transformed(decoder.transformer, point, shared)
        ask = _Last(decoder.transformer, tokens, point, shared)
        predicted = decoder.iou_prediction_head(ask(images, slice(0, 1))[:, 0])[:, 1:]
        passed = above(predicted, least, adapter)
        masks = list(self._masks(images, ask, passed, shared))
        side = 4 * embeddings.image.shape[-1]
        return torch.cat([*masks, tokens.new_zeros(0, side, side)]), predicted[passed]

    def _masks(self, images: Sequence[Unmade], ask: _Last, passed: Tensor, shared: _Shared) -> Iterator[Tensor]:
        """The masks that passed, bool (P, 3), of every point that has any: float32 (k, 4 g, 4 g)."""
        wanted = passed.any(dim=1)
        some = torch.split(wanted, [len(image.maps) for image in images])
        images = [image.take(which) for image, which in zip(images, some, strict=True) if which.any()]
        if not images:
            return
        heads = self.decoder.output_hypernetworks_mlps
        tokens = ask(images, slice(2, 1 + len(heads)), wanted)
        kernels = torch.stack([head(tokens[:, n]) for n, head in enumerate(list(heads)[1:])], dim=1)
        each = [(image, number) for image in images for number in range(len(image.maps))]
        for (image, number), kernel, which in zip(each, kernels, passed[wanted], strict=True):
            yield _masks(self.decoder, image, number, kernel[which], shared)


class _Shared:
    """What all points of a tile have in common. N = grid x grid tokens of the image, C channels, D of all heads.

    In float32, whatever the model's dtype: norms are worked out as differences of large products.
    """

    def __init__(self, decoder: Any, image: Tensor, adapter: Any) -> None:
        self.dtype, kind = adapter.dtype, adapter.device.type
        self.together, self.tokens, self.room = TOGETHER.get(kind, 0), TOKENS.get(kind, 0), Room()
        transformer = decoder.transformer
        first, second = transformer.layers
        x, pe = (part.float().flatten(2).transpose(1, 2)[0] for part in (image, adapter._positions))
        into, out = first.cross_attn_token_to_image, first.cross_attn_image_to_token
        heads = out.num_attention_heads
        self.first_key, self.first_value = into.k_proj(x + pe), into.v_proj(x)
        """(N, D) each."""
        self.first_query = out.q_proj(x + pe).T.contiguous().view(heads, -1, len(x))
        """(H, d, N)."""
        norm = first.layer_norm4
        # The bias of what tokens bring is the same for all: the weights of each head sum to one.
        self.first = Before(centred(x + out.out_proj.bias), torch.zeros_like(norm.bias), norm)
        self.first_own = brought(out)
        self.first_products = self.first.products(self.first_own)
        self._second(second, pe, norm, self.first.x)
        self.first_own_later = brought(out, norm.weight)
        self.first_products_later = self.second.products(self.first_own_later)
        self._last(decoder, transformer.final_attn_token_to_image, pe)

    def _second(self, layer: Any, pe: Tensor, norm: Any, x: Tensor) -> None:
        """How the second block sees the image, and what it makes of it."""
        look, out = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
        heads = out.num_attention_heads
        self.second_key = Projection(self.first, look.k_proj, heads, pe)
        self.second_value = Projection(self.first, look.v_proj, heads)
        self.second_query = Projection(self.first, out.q_proj, heads, pe)
        k = centred(norm.bias + out.out_proj.bias)
        self.second = Before(centred(x * norm.weight), k, layer.layer_norm4)
        self.second_own = brought(out)
        self.second_products = self.second.products(self.second_own)

    def _last(self, decoder: Any, look: Any, pe: Tensor) -> None:
        """How the last attention and the first enlargement see the image after that."""
        heads = look.num_attention_heads
        self.last_key = Projection(self.second, look.k_proj, heads, pe)
        self.last_value = Projection(self.second, look.v_proj, heads)
        norm, (weight, bias) = self.second.norm, _as_linear(decoder.upscale_conv1)
        self.enlarging = weight * norm.weight
        self.enlarged = self.second.x @ self.enlarging.T
        """(N, 4 * out)."""
        self.enlarged_rest = torch.stack([self.enlarging @ self.second.k, weight @ norm.bias + bias])


def _transformed(transformer: Any, point: Tensor, shared: _Shared) -> tuple[Tensor, list[Unmade]]:
    """Tokens (P, T, C) and the images of the points, some at a time, after the blocks of the two-way transformer."""
    first, second = transformer.layers
    size = shared.together or len(point)
    tokens = first.layer_norm1(_among(first.self_attn, point, point))
    tokens = first.layer_norm2(tokens + _first_look(first.cross_attn_token_to_image, tokens + point, shared))
    tokens = first.layer_norm3(tokens + first.mlp(tokens))
    attn = first.cross_attn_image_to_token
    keys, brings = (_heads(x, attn) for x in (attn.k_proj(tokens + point) * attn.scaling, attn.v_proj(tokens)))
    images = [_updated(k, v, shared) for k, v in zip(torch.split(keys, size), torch.split(brings, size), strict=True)]

    query = tokens + point
    tokens = second.layer_norm1(tokens + _among(second.self_attn, query, tokens))
    attn = second.cross_attn_token_to_image
    look = _look(attn, tokens + point, images, shared.second_key, shared.second_value, shared.room)
    tokens = second.layer_norm2(tokens + look)
    tokens = second.layer_norm3(tokens + second.mlp(tokens))
    attn = second.cross_attn_image_to_token
    keys, later = (_heads(x, attn) for x in (attn.k_proj(tokens + point) * attn.scaling, attn.v_proj(tokens)))
    parts = zip(images, *(torch.split(part, size) for part in (keys, brings, later)), strict=True)
    return tokens, [_updated_again(image, key, value, more, shared) for image, key, value, more in parts]


class _Last:
    """The last look at the image, by those tokens whose answer is wanted."""

    def __init__(self, transformer: Any, tokens: Tensor, point: Tensor, shared: _Shared) -> None:
        self.transformer, self.tokens, self.query, self.shared = transformer, tokens, tokens + point, shared

    def __call__(self, images: Sequence[Unmade], which: slice, points: Tensor | None = None) -> Tensor:
        """Some tokens as they are in the end, (P, t, C), of all points or of some, bool (P,), and their images."""
        some = slice(None) if points is None else points
        tokens, query = (part[some][:, which] for part in (self.tokens, self.query))
        shared, attn = self.shared, self.transformer.final_attn_token_to_image
        look = _look(attn, query, images, shared.last_key, shared.last_value, shared.room)
        found: Tensor = self.transformer.layer_norm_final_attn(tokens + look)
        return found


def _heads(x: Tensor, attn: Any) -> Tensor:
    """(P, T, D) as (P, H, T, D / H)."""
    return x.view(*x.shape[:2], attn.num_attention_heads, -1).transpose(1, 2)


def _among(attn: Any, query: Tensor, value: Tensor) -> Tensor:
    """Attention of the tokens to themselves, (P, T, C)."""
    q, k, v = (_heads(x, attn) for x in (attn.q_proj(query), attn.k_proj(query), attn.v_proj(value)))
    found: Tensor = attn.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    return found


def _first_look(attn: Any, query: Tensor, shared: _Shared) -> Tensor:
    """The tokens of all points at the image that they share, (P, T, C)."""
    points, count, _ = query.shape
    q = _heads(attn.q_proj(query).flatten(0, 1)[None], attn)
    k, v = (_heads(x[None], attn) for x in (shared.first_key, shared.first_value))
    seen = F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1).flatten(1)
    found: Tensor = attn.out_proj(seen.view(points, count, -1))
    return found


def _look(attn: Any, query: Tensor, images: Sequence[Unmade], key: Projection, value: Projection, room: Room) -> Tensor:
    """The tokens of every point at its image, (P, T, C)."""
    q = (_heads(attn.q_proj(query), attn) * attn.scaling).split([len(image.maps) for image in images])
    seen = []
    for image, some in zip(images, q, strict=True):
        scores = image.scores(some, key, room(some, *some.shape[:3], image.maps.shape[-1]))
        seen.append(image.seen(softmax_(scores, -1), value))
    found: Tensor = attn.out_proj(torch.cat(seen).transpose(1, 2).flatten(2))
    return found


def _updated(keys: Tensor, values: Tensor, shared: _Shared) -> Unmade:
    """The image that all points share after it has looked at the tokens, keys and values (P, H, T, d)."""
    # The image's tokens come last: a softmax over the few of a point is several times slower along the last axis.
    shape = (*keys.shape[:3], shared.first_query.shape[-1])
    maps = softmax_(times(keys, shared.first_query, keys.new_empty(shape)), 2).flatten(1, 2)
    products = times(values, shared.first_products, shared.room(values, *shape)).flatten(1, 2)
    return Unmade.of(shared.first, maps, through(values, shared.first_own), products)


def _updated_again(image: Unmade, keys: Tensor, values: Tensor, later: Tensor, shared: _Shared) -> Unmade:
    """The image after it has looked a second time; ``values`` are those that the tokens brought at first."""
    shape = (2, *keys.shape[:3], image.maps.shape[-1])
    maps = keys.new_empty(shape)
    torch.mul(image.maps, image.inverse, out=maps[0].flatten(1, 2))
    softmax_(image.scores(keys, shared.second_query, maps[1]), 2)
    products = shared.room(keys, *shape)
    times(values, shared.first_products_later, products[0])
    times(later, shared.second_products, products[1])
    own = torch.cat([through(values, shared.first_own_later), through(later, shared.second_own)], dim=1)
    return Unmade.of(shared.second, _one_below_the_other(maps), own, _one_below_the_other(products), image.inverse)


def _one_below_the_other(both: Tensor) -> Tensor:
    """(2, P, H, T, N) as (P, 2 H T, N); for one point without a copy."""
    return both.transpose(0, 1).reshape(both.shape[1], -1, both.shape[-1])


def _masks(decoder: Any, image: Unmade, number: int, kernels: Tensor, shared: _Shared) -> Tensor:
    """Logits of masks of one point, float32 (k, 4 g, 4 g), from its image and the masks' kernels, (k, c)."""
    inverse, scale = image.inverse[number], image.scale
    assert scale is not None
    left = shared.room(inverse, image.maps.shape[1] + 2, inverse.shape[-1])
    torch.mul(image.maps[number], inverse, out=left[:-2])
    left[-2:] = torch.cat([inverse, torch.ones_like(inverse)])
    left = left.to(shared.dtype)
    right = torch.cat([image.own[number] @ shared.enlarging.T, shared.enlarged_rest]).to(shared.dtype)
    both = (inverse * scale[number])[0, :, None]
    grid = round(left.shape[1] ** 0.5)
    rows = max((shared.tokens or left.shape[1]) // grid, 1)
    found = kernels.new_empty(len(kernels), 4 * grid, 4 * grid)
    for top in range(0, grid, rows):
        some = slice(top * grid, (top + rows) * grid)
        x = torch.addmm((shared.enlarged[some] * both[some]).to(shared.dtype), left[:, some].T, right)
        found[:, 4 * top : 4 * (top + rows)] = _enlarged(decoder, x, kernels, grid)
    return found


def _enlarged(decoder: Any, x: Tensor, kernels: Tensor, grid: int) -> Tensor:
    """Logits (k, 4 r, 4 grid) of r rows of the grid, from what the first enlargement made of them, (r * grid, 4 c)."""
    norm, dtype = decoder.upscale_layer_norm, x.dtype
    x = x.view(len(x), 4, -1)
    x = F.gelu(F.layer_norm(x, x.shape[-1:], norm.weight.to(dtype), norm.bias.to(dtype), norm.eps))
    weight, bias = _as_linear(decoder.upscale_conv2)
    x = F.gelu(F.linear(x, weight.to(dtype), bias.to(dtype))).view(-1, kernels.shape[1])
    logits = (kernels.to(dtype) @ x.T).float()
    # Rows of the grid, columns; row and column in a token, row and column in a quarter of it.
    placed = logits.view(len(kernels), -1, grid, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
    return placed.reshape(len(kernels), -1, 4 * grid)


def _as_linear(conv: Any) -> tuple[Tensor, Tensor]:
    """A transposed convolution of 2 x 2 and stride 2 as a linear layer of each pixel: weight (4 * out, c) and bias."""
    # By row and column of the kernel.
    return conv.weight.permute(2, 3, 1, 0).flatten(0, 2), conv.bias.repeat(4)

"""SAM's mask decoder for many single points on one tile, on the weights that transformers holds.

It computes what transformers' ``SamMaskDecoder`` computes, with a quarter of the multiplications, and a tenth of them
for points of which no mask passes:

- The image of a point, as the decoder's transformer updates it, is never made; see :mod:`geosam.models.unmade`.
- Predicted IoUs follow from one of the tokens, so that only those of masks which pass look a last time, and only such
  masks are made.
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

TOGETHER = {"cpu": 4}
"""Points worked on at once; on other devices all. The maps of one over the image are 1 MB, and there are some of them;
of fewer points products are slower, of more they leave a CPU's cache."""
TOKENS = {"cpu": 512}
"""Tokens of the image that are enlarged at once; on other devices all. These are 1 MB."""


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
        side = 4 * embeddings.image.shape[-1]
        masks, scores = [own.new_zeros(0, side, side)], [own.new_zeros(0)]
        for point in torch.split(torch.cat([own, sparse[0]], dim=1), shared.together or max(len(points), 1)):
            seen = _Seen(decoder.transformer, point, shared)
            predicted = decoder.iou_prediction_head(seen.again(0))[:, 1:]
            passed = above(predicted, least, adapter)
            masks += self._masks(seen, passed, shared)
            scores.append(predicted[passed])
        return torch.cat(masks), torch.cat(scores)

    def _masks(self, seen: _Seen, passed: Tensor, shared: _Shared) -> Iterator[Tensor]:
        """The masks that passed, bool (P, 3), of every point that has any: float32 (k, 4 g, 4 g)."""
        points, which = torch.nonzero(passed, as_tuple=True)
        if not len(points):
            return
        tokens = seen.again(2 + which, points.tolist())
        kernels = tokens.new_empty(len(tokens), shared.kernel)
        for number, head in enumerate(list(self.decoder.output_hypernetworks_mlps)[1:]):
            kernels[which == number] = head(tokens[which == number])
        for point in sorted(set(points.tolist())):
            yield _masks(seen.image, point, kernels[points == point], shared)


class _Shared:
    """What all points of a tile have in common. N = grid x grid tokens of the image, C channels, D of all heads.

    In float32, whatever the model's dtype, but for the enlargement: norms are worked out as differences of large
    products.
    """

    def __init__(self, decoder: Any, image: Tensor, adapter: Any) -> None:
        dtype, kind = adapter.dtype, adapter.device.type
        self.together, self.tokens = TOGETHER.get(kind, 0), TOKENS.get(kind, 0)
        self.maps, self.room = Room(), Room()
        """For the maps of the points worked on, and for what is needed between two lines."""
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
        self.first_products = 2 * self.first.products(self.first_own)
        self._second(second, pe, norm, self.first.x)
        self.first_own_later = brought(out, norm.weight)
        self.first_products_later = 2 * self.second.products(self.first_own_later)
        self._last(transformer.final_attn_token_to_image, pe)
        self._enlargement(decoder, dtype)

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
        self.second_products = 2 * self.second.products(self.second_own)

    def _last(self, look: Any, pe: Tensor) -> None:
        """How the last attention sees the image after that."""
        heads = look.num_attention_heads
        self.last_key = Projection(self.second, look.k_proj, heads, pe)
        self.last_value = Projection(self.second, look.v_proj, heads)

    def _enlargement(self, decoder: Any, dtype: torch.dtype) -> None:
        """How the image is enlarged, in the model's dtype but for the first weights."""
        norm, (weight, bias) = self.second.norm, _as_linear(decoder.upscale_conv1)
        self.enlarging = weight * norm.weight
        """(4 * c, C)."""
        self.enlarged = (self.second.x @ self.enlarging.T).to(dtype)
        """(N, 4 * c)."""
        self.enlarged_rest = torch.stack([self.enlarging @ self.second.k, weight @ norm.bias + bias])
        middle = decoder.upscale_layer_norm
        self.middle = middle.weight.to(dtype), middle.bias.to(dtype), middle.eps
        self.enlarging_again, self.bias_again = (part.to(dtype) for part in _as_linear(decoder.upscale_conv2))
        self.kernel = len(self.bias_again) // 4
        """Channels of an enlarged pixel."""


class _Seen:
    """P points after the blocks of the two-way transformer."""

    def __init__(self, transformer: Any, point: Tensor, shared: _Shared) -> None:
        """Take the tokens of the points, (P, T, C)."""
        self.transformer, self.shared = transformer, shared
        first, second = transformer.layers
        tokens = first.layer_norm1(_among(first.self_attn, point, point))
        tokens = first.layer_norm2(tokens + _first_look(first.cross_attn_token_to_image, tokens + point, shared))
        tokens = first.layer_norm3(tokens + first.mlp(tokens))
        keys, brings = _told(first.cross_attn_image_to_token, tokens + point, tokens)
        image = _updated(keys, brings, shared)

        tokens = second.layer_norm1(tokens + _among(second.self_attn, tokens + point, tokens))
        attn = second.cross_attn_token_to_image
        look = _look(attn, tokens + point, None, image, shared.second_key, shared.second_value, shared.room)
        tokens = second.layer_norm2(tokens + look)
        self.tokens = second.layer_norm3(tokens + second.mlp(tokens))
        self.query = self.tokens + point
        keys, later = _told(second.cross_attn_image_to_token, self.query, self.tokens)
        self.image = _updated_again(image, keys, brings, later, shared)

    def again(self, which: int | Tensor, points: Sequence[int] | None = None) -> Tensor:
        """Tokens after their last look at the image, (Q, C): one or some, int64 (Q,), of all points or of Q of them."""
        some = slice(None) if points is None else list(points)
        tokens, query = self.tokens[some, which], self.query[some, which]
        shared, attn = self.shared, self.transformer.final_attn_token_to_image
        look = _look(attn, query[:, None], points, self.image, shared.last_key, shared.last_value, shared.room)
        found: Tensor = self.transformer.layer_norm_final_attn(tokens + look[:, 0])
        return found


def _heads(x: Tensor, attn: Any) -> Tensor:
    """(P, T, D) as (P, H, T, D / H)."""
    return x.view(*x.shape[:2], attn.num_attention_heads, -1).transpose(1, 2)


def _told(attn: Any, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """What tokens tell the image: keys, scaled, and values by head, from (P, T, C) each."""
    return _heads(attn.k_proj(keys) * attn.scaling, attn), _heads(attn.v_proj(values), attn)


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


def _look(
    attn: Any, query: Tensor, whose: Sequence[int] | None, image: Unmade, key: Projection, value: Projection, room: Room
) -> Tensor:
    """Tokens, (Q, T, C), at the images of their points, which are those of ``whose`` or all."""
    q = _heads(attn.q_proj(query), attn) * attn.scaling
    scores = room(q, q.shape[1], q.shape[2], len(q), image.maps.shape[-1])
    seen = image.seen(softmax_(image.scores(q, whose, key, scores), -1), whose, value)
    found: Tensor = attn.out_proj(seen.transpose(1, 2).flatten(2))
    return found


def _updated(keys: Tensor, values: Tensor, shared: _Shared) -> Unmade:
    """The image that all points share after it has looked at the tokens, keys and values (P, H, T, d)."""
    points, heads, tokens, _ = keys.shape
    shape = (heads, tokens, points, shared.first_query.shape[-1])
    maps = shared.maps(keys, 2, *shape)[0]  # The second ones come behind.
    softmax_(times(keys, shared.first_query, maps), 1)
    products = times(values, shared.first_products, shared.room(values, *shape))
    return Unmade.of(shared.first, maps.flatten(0, 1), through(values, shared.first_own), products.flatten(0, 1))


def _updated_again(image: Unmade, keys: Tensor, values: Tensor, later: Tensor, shared: _Shared) -> Unmade:
    """The image after it has looked a second time; ``values`` are those that the tokens brought at first.

    The first image is lost: its maps are become the second's.
    """
    points, heads, tokens, _ = keys.shape
    shape = (2, heads, tokens, points, image.maps.shape[-1])
    maps = shared.maps(keys, *shape)
    softmax_(image.scores(keys, None, shared.second_query, maps[1]), 1)
    image.maps.mul_(image.inverse)
    products = shared.room(keys, *shape)
    times(values, shared.first_products_later, products[0])
    times(later, shared.second_products, products[1])
    own = torch.cat([through(values, shared.first_own_later), through(later, shared.second_own)], dim=1)
    return Unmade.of(shared.second, maps.flatten(0, 2), own, products.flatten(0, 2), image.inverse)


def _masks(image: Unmade, point: int, kernels: Tensor, shared: _Shared) -> Tensor:
    """Logits of masks of one point, float32 (k, 4 g, 4 g), from its image and the masks' kernels, (k, c)."""
    assert image.scale is not None
    # The norm after the enlargement forgets every pixel's scale, so that what all points share need not be given its
    # own for each of them. Only its eps, a millionth, counts for more or less by that.
    undone, inverse = 1 / image.scale[point], image.inverse[point]
    left = shared.room(inverse, len(image.maps) + 2, len(inverse))
    torch.mul(image.maps[:, point], undone, out=left[:-2])
    left[-2], left[-1] = undone, undone / inverse
    dtype = shared.enlarged.dtype
    left, kernels = left.to(dtype), kernels.to(dtype)
    right = torch.cat([image.own[point] @ shared.enlarging.T, shared.enlarged_rest]).to(dtype)
    found = inverse.new_empty(len(kernels), 16 * len(inverse))
    size = shared.tokens or len(inverse)
    for first in range(0, len(inverse), size):
        some = slice(first, first + size)
        x = torch.addmm(shared.enlarged[some], left[:, some].T, right)
        found[:, 16 * first : 16 * (first + size)] = _enlarged(x, kernels, shared)
    return _in_order(found)


def _enlarged(x: Tensor, kernels: Tensor, shared: _Shared) -> Tensor:
    """Logits (k, 16 * n) of n tokens of the image, from what the first enlargement made of them, (n, 4 * c)."""
    weight, bias, eps = shared.middle
    x = F.gelu(F.layer_norm(x.view(-1, len(weight)), weight.shape, weight, bias, eps))
    x = F.gelu(F.linear(x, shared.enlarging_again, shared.bias_again))
    return kernels @ x.view(-1, shared.kernel).T


def _in_order(logits: Tensor) -> Tensor:
    """Logits by token, (k, 16 * g * g), as masks, (k, 4 g, 4 g)."""
    grid = round((logits.shape[1] / 16) ** 0.5)
    # Rows of the grid, columns; row and column in a token, row and column in a quarter of it.
    # The last two stay together, as the parts of a complex number: to move them one by one takes 7 times as long.
    pairs = torch.view_as_complex(logits.view(len(logits), grid, grid, 2, 2, 2, 2))
    placed = torch.view_as_real(pairs.permute(0, 1, 3, 5, 2, 4).contiguous())
    return placed.view(len(logits), 4 * grid, 4 * grid)


def _as_linear(conv: Any) -> tuple[Tensor, Tensor]:
    """A transposed convolution of 2 x 2 and stride 2 as a linear layer of each pixel: weight (4 * out, c) and bias."""
    # By row and column of the kernel.
    return conv.weight.permute(2, 3, 1, 0).flatten(0, 2), conv.bias.repeat(4)

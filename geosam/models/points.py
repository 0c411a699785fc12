"""SAM's mask decoder for many single points on one tile, on the weights that transformers holds.

It computes what transformers' ``SamMaskDecoder`` computes, with two fifths of the multiplications, or less:

- The image is the same for all points until the first block has updated it: what is projected of it before is shared.
- A point has T = 7 tokens, and the H = 8 heads of attention between them and the 4096 of the image make 56 rows. To
  project those rows into the image's 256 channels is cheaper than to project the image into the heads' 128, for
  queries and keys (q . W x = (W' q) . x), for values (A (W x) = W (A x)) and for the update of the image.
- Predicted IoUs follow from the tokens alone, so that masks are made only of points that have one which passes.
- The image stays channels last: transposed convolutions of stride 2 are products, and only masks are put in order.

Source: Kirillov et al. (2023), Segment Anything, appendix A, for the decoder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from geosam.models.bodies import to_sam_xy
from geosam.models.clicks import above
from geosam.models.segment_anything import SamEmbeddings

UPSCALED = {"cpu": 2}
ELSEWHERE = 64
"""Points whose masks are made at once; each holds some 15 MB meanwhile, which a CPU should have in its cache."""


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
        # In float32: in the 8 bits of bfloat16 a point of a 1024 px tile would move by about a pixel.
        sparse, dense = adapter.model.prompt_encoder(
            input_points=xy, input_labels=labels, input_boxes=None, input_masks=None
        )
        if self._seen is None or self._seen[0] is not embeddings.image:
            shared = _Shared(decoder.transformer, embeddings.image + dense[:1], adapter._positions, adapter.dtype)
            self._seen = embeddings.image, shared
        shared = self._seen[1]
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).expand(len(points), -1, -1)
        tokens, image = _transformed(decoder.transformer, torch.cat([own, sparse[0]], dim=1), shared)
        predicted = decoder.iou_prediction_head(tokens[:, 0])[:, 1:]
        passed = above(predicted, least, adapter)
        wanted = passed.any(dim=1).nonzero()[:, 0]
        size = UPSCALED.get(adapter.device.type, ELSEWHERE)
        masks = [
            _masks(decoder, image[some], tokens[some, 1:5])[passed[some]]
            for some in torch.split(wanted, size)
            if len(some)
        ]
        side = 4 * embeddings.image.shape[-1]
        return torch.cat([*masks, image.new_zeros(0, side, side, dtype=torch.float32)]), predicted[passed]


class _Shared:
    """What all points of a tile have in common. N = grid x grid tokens of the image, C channels, D of all heads."""

    def __init__(self, transformer: Any, image: Tensor, positions: Tensor, dtype: torch.dtype) -> None:
        self.dtype = dtype
        first, second = transformer.layers
        x, pe = (part.flatten(2).transpose(1, 2)[0] for part in (image.float(), positions.float()))
        self.image = x.to(dtype)
        """(N, C)."""
        into, out = first.cross_attn_token_to_image, first.cross_attn_image_to_token
        self.first_key, self.first_value = into.k_proj(x + pe), into.v_proj(x)
        self.first_query = out.q_proj(x + pe).to(dtype)
        """(N, D) each."""
        # Of q . (W (x + pe) + b) what does not depend on x.
        self.second_key = second.cross_attn_token_to_image.k_proj(pe).to(dtype)
        self.last_key = transformer.final_attn_token_to_image.k_proj(pe).to(dtype)
        self.second_query = second.cross_attn_image_to_token.q_proj(pe).to(dtype)


def _transformed(transformer: Any, point: Tensor, shared: _Shared) -> tuple[Tensor, Tensor]:
    """Tokens (P, T, C), float32, and the image as each point has it, (P, N, C), after the two-way transformer."""
    first, second = transformer.layers
    tokens = first.layer_norm1(_among(first.self_attn, point, point))
    tokens = first.layer_norm2(tokens + _first_look(first.cross_attn_token_to_image, tokens + point, shared))
    tokens = first.layer_norm3(tokens + first.mlp(tokens))
    attn = first.cross_attn_image_to_token
    keys = _rows(_heads(attn.k_proj(tokens + point), attn)).to(shared.dtype)
    scores = torch.matmul(keys, shared.first_query.T)
    image = _updated(first, shared.image, scores, tokens, shared.dtype)

    query = tokens + point
    tokens = second.layer_norm1(tokens + _among(second.self_attn, query, tokens))
    look = _look(second.cross_attn_token_to_image, tokens + point, image, shared.second_key)
    tokens = second.layer_norm2(tokens + look)
    tokens = second.layer_norm3(tokens + second.mlp(tokens))
    attn = second.cross_attn_image_to_token
    keys = _heads(attn.k_proj(tokens + point), attn)
    scores = torch.matmul(_rows(keys).to(shared.dtype), shared.second_query.T)
    scores += torch.bmm(_through(keys, attn.q_proj.weight, attn).to(shared.dtype), image.transpose(1, 2))
    image = _updated(second, image, scores, tokens, shared.dtype)

    look = _look(transformer.final_attn_token_to_image, tokens + point, image, shared.last_key)
    return transformer.layer_norm_final_attn(tokens + look), image


def _heads(x: Tensor, attn: Any) -> Tensor:
    """(P, T, D) as (P, H, T, D / H)."""
    return x.view(*x.shape[:2], attn.num_attention_heads, -1).transpose(1, 2)


def _rows(heads: Tensor) -> Tensor:
    """Heads (P, H, T, d) as rows over all channels of all heads, zero in those of the others: (P, H * T, H * d)."""
    count = heads.shape[1]
    spread = torch.zeros(*heads.shape[:3], count, heads.shape[3], dtype=heads.dtype, device=heads.device)
    spread[:, torch.arange(count), :, torch.arange(count)] = heads.transpose(0, 1)
    return spread.flatten(3).flatten(1, 2)


def _through(heads: Tensor, weight: Tensor, attn: Any) -> Tensor:
    """Heads (P, H, T, d) taken back through a projection, weight (H * d, C): (P, H * T, C)."""
    by_head = weight.reshape(attn.num_attention_heads, -1, weight.shape[-1])
    return torch.einsum("phtd,hdc->phtc", heads, by_head).flatten(1, 2)


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


def _look(attn: Any, query: Tensor, image: Tensor, key: Tensor) -> Tensor:
    """The tokens of every point at its image, (P, T, C); ``key`` (N, D) is what positions add to the image's keys."""
    q = _heads(attn.q_proj(query), attn) * attn.scaling
    scores = torch.matmul(_rows(q).to(image.dtype), key.T)
    scores += torch.bmm(_through(q, attn.k_proj.weight, attn).to(image.dtype), image.transpose(1, 2))
    weights = scores.softmax(dim=-1)
    heads, channels = attn.num_attention_heads, image.shape[-1]
    seen = torch.bmm(weights, image).float().view(len(image), heads, -1, channels)
    by_head = attn.v_proj.weight.view(heads, -1, channels)
    value = torch.einsum("phtc,hdc->pthd", seen, by_head).flatten(2) + attn.v_proj.bias
    found: Tensor = attn.out_proj(value)
    return found


def _updated(layer: Any, image: Tensor, scores: Tensor, tokens: Tensor, dtype: torch.dtype) -> Tensor:
    """The image after it has looked at the tokens, (P, N, C), from its scores with them, (P, H * T, N)."""
    attn, norm = layer.cross_attn_image_to_token, layer.layer_norm4
    count = tokens.shape[1]
    # The image's tokens come last: a softmax over the few of a point is several times slower along the last axis.
    by_head = scores.mul_(attn.scaling).view(len(tokens), -1, count, scores.shape[-1])
    weights = by_head.softmax(dim=2).flatten(1, 2)
    values = _heads(attn.v_proj(tokens), attn)
    # The weights of each head sum to one, so that the bias comes with them.
    update = _through(values, attn.out_proj.weight.T, attn) + attn.out_proj.bias / attn.num_attention_heads
    image = torch.bmm(weights.transpose(1, 2), update.to(dtype)).add_(image)
    return F.layer_norm(image, norm.normalized_shape, norm.weight.to(dtype), norm.bias.to(dtype), norm.eps)


def _masks(decoder: Any, image: Tensor, tokens: Tensor) -> Tensor:
    """Logits of the three masks of some points, float32 (S, 3, 4 g, 4 g), from their images, (S, g * g, C)."""
    norm, dtype = decoder.upscale_layer_norm, image.dtype
    x = _doubled(decoder.upscale_conv1, image)
    x = F.gelu(F.layer_norm(x, x.shape[-1:], norm.weight.to(dtype), norm.bias.to(dtype), norm.eps))
    x = F.gelu(_doubled(decoder.upscale_conv2, x))
    heads = decoder.output_hypernetworks_mlps
    kernels = torch.stack([heads[n](tokens[:, n]) for n in range(1, len(heads))], dim=2)
    logits = torch.bmm(x.flatten(1, -2), kernels.to(dtype)).float()
    grid = round(image.shape[1] ** 0.5)
    # Rows of the grid, columns; row and column in a token, row and column in a quarter of it.
    placed = logits.view(len(image), grid, grid, 2, 2, 2, 2, -1).permute(0, 7, 1, 3, 5, 2, 4, 6)
    return placed.reshape(len(image), -1, 4 * grid, 4 * grid)


def _doubled(conv: Any, x: Tensor) -> Tensor:
    """A transposed convolution of 2 x 2 and stride 2 on (..., c), each pixel by itself: (..., 4, out)."""
    weight = conv.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (4 * out, c), by row and column of the kernel
    y = F.linear(x, weight.to(x.dtype), conv.bias.repeat(4).to(x.dtype))
    return y.view(*x.shape[:-1], 4, -1)

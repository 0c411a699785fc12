"""SAM's image encoder on the weights that transformers holds, with attention that suits the device.

It computes what transformers' ``SamVisionEncoder`` computes, but never holds the scores of a whole layer: those of one
tile of 1024 px are 800 MB in float32 in each of the four global layers, and go to memory and back several times.

Source: Li et al. (2022), MViTv2, for decomposed relative positions: the score of a query and a key is their product,
plus one term for their distance in rows and one for that in columns, both products of the query with learned vectors.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from geosam.models.device import has_amx

Attend = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""Attention of n heads over a grid of h x w = t tokens: from queries, keys and values, each (n, t, d), and the
position terms of every query by row (n, t, h) and by column (n, t, w) to (n, t, d)."""

Encode = Callable[[Any, Tensor], Tensor]
"""From transformers' ``SamVisionEncoder`` and normalised images, float (B, 3, S, S), to image embeddings, float
(B, 256, S/16, S/16). Adapters in the encoder's layers are heeded."""

Encoded = TypeVar("Encoded")

_SCORES_A_THREAD = 1 << 19
"""Scores that a CPU thread holds at once: 2 MB in float32, which stay in the cache. Half and twice as many cost within
a tenth of the same."""
_BIAS_MOST = 1 << 28
"""Elements of a bias that a GPU holds at once: 512 MB in half precision, whatever the batch."""
_CHANNELS = 32
"""AMX multiplies so many numbers of a row at once; of other multiples attention in windows takes a fifth longer."""


def plain_encode(device: torch.device) -> Encode:
    """The way to encode that needs no compiler."""
    return partial(encode, attend=on_cpu if device.type == "cpu" else fused)


def compiled_encode(device: torch.device) -> Encode:
    """The way to encode with ``torch.compile``: its first batch waits for the compiler, the others are faster.

    Where the compiler fails, another way is taken from then on, and a RuntimeWarning says so.
    """
    # One layer at a time: the compiler's work is then the same for 12 layers as for 32.
    compiled = torch.compile(_layer)
    kept_out: Any = torch.compiler.disable  # The compiler would unroll the loop over blocks.
    attends = {"cuda": [flex, fused], "cpu": [kept_out(on_cpu)]}.get(device.type, [fused])
    ways: list[Encode] = [partial(encode, attend=attend, layer=compiled) for attend in attends]
    return FirstThatWorks([*ways, plain_encode(device)])


class FirstThatWorks(Generic[Encoded]):
    """Ways to encode, the best first; one that raises is not tried again."""

    def __init__(self, ways: Sequence[Callable[[Any, Tensor], Encoded]]) -> None:
        self.ways = list(ways)

    def __call__(self, encoder: Any, pixels: Tensor) -> Encoded:
        """Encode; see :data:`Encode`."""
        while len(self.ways) > 1:
            try:
                return self.ways[0](encoder, pixels)
            except torch.cuda.OutOfMemoryError:
                raise  # A smaller batch helps; another way does not.
            except Exception as error:  # Compilers raise what they like.
                self.ways.pop(0)
                reason = next(iter(str(error).splitlines()), type(error).__name__)[:160]
                warnings.warn(f"--compile: {reason}; going on in another way", RuntimeWarning, stacklevel=2)
        return self.ways[0](encoder, pixels)


def encode(encoder: Any, pixels: Tensor, attend: Attend, layer: Callable[..., Tensor] | None = None) -> Tensor:
    """Image embeddings; see :data:`Encode`.

    Args:
        encoder: Holds the weights.
        pixels: Normalised images.
        attend: Computes attention.
        layer: Computes a layer; None: as it is written here, not compiled.
    """
    x: Tensor = encoder.patch_embed(pixels)
    if encoder.pos_embed is not None:
        x = x + encoder.pos_embed
    for weights in encoder.layers:
        x = (layer or _layer)(weights, x, attend)
    embedding: Tensor = encoder.neck(x)
    return embedding


def _layer(weights: Any, x: Tensor, attend: Attend) -> Tensor:
    """One ``SamVisionLayer`` on a grid of tokens, (B, h, w, C)."""
    x = x + _attention(weights.attn, weights.layer_norm1(x), weights.window_size, attend)
    found: Tensor = x + weights.mlp(weights.layer_norm2(x))
    return found


def _attention(attn: Any, x: Tensor, window: int, attend: Attend) -> Tensor:
    """Self-attention over the grid, or inside its windows of ``window`` x ``window`` tokens; 0: no windows."""
    _, height, width, channels = x.shape
    qkv = attn.qkv(x)
    if window:
        # Windows that hang over the grid are filled up after the product, not before it: a fifth less to multiply.
        qkv = _into_windows(qkv, attn.qkv(x.new_zeros(channels)), window)
    n, h, w, _ = qkv.shape
    heads: int = attn.num_attention_heads
    # Rows one after another: as far apart as they are in qkv, products take three times as long.
    q, k, v = qkv.view(n, h * w, 3, heads, -1).permute(2, 0, 3, 1, 4).contiguous().view(3, n * heads, h * w, -1)
    y = attend(q, k, v, *_position_terms(attn, q, h, w))
    y = y.view(n, heads, h, w, -1).permute(0, 2, 3, 1, 4).reshape(n, h, w, channels)
    found: Tensor = attn.proj(_out_of_windows(y, height, width) if window else y)
    return found


def _position_terms(attn: Any, q: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """What the distance in rows and that in columns add to scores: (n, t, height) and (n, t, width)."""
    if not attn.use_rel_pos:
        return q.new_zeros(1).expand(*q.shape[:2], height), q.new_zeros(1).expand(*q.shape[:2], width)
    grid = q.view(len(q), height, width, -1)
    by_row = torch.einsum("nhwd,hkd->nhwk", grid, _by_distance(attn.rel_pos_h, height))
    by_col = torch.einsum("nhwd,wkd->nhwk", grid, _by_distance(attn.rel_pos_w, width))
    return by_row.flatten(1, 2), by_col.flatten(1, 2)


def _by_distance(table: Tensor, size: int) -> Tensor:
    """The vector of every pair of places along an axis: from (2 * size - 1, d) to (size, size, d)."""
    place = torch.arange(size, device=table.device)
    return table[place[:, None] - place[None, :] + size - 1]


def _into_windows(x: Tensor, outside: Tensor, side: int) -> Tensor:
    """Cut (B, h, w, C) into windows, (B * windows, side, side, C); what hangs over is ``outside``, (C,)."""
    batch, height, width, channels = x.shape
    below, right = -height % side, -width % side
    x = F.pad(x, (0, 0, 0, right, 0, below))
    x[:, height:] = outside
    x[:, :, width:] = outside
    x = x.view(batch, (height + below) // side, side, (width + right) // side, side, channels)
    return x.transpose(2, 3).reshape(-1, side, side, channels)


def _out_of_windows(x: Tensor, height: int, width: int) -> Tensor:
    """Undo :func:`_into_windows`: (B * windows, side, side, C) to (B, height, width, C)."""
    _, side, _, channels = x.shape
    rows, cols = -(-height // side), -(-width // side)
    x = x.view(-1, rows, cols, side, side, channels).transpose(2, 3)
    return x.reshape(-1, rows * side, cols * side, channels)[:, :height, :width].contiguous()


def on_cpu(q: Tensor, k: Tensor, v: Tensor, by_row: Tensor, by_col: Tensor) -> Tensor:
    """Attention in the way that is fastest on this CPU; see :data:`Attend`."""
    attend = by_channels if q.dtype == torch.bfloat16 and has_amx() else by_blocks
    return attend(q, k, v, by_row, by_col)


def by_channels(q: Tensor, k: Tensor, v: Tensor, by_row: Tensor, by_col: Tensor) -> Tensor:
    """PyTorch's fused attention with positions as further channels, in place of a bias; see :data:`Attend`.

    Those of a query are its terms; those of a key are a one for its row, a one for its column, and zeros. For AMX three
    times the multiplications are little beside scores that go to memory and back: with blocks a head of a tile of
    1024 px takes five times as long, and loses more, as they round scores to bfloat16.
    """
    d, height, width = q.shape[-1], by_row.shape[-1], by_col.shape[-1]
    unused = -(d + height + width) % _CHANNELS
    place = torch.arange(height * width, device=q.device)
    at = torch.cat([F.one_hot(place // width, height), F.one_hot(place % width, width + unused)], dim=1).to(k.dtype)
    asked = torch.cat([q * d**-0.5, by_row, F.pad(by_col, (0, unused))], dim=-1)
    offered = torch.cat([k, at.expand(len(k), -1, -1)], dim=-1)
    told = F.pad(v, (0, height + width + unused))  # The fused kernel wants all three of one size.
    return F.scaled_dot_product_attention(asked[None], offered[None], told[None], scale=1.0)[0, ..., :d]


def by_blocks(q: Tensor, k: Tensor, v: Tensor, by_row: Tensor, by_col: Tensor) -> Tensor:
    """Attention in blocks that a CPU's cache holds; see :data:`Attend`.

    PyTorch's fused attention multiplies bfloat16 no faster than float32 on CPUs without AMX, and is given the bias of
    a whole layer by way of memory. As there, bias and softmax are float32; scores are rounded once, as products.
    """
    out = torch.empty_like(q)
    n, tokens, d = q.shape
    for heads, rows in _blocks(n, tokens, _SCORES_A_THREAD * torch.get_num_threads()):
        bias = by_row[heads, rows, :, None].float() + by_col[heads, rows, None, :]
        product = torch.bmm(q[heads, rows], k[heads].transpose(1, 2))
        weights = bias.add_(product.view(bias.shape), alpha=d**-0.5).flatten(2).softmax(-1)
        out[heads, rows] = torch.bmm(weights.to(v.dtype), v[heads])
    return out


def fused(q: Tensor, k: Tensor, v: Tensor, by_row: Tensor, by_col: Tensor) -> Tensor:
    """PyTorch's fused attention with the position terms as its bias; see :data:`Attend`."""
    found = []
    for heads, _ in _blocks(len(q), 1, max(_BIAS_MOST // q.shape[1] ** 2, 1)):
        bias = (by_row[heads, :, :, None] + by_col[heads, :, None, :]).flatten(2)
        some = F.scaled_dot_product_attention(q[None, heads], k[None, heads], v[None, heads], attn_mask=bias[None])
        found.append(some[0])
    return torch.cat(found) if len(found) > 1 else found[0]


def flex(q: Tensor, k: Tensor, v: Tensor, by_row: Tensor, by_col: Tensor) -> Tensor:
    """Attention whose kernel adds the position terms itself, once compiled; see :data:`Attend`."""
    from torch.nn.attention.flex_attention import flex_attention

    width = by_col.shape[-1]

    def with_position(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + by_row[head, query, key // width] + by_col[head, query, key % width]

    found: Tensor = flex_attention(q[None], k[None], v[None], score_mod=with_position)
    return found[0]


def _blocks(heads: int, tokens: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Slices of heads and of queries, which have at most about ``most`` scores, of ``tokens`` keys, among them."""
    some = max(most // tokens**2, 1)
    rows = min(max(most // tokens, 1), tokens)
    for head in range(0, heads, some):
        for row in range(0, tokens, rows):
            yield slice(head, head + some), slice(row, row + rows)

"""SAM's mask decoder, with optional skips from the encoder's fine stages as SAM 2 has them.

Parameter names follow the published segment-anything checkpoints. Sources: Kirillov et al.
(2023), Segment Anything, appendix A; Ravi et al. (2024), SAM 2, for the skips.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geosam.models.image_encoder import FINE_CHANNELS, Features, LayerNorm2d

MASKS = 4
"""Mask tokens: one for a single mask, three for whole, part and sub-part."""


class Attention(nn.Module):
    """Multi-head attention whose inner width is ``dim / downsample``."""

    def __init__(self, dim: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        inner = dim // downsample
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(dim, inner), nn.Linear(dim, inner)
        self.v_proj, self.out_proj = nn.Linear(dim, inner), nn.Linear(inner, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from q, float (N, Lq, dim), to k and v, float (N, Lk, dim)."""
        parts = (self.q_proj(q), self.k_proj(k), self.v_proj(v))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        out: Tensor = self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, dim: int, hidden: int, out: int, depth: int) -> None:
        super().__init__()
        sizes = [dim] + [hidden] * (depth - 1) + [out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        """Map x, float (..., dim), to float (..., out)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


class _TokenMLP(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lin2(F.relu(self.lin1(x)))
        return out


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves and to the image, then the image attends to the tokens."""

    def __init__(self, dim: int, heads: int, hidden: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(dim, heads)
        self.cross_attn_token_to_image = Attention(dim, heads, downsample=2)
        self.mlp = _TokenMLP(dim, hidden)
        self.cross_attn_image_to_token = Attention(dim, heads, downsample=2)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(dim) for _ in range(4))

    def forward(self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        """Update tokens, float (N, T, dim), and image, float (N, h * w, dim)."""
        if self.first:  # The first block has nothing to add to yet: SAM replaces the tokens.
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            q = tokens + token_pe
            tokens = tokens + self.self_attn(q, q, tokens)
        tokens = self.norm1(tokens)
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, image + image_pe, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(image + image_pe, tokens + token_pe, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """Two blocks and a last look of the tokens at the image."""

    def __init__(self, dim: int = 256, heads: int = 8, hidden: int = 2048, depth: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(dim, heads, hidden, first=i == 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(dim, heads, downsample=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, image: Tensor, image_pe: Tensor, token_pe: Tensor) -> tuple[Tensor, Tensor]:
        """Run image, float (N, dim, h, w), and prompt tokens, float (N, T, dim), against each other."""
        image, image_pe = image.flatten(2).transpose(1, 2), image_pe.flatten(2).transpose(1, 2)
        tokens = token_pe
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe)
        seen = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens + seen), image


class MaskDecoder(nn.Module):
    """Image embedding and prompt tokens to mask logits at stride 4 and predicted IoUs."""

    def __init__(self, dim: int = 256, skips: bool = False) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(dim)
        self.iou_token, self.mask_tokens = nn.Embedding(1, dim), nn.Embedding(MASKS, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, stride=2), LayerNorm2d(dim // 4), nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, stride=2), nn.GELU(),
        )  # fmt: skip
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8, 3) for _ in range(MASKS))
        self.iou_prediction_head = MLP(dim, 256, MASKS, 3)
        self.skip4 = self.skip8 = self.refine = self.trust = None
        if skips:
            self.skip4 = nn.Conv2d(FINE_CHANNELS, dim // 8, 1)
            self.skip8 = nn.Conv2d(FINE_CHANNELS, dim // 4, 1)
            self.refine = nn.Conv2d(dim // 8, dim // 8, 3, padding=1)
            self.trust = nn.Linear(dim, 1)
            nn.init.zeros_(self.trust.weight)
            nn.init.ones_(self.trust.bias)  # At first the answer is all water, whatever was asked.

    def forward(
        self, features: Features, image_pe: Tensor, sparse: Tensor, dense: Tensor, masks: Sequence[int] = (0,)
    ) -> tuple[Tensor, Tensor]:
        """Decode N prompts, each on its own features.

        Args:
            features: Of N tiles of side S.
            image_pe: float (1, 256, S/16, S/16).
            sparse: float (N, T, 256), tokens of points and boxes; T may be 0.
            dense: float (N, 256, S/16, S/16).
            masks: Which of the four mask tokens to decode; 0 is the single mask.

        Returns:
            Logits float (N, len(masks), S/4, S/4) and predicted IoUs float (N, len(masks)).
        """
        n = sparse.shape[0]
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(n, -1, -1)
        grid = features.embedding + dense
        tokens, image = self.transformer(grid, image_pe.expand(n, -1, -1, -1), torch.cat([own, sparse], dim=1))
        fine = self._upscale(image.transpose(1, 2).reshape(grid.shape), features)
        kernels = torch.stack([self.output_hypernetworks_mlps[m](tokens[:, 1 + m]) for m in masks], dim=1)
        logits = torch.einsum("nmc,nchw->nmhw", kernels, fine)
        if self.trust is not None and features.water is not None:
            trust = torch.stack([self.trust(tokens[:, 1 + m]) for m in masks], dim=1)
            logits = logits + trust.unsqueeze(-1) * features.water
        return logits, self.iou_prediction_head(tokens[:, 0])[:, list(masks)]

    def _upscale(self, image: Tensor, features: Features) -> Tensor:
        """Bring the image grid to stride 4, adding the encoder's fine stages where there are skips."""
        up1, norm, act, up2, _ = self.output_upscaling
        if self.skip4 is None or self.skip8 is None or self.refine is None:
            fine: Tensor = self.output_upscaling(image)
            return fine
        x = act(norm(up1(image) + self.skip8(features.stride8)))
        x = act(up2(x) + self.skip4(features.stride4))
        refined: Tensor = x + act(self.refine(x))
        return refined

"""SAM's prompt encoder: points, boxes and a dense mask become tokens and a grid.

Parameter names follow the published segment-anything checkpoints, so that their weights load
without a table of names. Source: Kirillov et al. (2023), Segment Anything, appendix A.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from geosam.models.image_encoder import LayerNorm2d


class FourierPositions(nn.Module):
    """Random Fourier features of positions in the unit square (Tancik et al. 2020)."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features))

    def forward(self, xy: Tensor) -> Tensor:
        """Encode xy in [0, 1], float (..., 2), as float (..., 2 * features)."""
        # In bfloat16, as autocast would have it, a position of 1,000 px is rounded to the nearest 4 px.
        with torch.autocast(xy.device.type, enabled=False):
            angle = 2 * math.pi * ((2 * xy.float() - 1) @ self.positional_encoding_gaussian_matrix.float())
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class PromptEncoder(nn.Module):
    """Points, boxes and masks to SAM's sparse and dense embeddings.

    Positions are divided by ``image_size`` whatever the size of the tile that is run, so that a
    distance in pixels has one meaning at every tile size.
    """

    def __init__(self, embed_dim: int = 256, image_size: int = 512) -> None:
        super().__init__()
        self.image_size = image_size
        self.pe_layer = FourierPositions(embed_dim // 2)
        self.point_embeddings = nn.ModuleList([nn.Embedding(1, embed_dim) for _ in range(4)])
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.no_mask_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, 2, stride=2), LayerNorm2d(4), nn.GELU(),
            nn.Conv2d(4, 16, 2, stride=2), LayerNorm2d(16), nn.GELU(),
            nn.Conv2d(16, embed_dim, 1),
        )  # fmt: skip

    def points(self, xy: Tensor, labels: Tensor) -> Tensor:
        """Tokens of points.

        Args:
            xy: float (N, K, 2), pixels, (0, 0) the outer corner of the first pixel.
            labels: int64 (N, K): 1 water, 0 dry, 2 and 3 the first and last corner of a box, negative padding.

        Returns:
            float (N, K, 256). Padding has the token that SAM learned for "no point here".
        """
        tokens = self.pe_layer(xy / self.image_size)
        kind = labels.unsqueeze(-1)
        tokens = torch.where(kind < 0, self.not_a_point_embed.weight, tokens)
        for number, embedding in enumerate(self.point_embeddings):
            assert isinstance(embedding, nn.Embedding)
            tokens = torch.where(kind == number, tokens + embedding.weight, tokens)
        return tokens

    def dense(self, mask: Tensor | None, count: int, grid: tuple[int, int], has_mask: Tensor | None = None) -> Tensor:
        """The dense embedding of N prompts, float (N, 256, h, w) of the embedding's grid.

        Args:
            mask: float (N, 1, 4h, 4w), or None where no prompt has one.
            count: N.
            grid: (h, w).
            has_mask: bool (N,), which rows of ``mask`` count; None: all.
        """
        without = self.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(count, -1, *grid)
        if mask is None:
            return without
        given: Tensor = self.mask_downscaling(mask)
        return given if has_mask is None else torch.where(has_mask.view(-1, 1, 1, 1), given, without.to(given.dtype))

    def grid_positions(self, grid: tuple[int, int], origin: tuple[float, float] = (0.0, 0.0)) -> Tensor:
        """Encoded centres of cells of 16 px, float (1, 256, h, w); ``origin`` is the tile's own corner (x, y)."""
        device = self.no_mask_embed.weight.device
        y = (torch.arange(grid[0], device=device) + 0.5) * 16 + origin[1]
        x = (torch.arange(grid[1], device=device) + 0.5) * 16 + origin[0]
        xy = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1) / self.image_size
        encoded: Tensor = self.pe_layer(xy)
        return encoded.permute(2, 0, 1).unsqueeze(0)

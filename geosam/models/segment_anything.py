"""What SAM and its successors have in common, on transformers' classes: an encoder that runs once a tile, a prompt
encoder and a mask decoder that run as often as wanted.

Source: Kirillov et al. (2023), Segment Anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from geosam.models.bodies import Body, bodies_of, in_groups, to_sam_xy
from geosam.models.device import autocast, to_device
from geosam.models.protocol import DRY_LOGIT, best_of
from geosam.prompts import Prompts

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
"""ImageNet's mean and standard deviation of 8-bit RGB, by which SAM was trained."""

MASK_LOGIT = 6.0
"""Stands for certain water in a dense prompt: SAM was trained on its own logits, of which +-6 is a sure one."""

CHUNK = {"cpu": 8}
ELSEWHERE = 32
"""Bodies decoded at once. At 1024 px 8 need 0.4 GB and 32 need 1.2 GB (measured); a CPU gains nothing by more."""


@dataclass(frozen=True)
class SamEmbeddings:
    """Image embeddings of B tiles, on the model's device.

    Attributes:
        image: float (B, 256, g, g) with g = tile_px / 16, or / 14 for SAM 3.
        fine: What else of the encoder the family's decoder looks at, each float (B, ...).
    """

    image: Tensor
    fine: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.image)


class SegmentAnything:
    """A :class:`~geosam.models.protocol.PromptableModel` on a network of transformers.

    A family says how its encoder is run (:meth:`_features`) and what its decoder is given besides the image
    embedding (:meth:`_details`).
    """

    mean: ClassVar[tuple[float, float, float]] = MEAN
    std: ClassVar[tuple[float, float, float]] = STD
    """Of 8-bit RGB, where the checkpoint's own preprocessing does not say otherwise."""
    empty_point: ClassVar[bool] = False
    """A body without point or box is asked for by a point that is none."""

    def __init__(
        self,
        model: Any,
        *,
        name: str,
        sha256: str,
        device: torch.device,
        dtype: torch.dtype,
        threshold: float = 0.5,
        understands: frozenset[str] = frozenset({"points", "boxes"}),
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        self.model = model.float().to(device).eval().requires_grad_(False)
        self.name, self.sha256, self.threshold, self.understands = name, sha256, threshold, understands
        self.device, self.dtype = device, dtype
        self.tile_px = int(model.prompt_encoder.input_image_size)
        self.multimask = True
        self.step_px: int | None = None  # The encoder's positions are of the full tile.
        self._mask_px = 4 * int(model.prompt_encoder.image_embedding_size[0])
        self._mean = torch.tensor(tuple(mean or self.mean), device=device).view(3, 1, 1)
        self._std = torch.tensor(tuple(std or self.std), device=device).view(3, 1, 1)
        with torch.no_grad():
            self._positions = self.model.get_image_wide_positional_embeddings()

    def _features(self, pixels: Tensor) -> SamEmbeddings:
        """Encode normalised images, float (B, 3, tile_px, tile_px)."""
        raise NotImplementedError

    def _details(self, fine: tuple[Tensor, ...], tiles: Sequence[int]) -> dict[str, Any]:
        """What the mask decoder is given besides the image embedding, for bodies on these tiles."""
        return {}

    @property
    def module(self) -> torch.nn.Module:
        """The network itself, for those who train it."""
        network: torch.nn.Module = self.model
        return network

    @torch.inference_mode()
    def embed(self, images: Tensor) -> SamEmbeddings:
        """Encode tiles, uint8 (B, 3, tile_px, tile_px) as RGB."""
        return self.encode(images)

    def encode(self, images: Tensor) -> SamEmbeddings:
        """As :meth:`embed`, with gradients where the weights want them."""
        if images.dtype != torch.uint8 or images.shape[1:] != (3, self.tile_px, self.tile_px):
            raise ValueError(f"tiles must be uint8 (B, 3, {self.tile_px}, {self.tile_px}), got {tuple(images.shape)}")
        pixels = (to_device(images, self.device).float() - self._mean) / self._std
        with autocast(self.device, self.dtype):
            # Channels last, as the encoder has its tokens: the grid of patches needs no other order then.
            return self._features(pixels.contiguous(memory_format=torch.channels_last))

    @torch.inference_mode()
    def decode(self, embeddings: SamEmbeddings, prompts: Sequence[Prompts]) -> Tensor:
        """Logits of water, float32 (B, tile_px, tile_px); see the protocol."""
        if len(prompts) != len(embeddings):
            raise ValueError(f"one Prompts a tile is needed: got {len(prompts)} for {len(embeddings)} tiles")
        size = (len(prompts), self.tile_px, self.tile_px)
        logits = torch.full(size, -torch.inf, device=self.device)
        bodies = bodies_of(prompts, self.understands, self.name)
        for group in in_groups(bodies, CHUNK.get(self.device.type, ELSEWHERE)):
            for body, found in zip(group, self._decode_group(embeddings, group), strict=True):
                torch.maximum(logits[body.tile], found, out=logits[body.tile])
        dry = torch.tensor([len(prompt) == 0 for prompt in prompts], device=self.device)
        return logits.masked_fill_(dry.view(-1, 1, 1), DRY_LOGIT)

    def pack(self, embeddings: SamEmbeddings) -> dict[str, Tensor]:
        """Embeddings as named tensors, each (B, ...), to be kept."""
        return {"image": embeddings.image, **{f"fine{n}": part for n, part in enumerate(embeddings.fine)}}

    def unpack(self, tensors: dict[str, Tensor]) -> SamEmbeddings:
        """Embeddings from what :meth:`pack` gave."""
        kept = {name: part.to(self.device).float() for name, part in tensors.items()}
        return SamEmbeddings(kept.pop("image"), tuple(kept[name] for name in sorted(kept)))

    def ask(
        self, embeddings: SamEmbeddings, prompts: Sequence[Prompts], *, many: bool = False
    ) -> tuple[Tensor, Tensor]:
        """One body a tile, with gradients where the weights want them.

        Args:
            embeddings: Of B tiles.
            prompts: B of one row each.
            many: The three masks of an ambiguous prompt instead of the single one.

        Returns:
            Logits float32 (B, M, 4g, 4g) for an embedding of g x g and predicted IoUs float32 (B, M), M 1 or 3.
        """
        order, found = [], []
        for group in in_groups(bodies_of(prompts, self.understands, self.name), len(prompts)):
            order += [body.tile for body in group]
            found.append(self._low(embeddings, group, many))
        back = torch.tensor(order, device=self.device).argsort()
        return tuple(torch.cat(parts)[back] for parts in zip(*found, strict=True))  # type: ignore[return-value]

    def _decode_group(self, embeddings: SamEmbeddings, group: Sequence[Body]) -> Tensor:
        """Logits float32 (n, tile_px, tile_px) of n bodies of one kind."""
        low, iou = self._low(embeddings, group, many=group[0].many)
        size = (self.tile_px, self.tile_px)
        return F.interpolate(best_of(low, iou), size, mode="bilinear", align_corners=False)[:, 0]

    def _low(self, embeddings: SamEmbeddings, group: Sequence[Body], many: bool = False) -> tuple[Tensor, Tensor]:
        """Logits float32 (n, M, 4g, 4g) and predicted IoUs (n, M) of n bodies of one kind."""
        tiles = [body.tile for body in group]
        # Outside autocast: in the 8 bits of bfloat16 a point of a 1024 px tile would move by about a pixel.
        sparse, dense = self.model.prompt_encoder(**self._prompt_tensors(group))
        with autocast(self.device, self.dtype):
            low, iou = self.model.mask_decoder(
                image_embeddings=embeddings.image[tiles],
                image_positional_embeddings=self._positions.expand(len(group), -1, -1, -1),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=many,
                **self._details(embeddings.fine, tiles),
            )[:2]
        return low[:, 0].float(), iou[:, 0].float()

    def _prompt_tensors(self, group: Sequence[Body]) -> dict[str, Tensor | None]:
        """The group's prompts as transformers' prompt encoders take them: (n, 1 prompt, ...)."""
        count, has_box, has_mask, _ = group[0].kind
        points = np.stack([to_sam_xy(body.points) for body in group])[:, None]
        labels = np.stack([body.labels for body in group])[:, None]
        if not count and not has_box and self.empty_point:
            points, labels = np.zeros((len(group), 1, 1, 2), np.float32), np.full((len(group), 1, 1), -1)
        boxes = np.stack([to_sam_xy(body.box) for body in group if body.box is not None])[:, None] if has_box else None
        asked = labels.shape[2] > 0
        return {
            "input_points": self._tensor(points) if asked else None,
            "input_labels": self._tensor(labels) if asked else None,
            "input_boxes": None if boxes is None else self._tensor(boxes),
            "input_masks": self._dense([body.mask for body in group if body.mask is not None]) if has_mask else None,
        }

    def _dense(self, masks: Sequence[NDArray[np.bool_]]) -> Tensor:
        """Coarse water as the mask input, float32 (n, 1, 4g, 4g): logits of each cell's share of water."""
        share = F.adaptive_avg_pool2d(self._tensor(np.stack(masks)).float().unsqueeze(1), self._mask_px)
        return MASK_LOGIT * (2 * share - 1)

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)

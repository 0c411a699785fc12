"""Adapter of :class:`~geosam.models.network.TinySam`: the bundled river-tiny, and MobileSAM."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timm.utils.model import reparameterize_model
from torch import Tensor

from geosam.errors import ModelError
from geosam.models.checkpoint import check_fit, read_metadata, read_tensors, sha256_of
from geosam.models.device import autocast
from geosam.models.image_encoder import Features
from geosam.models.network import TinySam, TinySamConfig
from geosam.models.protocol import DRY_LOGIT
from geosam.prompts import Prompts, joined

TOKEN_STEP = 8
"""Points are padded to a multiple of this, as in training, so that few groups are decoded and a
body's mask does not depend on what else is in the batch."""

CHUNK = 32
"""Bodies decoded at once; one of a 512 px tile needs about 20 MB."""


@dataclass(frozen=True)
class _Body:
    """One joint prompt as tokens: points, and the corners of a box with labels 2 and 3."""

    tile: int
    points: NDArray[np.float32]
    labels: NDArray[np.int64]
    mask: NDArray[np.bool_] | None


class TinyModel:
    """A :class:`~geosam.models.protocol.PromptableModel` on a :class:`TinySam`.

    Three ways of asking have three meanings, as in training. Nothing: all water. The coarse mask
    and its points: all water, the mask being a hint. Points or a box alone: the bodies they lie in.
    """

    def __init__(self, network: TinySam, *, name: str, sha256: str, device: torch.device, dtype: torch.dtype) -> None:
        config = network.config
        network.eval().requires_grad_(False)
        # Branches of RepViT's convolutions are summed into one; the outputs agree to rounding.
        network.image_encoder.backbone = reparameterize_model(network.image_encoder.backbone)
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.name, self.sha256, self.device, self.dtype = name, sha256, device, dtype
        self.tile_px, self.threshold = config.image_size, config.threshold
        extra = {"mask": config.dense_prompt, "none": config.no_prompt}
        self.understands = frozenset({"points", "boxes", *(kind for kind, known in extra.items() if known)})

    @property
    def module(self) -> torch.nn.Module:
        """The network itself, for those who train it."""
        return self.network

    @torch.inference_mode()
    def embed(self, images: Tensor) -> Features:
        """Encode tiles, uint8 (B, 3, tile_px, tile_px) as RGB."""
        return self.encode(images)

    def encode(self, images: Tensor) -> Features:
        """As :meth:`embed`, with gradients where the weights want them."""
        if images.dtype != torch.uint8 or images.shape[1:] != (3, self.tile_px, self.tile_px):
            raise ValueError(f"tiles must be uint8 (B, 3, {self.tile_px}, {self.tile_px}), got {tuple(images.shape)}")
        with autocast(self.device, self.dtype):
            features: Features = self.network.encode(images.to(self.device))
        return features

    @torch.inference_mode()
    def decode(self, embeddings: Features, prompts: Sequence[Prompts]) -> Tensor:
        """Logits of water, float32 (B, tile_px, tile_px); see the protocol."""
        if len(prompts) != len(embeddings.embedding):
            raise ValueError(f"one Prompts a tile is needed: got {len(prompts)} for {len(embeddings.embedding)} tiles")
        logits = torch.full((len(prompts), self.tile_px, self.tile_px), -torch.inf, device=self.device)
        for group in self._groups([body for tile, prompt in enumerate(prompts) for body in self._bodies(tile, prompt)]):
            for body, found in zip(group, self._decode_group(embeddings, group), strict=True):
                torch.maximum(logits[body.tile], found, out=logits[body.tile])
        dry = torch.tensor([len(prompt) == 0 for prompt in prompts], device=self.device)
        return logits.masked_fill_(dry.view(-1, 1, 1), DRY_LOGIT)

    def pack(self, embeddings: Features) -> dict[str, Tensor]:
        """Embeddings as named tensors, each (B, ...), to be kept."""
        return {name: part for name, part in vars(embeddings).items() if part is not None}

    def unpack(self, tensors: dict[str, Tensor]) -> Features:
        """Embeddings from what :meth:`pack` gave."""
        return Features(**{name: part.to(self.device).float() for name, part in tensors.items()})

    def ask(self, embeddings: Features, prompts: Sequence[Prompts], *, many: bool = False) -> tuple[Tensor, Tensor]:
        """One body a tile, with gradients where the weights want them.

        Args:
            embeddings: Of B tiles.
            prompts: B of one row each.
            many: The three masks of an ambiguous prompt instead of the single one.

        Returns:
            Logits float32 (B, M, tile_px/4, tile_px/4) and predicted IoUs float32 (B, M), M 1 or 3.
        """
        order, found = [], []
        for group in self._groups([body for tile, prompt in enumerate(prompts) for body in self._bodies(tile, prompt)]):
            order += [body.tile for body in group]
            found.append(self._low(embeddings, group, (1, 2, 3) if many else (0,)))
        back = torch.tensor(order, device=self.device).argsort()
        return tuple(torch.cat(parts)[back] for parts in zip(*found, strict=True))  # type: ignore[return-value]

    def _bodies(self, tile: int, prompts: Prompts) -> list[_Body]:
        """What to decode for one tile: with the dense mask its bodies are one question, else one each."""
        hinted = prompts.mask is not None and "mask" in self.understands
        prompts = joined(prompts) if hinted and len(prompts) else prompts
        return [self._body(tile, prompts, row, hinted) for row in range(len(prompts))]

    def _body(self, tile: int, prompts: Prompts, row: int, hinted: bool) -> _Body:
        keep = prompts.labels[row] >= 0
        points, labels = prompts.points[row][keep], prompts.labels[row][keep]
        if prompts.boxes is not None and not hinted:
            points = np.concatenate([points, prompts.boxes[row].reshape(2, 2)])
            labels = np.concatenate([labels, np.array([2, 3])])
        if len(labels) == 0 and not hinted and "none" not in self.understands:
            raise ModelError(
                f"{self.name} cannot find water without a prompt, and was given a body without one. "
                "Choose a --coarse method other than learned, or --model river-tiny."
            )
        return _Body(tile, points, labels, prompts.mask if hinted else None)

    def _room(self, body: _Body) -> int:
        """Tokens a body is padded to."""
        if "none" in self.understands:
            return max(-(-len(body.labels) // TOKEN_STEP) * TOKEN_STEP, TOKEN_STEP)
        return len(body.labels) + (2 not in body.labels)  # SAM adds one empty point where there is no box.

    def _groups(self, bodies: Sequence[_Body]) -> Iterator[list[_Body]]:
        """Bodies that can be decoded together, in a fixed order."""
        kinds = [(self._room(body), body.mask is not None) for body in bodies]
        for kind in sorted(set(kinds)):
            same = [body for body, its in zip(bodies, kinds, strict=True) if its == kind]
            for start in range(0, len(same), CHUNK):
                yield same[start : start + CHUNK]

    def _decode_group(self, features: Features, group: Sequence[_Body]) -> Tensor:
        """Logits float32 (n, tile_px, tile_px) of n bodies of one kind."""
        low, _ = self._low(features, group)
        size = (self.tile_px, self.tile_px)
        return F.interpolate(low, size, mode="bilinear", align_corners=False)[:, 0]

    def _low(self, features: Features, group: Sequence[_Body], masks: Sequence[int] = (0,)) -> tuple[Tensor, Tensor]:
        """Logits float32 (n, M, tile_px/4, tile_px/4) and predicted IoUs (n, M) of n bodies of one kind."""
        tiles = [body.tile for body in group]
        if tiles != list(range(len(features.embedding))):
            features = features.take(torch.tensor(tiles, device=self.device))
        points, labels = self._tokens(group)
        given = [body.mask for body in group if body.mask is not None]
        dense = self._dense(given) if given else None
        with autocast(self.device, self.dtype):
            logits, iou = self.network.decode(features, points, labels, mask=dense, masks=masks)
        return logits.float(), iou.float()

    def _tokens(self, group: Sequence[_Body]) -> tuple[Tensor, Tensor]:
        room = self._room(group[0])
        points = np.zeros((len(group), room, 2), np.float32)
        labels = np.full((len(group), room), -1, np.int64)
        for row, body in enumerate(group):
            points[row, : len(body.labels)], labels[row, : len(body.labels)] = body.points, body.labels
        return torch.from_numpy(points).to(self.device), torch.from_numpy(labels).to(self.device)

    def _dense(self, masks: Sequence[NDArray[np.bool_]]) -> Tensor:
        """Coarse water as the dense prompt, float32 (n, 1, tile_px/4, tile_px/4): share of water from -1 to 1."""
        water = torch.from_numpy(np.stack(masks)).to(self.device).float().unsqueeze(1)
        return F.avg_pool2d(water, 4) * 2 - 1


def load_tiny(file: Path, *, name: str, device: torch.device, dtype: torch.dtype) -> TinyModel:
    """A small SAM from a safetensors file whose header holds its configuration.

    Raises:
        ModelError: The file cannot be read, has no configuration, or its weights do not fit it.
    """
    config = _config(file)
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in read_tensors(file).items()}
    network = TinySam(config)
    check_fit(tensors, network.state_dict(), str(file))
    network.load_state_dict(tensors)
    return TinyModel(network, name=name, sha256=sha256_of([file]), device=device, dtype=dtype)


def _config(file: Path) -> TinySamConfig:
    try:
        values = json.loads(read_metadata(file).get("config", ""))
        known = {field.name for field in fields(TinySamConfig)}
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return TinySamConfig(**{key: value for key, value in values.items() if key in known})
    except (ValueError, TypeError, AttributeError):
        raise ModelError(
            f"{file} has no configuration in its header. Give a file that geosam finetune wrote."
        ) from None

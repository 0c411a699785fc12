"""Adapter of :class:`~geosam.models.network.TinySam`: the bundled river-tiny, and MobileSAM."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from geosam.errors import ModelError
from geosam.models.asked import bodies_asked
from geosam.models.attention import FirstThatWorks
from geosam.models.checkpoint import check_fit, read_metadata, read_tensors, sha256_of
from geosam.models.device import autocast, to_device
from geosam.models.efficientnet import EfficientNetLite
from geosam.models.folding import Folded
from geosam.models.image_encoder import Features
from geosam.models.network import TinySam, TinySamConfig
from geosam.models.protocol import DRY_LOGIT, best_of
from geosam.models.resnet import ResNet18
from geosam.prompts import Prompts, joined

TOKEN_STEP = 8
"""Points are padded to a multiple of this, as in training, so that few groups are decoded and a
body's mask does not depend on what else is in the batch."""

STRIDE_PX = 32
"""The encoder's coarsest stride; sides of what the network sees are multiples of it."""

CHUNK = 32
"""Bodies decoded at once; one of a 512 px tile needs about 20 MB."""


@dataclass(frozen=True)
class _Body:
    """One joint prompt as tokens: points, and the corners of a box with labels 2 and 3."""

    tile: int
    points: NDArray[np.float32]
    labels: NDArray[np.int64]
    mask: NDArray[np.bool_] | None
    many: bool

    @property
    def is_nothing(self) -> bool:
        """Whether it asks for all water, without any prompt."""
        return len(self.labels) == 0 and self.mask is None


def _through(encoder: Any, pixels: Tensor) -> Features:
    features: Features = encoder(pixels)
    return features


class TinyModel:
    """A :class:`~geosam.models.protocol.PromptableModel` on a :class:`TinySam`.

    Three ways of asking have three meanings, as in training. Nothing: all water. The coarse mask
    and its points: all water, the mask being a hint. Points or a box alone: the bodies they lie in.
    """

    def __init__(self, network: TinySam, *, name: str, sha256: str, device: torch.device, dtype: torch.dtype) -> None:
        config = network.config
        network.eval().requires_grad_(False)
        if not isinstance(network.image_encoder.backbone, (ResNet18, EfficientNetLite)):
            from timm.utils.model import reparameterize_model

            # Branches of RepViT's convolutions are summed into one; the outputs agree to rounding.
            network.image_encoder.backbone = reparameterize_model(network.image_encoder.backbone)
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self._folded = Folded(self.network.image_encoder)
        self._run: Callable[[Any, Tensor], Features] = _through
        self.name, self.sha256, self.device, self.dtype = name, sha256, device, dtype
        self.threshold = config.threshold
        self.magnify = config.magnify
        self.plain = config.skips
        """Nothing asked is answered by the encoder's way down alone; a tuned decoder answers by itself."""
        self.chooses = config.skips
        """Points and boxes choose among that water; a tuned decoder is asked instead."""
        # Those that know what no prompt means were trained by the recipe here, which shows them one mask a body.
        self.multimask = not config.no_prompt
        extra = {"mask": config.dense_prompt, "none": config.no_prompt}
        self.understands = frozenset({"points", "boxes", *(kind for kind, known in extra.items() if known)})

    @property
    def magnify(self) -> int:
        """How many times tiles are enlarged for the network: 1, 2 or 4. Setting it changes the tiles' side."""
        return self._magnify

    @magnify.setter
    def magnify(self, times: int) -> None:
        config = self.network.config
        self._magnify, self.tile_px, self.input_px = times, config.image_size // times, config.image_size
        self.step_px = STRIDE_PX // times if config.skips else None

    @property
    def module(self) -> torch.nn.Module:
        """The network itself, for those who train it."""
        return self.network

    def compile(self) -> None:
        """Have the encoder compiled at its first batch; where the compiler fails, it runs as it is, with a warning."""
        self._run = FirstThatWorks([torch.compile(_through), _through])

    @torch.inference_mode()
    def embed(self, images: Tensor) -> Features:
        """Encode tiles, uint8 (B, 3, tile_px, tile_px) as RGB; smaller ones by multiples of :attr:`step_px`."""
        return self._encode(images, partial(self._run, self._folded()))

    def _takes(self, side: int) -> bool:
        smaller = self.step_px is not None and 0 < side < self.tile_px and side % self.step_px == 0
        return side == self.tile_px or smaller

    def encode(self, images: Tensor) -> Features:
        """As :meth:`embed`, with gradients where the weights want them."""
        return self._encode(images, None)

    def _encode(self, images: Tensor, encoder: Callable[[Tensor], Features] | None) -> Features:
        if images.dtype != torch.uint8 or images.shape[1:2] != (3,) or not all(map(self._takes, images.shape[2:])):
            raise ValueError(f"tiles must be uint8 (B, 3, {self.tile_px}, {self.tile_px}), got {tuple(images.shape)}")
        with autocast(self.device, self.dtype):
            features: Features = self.network.encode(to_device(images, self.device), encoder, self.magnify)
        return features

    @torch.inference_mode()
    def decode(self, embeddings: Features, prompts: Sequence[Prompts]) -> Tensor:
        """Logits of water, float32 (B, tile_px, tile_px), or of the smaller tiles' shape; see the protocol."""
        if len(prompts) != len(embeddings.embedding):
            raise ValueError(f"one Prompts a tile is needed: got {len(prompts)} for {len(embeddings.embedding)} tiles")
        logits = torch.full((len(prompts), *self._shape_of(embeddings)), -torch.inf, device=self.device)
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
            Logits float32 (B, M, input_px/4, input_px/4) and predicted IoUs float32 (B, M), M 1 or 3.
        """
        order, found = [], []
        for group in self._groups([body for tile, prompt in enumerate(prompts) for body in self._bodies(tile, prompt)]):
            order += [body.tile for body in group]
            found.append(self._low(embeddings, group, (1, 2, 3) if many else (0,)))
        back = torch.tensor(order, device=self.device).argsort()
        return tuple(torch.cat(parts)[back] for parts in zip(*found, strict=True))  # type: ignore[return-value]

    def _bodies(self, tile: int, prompts: Prompts) -> list[_Body]:
        """What to decode for one tile: bodies with the dense mask are one question, the others one each."""
        if prompts.multimask and not self.multimask:
            raise ModelError(f"{self.name} was trained to give one mask a body, not three. Leave out --multimask.")
        hinted = prompts.with_mask() & ("mask" in self.understands)
        bodies = [self._body(tile, prompts, row, False) for row in np.flatnonzero(~hinted).tolist()]
        return [self._body(tile, joined(prompts.rows(hinted)), 0, True), *bodies] if hinted.any() else bodies

    def _body(self, tile: int, prompts: Prompts, row: int, hinted: bool) -> _Body:
        keep = prompts.labels[row] >= 0
        points, labels = prompts.points[row][keep], prompts.labels[row][keep]
        box = prompts.box(row)
        if box is not None and not hinted:
            points = np.concatenate([points, box.reshape(2, 2)])
            labels = np.concatenate([labels, np.array([2, 3])])
        if len(labels) == 0 and not hinted and "none" not in self.understands:
            raise ModelError(
                f"{self.name} cannot find water without a prompt, and was given a body without one. "
                "Choose a --coarse method other than learned, or --model river-tiny."
            )
        return _Body(tile, points, labels, prompts.mask if hinted else None, prompts.multimask)

    def _room(self, body: _Body) -> int:
        """Tokens a body is padded to."""
        if "none" in self.understands:
            return max(-(-len(body.labels) // TOKEN_STEP) * TOKEN_STEP, TOKEN_STEP)
        return len(body.labels) + (2 not in body.labels)  # SAM adds one empty point where there is no box.

    def _groups(self, bodies: Sequence[_Body]) -> Iterator[list[_Body]]:
        """Bodies that can be decoded together, in a fixed order."""
        kinds = [(self._room(body), body.mask is not None, body.is_nothing, body.many) for body in bodies]
        for kind in sorted(set(kinds)):
            same = [body for body, its in zip(bodies, kinds, strict=True) if its == kind]
            for start in range(0, len(same), CHUNK):
                yield same[start : start + CHUNK]

    def _decode_group(self, features: Features, group: Sequence[_Body]) -> Tensor:
        """Logits float32 (n, tile_px, tile_px) of n bodies of one kind."""
        nothing, hinted = group[0].is_nothing, group[0].mask is not None
        if features.water is not None and ((self.plain and nothing) or (self.chooses and not nothing and not hinted)):
            low = features.water[[body.tile for body in group]].float()
            low = low if nothing else self._asked(low, group)
        else:
            low = best_of(*self._low(features, group, (1, 2, 3) if group[0].many else (0,)))
        return F.interpolate(low, self._shape_of(features), mode="bilinear", align_corners=False)[:, 0]

    def _asked(self, water: Tensor, group: Sequence[_Body]) -> Tensor:
        """Of the logits of all water, float32 (n, 1, h, w), the bodies that points and boxes ask for."""
        level = math.log(self.threshold / (1 - self.threshold))  # Bodies are told apart where the masks will be cut.
        planes, found = water[:, 0].cpu().numpy() - np.float32(level), []
        for plane, body in zip(planes, group, strict=True):
            corners = body.points[body.labels >= 2]
            box = corners.reshape(4) if len(corners) else None
            found.append(bodies_asked(plane, body.points, body.labels, 4 / self.magnify, box))
        return torch.from_numpy(np.stack(found) + np.float32(level))[:, None].to(water.device)

    def _low(self, features: Features, group: Sequence[_Body], masks: Sequence[int] = (0,)) -> tuple[Tensor, Tensor]:
        """Logits float32 (n, M, input_px/4, input_px/4) and predicted IoUs (n, M) of n bodies of one kind."""
        tiles = [body.tile for body in group]
        if tiles != list(range(len(features.embedding))):
            features = features.take(torch.tensor(tiles, device=self.device))
        points, labels = self._tokens(group)
        given = [body.mask for body in group if body.mask is not None]
        dense = self._dense(given, *self._shape_of(features)) if given else None
        with autocast(self.device, self.dtype):
            logits, iou = self.network.decode(features, points, labels, mask=dense, masks=masks)
        return logits.float(), iou.float()

    def _tokens(self, group: Sequence[_Body]) -> tuple[Tensor, Tensor]:
        room = self._room(group[0])
        points = np.zeros((len(group), room, 2), np.float32)
        labels = np.full((len(group), room), -1, np.int64)
        for row, body in enumerate(group):
            points[row, : len(body.labels)] = body.points * self.magnify
            labels[row, : len(body.labels)] = body.labels
        return torch.from_numpy(points).to(self.device), torch.from_numpy(labels).to(self.device)

    def _dense(self, masks: Sequence[NDArray[np.bool_]], height: int, width: int) -> Tensor:
        """Coarse water as the dense prompt at the network's stride 4, float32: share of water from -1 to 1."""
        water = torch.from_numpy(np.stack(masks)[:, None, :height, :width]).to(self.device).float()
        return F.avg_pool2d(water, 4 // self.magnify) * 2 - 1

    def _shape_of(self, features: Features) -> tuple[int, int]:
        """Height and width of the tiles in their own pixels."""
        rows, cols = features.embedding.shape[2:]
        return rows * 16 // self.magnify, cols * 16 // self.magnify


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

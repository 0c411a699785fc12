"""Adapter of Segment Anything (Kirillov et al. 2023) as transformers has it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import SamConfig, SamModel
from transformers.utils import logging as _hf_logging

from geosam.errors import ModelError
from geosam.models.attention import compiled_encode, plain_encode
from geosam.models.checkpoint import misfit, read_json, read_tensors, sha256_of, weight_files
from geosam.models.device import autocast, to_device
from geosam.models.protocol import DRY_LOGIT, best_of
from geosam.prompts import Prompts

hf_logging: Any = _hf_logging

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
    """SAM's image embeddings of B tiles.

    Attributes:
        image: float (B, 256, tile_px / 16, tile_px / 16), on the model's device.
    """

    image: Tensor

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class _Body:
    """One joint prompt: what one water body of one tile is known by."""

    tile: int
    points: NDArray[np.float32]
    labels: NDArray[np.int64]
    box: NDArray[np.float32] | None
    mask: NDArray[np.bool_] | None
    many: bool

    @property
    def kind(self) -> tuple[int, bool, bool, bool]:
        return len(self.labels), self.box is not None, self.mask is not None, self.many


def to_sam_xy(xy: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pixel coordinates as SAM wants them: pixel indices, to which it adds 0.5 itself.

    Args:
        xy: float (..., 2k), x and y in turn, pixels; (0, 0) is the outer corner of the first pixel.

    Returns:
        The same, where (0, 0) is the centre of the first pixel.
    """
    return np.asarray(xy, np.float32) - np.float32(0.5)


class SamAdapter:
    """A :class:`~geosam.models.protocol.PromptableModel` on a transformers ``SamModel``."""

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
    ) -> None:
        self.model = model.float().to(device).eval().requires_grad_(False)
        self.name, self.sha256, self.threshold, self.understands = name, sha256, threshold, understands
        self.device, self.dtype = device, dtype
        self.tile_px = int(model.config.vision_config.image_size)
        self.multimask = True
        self.step_px: int | None = None  # The encoder's positions are of the full tile.
        self._encode = plain_encode(device)
        self._mean = torch.tensor(MEAN, device=device).view(3, 1, 1)
        self._std = torch.tensor(STD, device=device).view(3, 1, 1)
        with torch.no_grad():
            self._positions = self.model.get_image_wide_positional_embeddings()

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
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            return SamEmbeddings(self._encode(self.model.vision_encoder, pixels))

    def compile(self) -> None:
        """Have the encoder compiled at its first batch; see :func:`~geosam.models.attention.compiled_encode`."""
        self._encode = compiled_encode(self.device)

    @torch.inference_mode()
    def decode(self, embeddings: SamEmbeddings, prompts: Sequence[Prompts]) -> Tensor:
        """Logits of water, float32 (B, tile_px, tile_px); see the protocol.

        Every body is one joint prompt. Bodies of unequal point counts are decoded in groups of one
        count, without padding: SAM's transformer attends to padding as well, so that a body's mask
        would depend on how many points its neighbours have.
        """
        if len(prompts) != len(embeddings):
            raise ValueError(f"one Prompts a tile is needed: got {len(prompts)} for {len(embeddings)} tiles")
        size = (len(prompts), self.tile_px, self.tile_px)
        logits = torch.full(size, -torch.inf, device=self.device)
        for group in _groups(self._bodies(prompts), CHUNK.get(self.device.type, ELSEWHERE)):
            for body, found in zip(group, self._decode_group(embeddings.image, group), strict=True):
                torch.maximum(logits[body.tile], found, out=logits[body.tile])
        dry = torch.tensor([len(prompt) == 0 for prompt in prompts], device=self.device)
        return logits.masked_fill_(dry.view(-1, 1, 1), DRY_LOGIT)

    def pack(self, embeddings: SamEmbeddings) -> dict[str, Tensor]:
        """Embeddings as named tensors, each (B, ...), to be kept."""
        return {"image": embeddings.image}

    def unpack(self, tensors: dict[str, Tensor]) -> SamEmbeddings:
        """Embeddings from what :meth:`pack` gave."""
        return SamEmbeddings(tensors["image"].to(self.device).float())

    def ask(
        self, embeddings: SamEmbeddings, prompts: Sequence[Prompts], *, many: bool = False
    ) -> tuple[Tensor, Tensor]:
        """One body a tile, with gradients where the weights want them.

        Args:
            embeddings: Of B tiles.
            prompts: B of one row each.
            many: SAM's three masks of an ambiguous prompt instead of the single one.

        Returns:
            Logits float32 (B, M, tile_px/4, tile_px/4) and predicted IoUs float32 (B, M), M 1 or 3.
        """
        order, found = [], []
        for group in _groups(self._bodies(prompts), len(prompts)):
            order += [body.tile for body in group]
            found.append(self._low(embeddings.image, group, many))
        back = torch.tensor(order, device=self.device).argsort()
        return tuple(torch.cat(parts)[back] for parts in zip(*found, strict=True))  # type: ignore[return-value]

    def _bodies(self, prompts: Sequence[Prompts]) -> list[_Body]:
        return [self._body(tile, prompt, row) for tile, prompt in enumerate(prompts) for row in range(len(prompt))]

    def _body(self, tile: int, prompt: Prompts, row: int) -> _Body:
        """Take from one row of a tile's prompts what this model understands."""
        known = self.understands
        keep = (prompt.labels[row] >= 0) & ("points" in known)
        box = prompt.box(row) if "boxes" in known else None
        mask = prompt.mask if "mask" in known and prompt.with_mask()[row] else None
        if not keep.any() and box is None and mask is None and "none" not in known:
            raise ModelError(
                f"{self.name} cannot find water without a prompt, and was given a body without one; it understands "
                f"{', '.join(sorted(known))}. Choose a --coarse method other than learned, or --model river-tiny."
            )
        return _Body(tile, prompt.points[row][keep], prompt.labels[row][keep], box, mask, prompt.multimask)

    def _decode_group(self, image: Tensor, group: Sequence[_Body]) -> Tensor:
        """Logits float32 (n, tile_px, tile_px) of n bodies of one kind."""
        low, iou = self._low(image, group, many=group[0].many)
        size = (self.tile_px, self.tile_px)
        return F.interpolate(best_of(low, iou), size, mode="bilinear", align_corners=False)[:, 0]

    def _low(self, image: Tensor, group: Sequence[_Body], many: bool = False) -> tuple[Tensor, Tensor]:
        """Logits float32 (n, M, tile_px/4, tile_px/4) and predicted IoUs (n, M) of n bodies of one kind."""
        tiles = torch.tensor([body.tile for body in group], device=self.device)
        # Outside autocast: in the 8 bits of bfloat16 a point of a 1024 px tile would move by about a pixel.
        sparse, dense = self.model.prompt_encoder(**self._prompt_tensors(group))
        with autocast(self.device, self.dtype):
            low, iou = self.model.mask_decoder(
                image_embeddings=image[tiles],
                image_positional_embeddings=self._positions.expand(len(group), -1, -1, -1),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=many,
            )
        return low[:, 0].float(), iou[:, 0].float()

    def _prompt_tensors(self, group: Sequence[_Body]) -> dict[str, Tensor | None]:
        """The group's prompts as transformers' prompt encoder takes them: (n, 1 prompt, ...)."""
        count, has_box, has_mask, _ = group[0].kind
        points = np.stack([to_sam_xy(body.points) for body in group])[:, None]
        labels = np.stack([body.labels for body in group])[:, None]
        boxes = np.stack([to_sam_xy(body.box) for body in group if body.box is not None])[:, None] if has_box else None
        return {
            "input_points": self._tensor(points) if count else None,
            "input_labels": self._tensor(labels) if count else None,
            "input_boxes": None if boxes is None else self._tensor(boxes),
            "input_masks": self._dense([body.mask for body in group if body.mask is not None]) if has_mask else None,
        }

    def _dense(self, masks: Sequence[NDArray[np.bool_]]) -> Tensor:
        """Coarse water as SAM's mask input: logits float32 (n, 1, tile_px / 4, tile_px / 4)."""
        share = F.avg_pool2d(self._tensor(np.stack(masks)).float().unsqueeze(1), 4)
        return MASK_LOGIT * (2 * share - 1)

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)


def _groups(bodies: Sequence[_Body], most: int) -> Iterator[list[_Body]]:
    """Cut bodies into groups of one kind and at most ``most``, in a fixed order."""
    for kind in sorted({body.kind for body in bodies}):
        same = [body for body in bodies if body.kind == kind]
        for start in range(0, len(same), most):
            yield same[start : start + most]


def load_sam(folder: Path, *, name: str, device: torch.device, dtype: torch.dtype) -> SamAdapter:
    """A SAM, stock or fine-tuned, from a folder as ``save_pretrained`` writes it.

    A file ``geosam.json`` beside it may say ``{"threshold": 0.45, "understands": ["points", "mask"]}``.

    Args:
        folder: Holds ``config.json`` (model_type sam) and ``model.safetensors``, its shards, or
            ``pytorch_model.bin``.
        name: As the user named it.
        device: Where to run.
        dtype: Precision of its arithmetic.

    Raises:
        ModelError: A file is missing or unreadable, holds pickled code, or does not fit its config.
    """
    files = weight_files(folder)
    config = _config(folder / "config.json")
    tensors = {key: value for file in files for key, value in read_tensors(file).items()}
    family: Any = SamModel
    with _quiet_transformers():
        # from_pretrained rather than load_state_dict: it knows the names of older checkpoints and tied weights.
        model, report = family.from_pretrained(
            None, config=config, state_dict=tensors, output_loading_info=True, ignore_mismatched_sizes=True
        )
    misshapen = [f"{key} {tuple(got)} instead of {tuple(want)}" for key, got, want in report["mismatched_keys"]]
    misfit(str(folder), report["missing_keys"], report["unexpected_keys"], misshapen)
    extra = _extra(folder / "geosam.json")
    return SamAdapter(model, name=name, sha256=sha256_of(files), device=device, dtype=dtype, **extra)


def _config(file: Path) -> Any:
    values = read_json(file)
    try:
        config: Any = SamConfig.from_dict(values)
        square = isinstance(config.vision_config.image_size, int)
    except Exception as error:  # The config's own checks raise what they like.
        raise ModelError(f"{file} does not describe a SAM ({' '.join(str(error).split())[:160]}).") from None
    if not square:
        raise ModelError(f"{file} wants tiles of {config.vision_config.image_size}; only square tiles are run.")
    return config


def _extra(file: Path) -> dict[str, Any]:
    """What geosam's own file beside the weights says of threshold and prompts."""
    values = read_json(file) if file.is_file() else {}
    threshold, understands = values.get("threshold", 0.5), values.get("understands", ["points", "boxes"])
    kinds = {"points", "boxes", "mask", "none"}
    if not isinstance(threshold, float) or not 0 < threshold < 1:
        raise ModelError(f"{file}: threshold must be between 0 and 1, got {threshold!r}.")
    if not isinstance(understands, list) or not kinds.issuperset(map(str, understands)):
        raise ModelError(f"{file}: understands must be a list of {', '.join(sorted(kinds))}, got {understands!r}.")
    return {"threshold": threshold, "understands": frozenset(map(str, understands))}


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep progress bars and load reports off stderr: what is wrong is said in one line of ours."""
    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.CRITICAL)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()

"""SAM 3 (Carion et al. 2025) asked by words: its detector finds every instance of a concept in a tile at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from geosam.errors import ModelError, OptionsError
from geosam.models.device import autocast, to_device
from geosam.models.hub import has_tokenizer
from geosam.models.protocol import DRY_LOGIT
from geosam.models.sam3 import Sam3Adapter
from geosam.prompts import Prompts


@dataclass(frozen=True)
class Seen:
    """What the encoder says of B tiles, on the model's device; each float (B, C, h, w), from fine to coarse."""

    maps: tuple[Tensor, ...]
    positions: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.maps[0])


class ConceptModel:
    """A :class:`~geosam.models.protocol.PromptableModel` that needs no prompt, since it was told what to find.

    On transformers' ``Sam3Model``. A tile's logits are the greatest of the instances that the detector is sure of.
    """

    def __init__(
        self,
        model: Any,
        words: tuple[Tensor, Tensor],
        *,
        name: str,
        sha256: str,
        device: torch.device,
        dtype: torch.dtype,
        least: float,
        mean: Sequence[float] = Sam3Adapter.mean,
        std: Sequence[float] = Sam3Adapter.std,
    ) -> None:
        """Take the network and the words.

        Args:
            model: The network; its text encoder is let go of once the words are encoded.
            words: Tokens and which of them count, int64 (1, n) each, from :func:`tokens_of`.
            name: As the user named it.
            sha256: Of its weights, in hex.
            device: Where to run.
            dtype: Precision of its arithmetic.
            least: Instances of a lower score, 0 to 1, are passed over.
            mean: Of 8-bit RGB.
            std: Likewise.
        """
        self.model = model.float().to(device).eval().requires_grad_(False)
        self.name, self.sha256, self.device, self.dtype = name, sha256, device, dtype
        self.threshold, self.understands, self.multimask = 0.5, frozenset({"none"}), False
        self.tile_px = int(model.config.image_size)
        self.step_px: int | None = None  # The encoder's positions are of the full tile.
        self.least = least
        self._mean, self._std = (torch.tensor(tuple(values), device=device).view(3, 1, 1) for values in (mean, std))
        tokens, counts = (part.to(device) for part in words)
        with torch.inference_mode():
            self._words: Tensor = model.get_text_features(input_ids=tokens, attention_mask=counts).pooler_output
        self._counts = counts
        del model.text_encoder  # 1.4 GB of the published one.

    @torch.inference_mode()
    def embed(self, images: Tensor) -> Seen:
        """Encode tiles, uint8 (B, 3, tile_px, tile_px) as RGB."""
        if images.dtype != torch.uint8 or images.shape[1:] != (3, self.tile_px, self.tile_px):
            raise ValueError(f"tiles must be uint8 (B, 3, {self.tile_px}, {self.tile_px}), got {tuple(images.shape)}")
        pixels = (to_device(images, self.device).float() - self._mean) / self._std
        with autocast(self.device, self.dtype):
            found = self.model.get_vision_features(pixel_values=pixels)
        return Seen(tuple(found.fpn_hidden_states), tuple(found.fpn_position_encoding))

    @torch.inference_mode()
    def decode(self, embeddings: Seen, prompts: Sequence[Prompts]) -> Tensor:
        """Logits, float32 (B, tile_px, tile_px), of what the words mean; see the protocol."""
        if len(prompts) != len(embeddings):
            raise ValueError(f"one Prompts a tile is needed: got {len(prompts)} for {len(embeddings)} tiles")
        masks, scores = self.instances(embeddings)
        sure = (scores > self.least)[..., None, None]
        best = torch.where(sure, masks, torch.full_like(masks, DRY_LOGIT)).amax(dim=1)
        size = (self.tile_px, self.tile_px)
        logits = F.interpolate(best[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        dry = torch.tensor([len(prompt) == 0 for prompt in prompts], device=self.device)
        return logits.masked_fill_(dry.view(-1, 1, 1), DRY_LOGIT)

    @torch.inference_mode()
    def instances(self, embeddings: Seen) -> tuple[Tensor, Tensor]:
        """What may be an instance of the concept.

        Args:
            embeddings: Of B tiles.

        Returns:
            Logits float32 (B, n, h, w) at the network's low resolution, and scores float32 (B, n) from 0 to 1: how
            sure the detector is of each, times how sure that the concept is in the tile at all.
        """
        count = len(embeddings)
        with autocast(self.device, self.dtype):
            found = self.model(
                vision_embeds=SimpleNamespace(
                    fpn_hidden_states=embeddings.maps,
                    fpn_position_encoding=embeddings.positions,
                    hidden_states=None,
                    attentions=None,
                ),
                text_embeds=SimpleNamespace(pooler_output=self._words.expand(count, -1, -1)),
                attention_mask=self._counts.expand(count, -1),
            )
        scores = found.pred_logits.float().sigmoid() * found.presence_logits.float().sigmoid()
        return found.pred_masks.float(), scores


def tokens_of(folder: Path, text: str, longest: int) -> tuple[Tensor, Tensor]:
    """Words as the text encoder reads them: tokens and which of them count, int64 (1, longest) each.

    Args:
        folder: Holds the tokenizer beside the weights.
        text: What is wanted.
        longest: Tokens that the encoder reads.

    Raises:
        ModelError: There is no tokenizer that can be read.
        OptionsError: There are no words, or more than are read.
    """
    from transformers import AutoTokenizer

    if not text.strip():
        raise OptionsError("--text is empty. Give words for what is wanted, such as river.")
    if not has_tokenizer(folder):  # Of nothing transformers makes one without a vocabulary.
        raise ModelError(
            f"{folder} has no tokenizer, and words need one. Give a folder with tokenizer.json and "
            "tokenizer_config.json too."
        )
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        read = tokenizer(text, padding="max_length", max_length=longest, return_tensors="pt")
    except Exception as error:  # transformers raises what it likes
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ModelError(f"the tokenizer in {folder} cannot be read ({reason}). Fetch or copy it again.") from None
    tokens, counts = read["input_ids"], read["attention_mask"]
    if tokens.shape[1] > longest:
        raise OptionsError(f"--text has {tokens.shape[1]} tokens, and SAM 3 reads {longest}. Use fewer words.")
    return tokens, counts

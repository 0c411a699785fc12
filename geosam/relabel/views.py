"""A model that looks at every tile turned or mirrored, and says how good it thinks its masks are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from geosam.predict.views import turned_back, turned_prompts, turned_tensor
from geosam.prompts import Prompts, joined

ORDER = (0, 4, 2, 6, 1, 5, 3, 7)
"""Of the eight views, as :func:`geosam.predict.views.mean_logits` takes them: the mirror image first, then turns."""


class Turned:
    """A model's answers to one view of every tile, turned back; in all else the model itself.

    A whole run with it gives the mosaic of that view, so that views are compared on the scene and not tile by tile.
    """

    def __init__(self, model: Any, view: int) -> None:
        self._model, self._view = model, view
        self.expected: list[tuple[float, float]] = []
        """Predicted IoU of each tile that was asked about, and its weight: the pixels of water in it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def embed(self, images: Any) -> tuple[tuple[int, int], Any]:
        """Encode the view of tiles, uint8 (B, 3, h, w)."""
        shape = (int(images.shape[2]), int(images.shape[3]))
        return shape, self._model.embed(turned_tensor(images, self._view).contiguous())

    def decode(self, embeddings: tuple[tuple[int, int], Any], prompts: Sequence[Prompts]) -> Any:
        """Logits of the tiles as they were, float32 (B, h, w)."""
        shape, embedded = embeddings
        asked = [turned_prompts(one, self._view, shape) for one in prompts]
        logits = turned_back(self._model.decode(embedded, asked), self._view)
        if self._view == 0 and hasattr(self._model, "ask"):
            self._expect(embedded, asked, (logits > 0).sum(dim=(1, 2)).tolist())
        return logits

    def _expect(self, embedded: Any, asked: Sequence[Prompts], water: list[int]) -> None:
        """Have the predicted IoU of all water of each tile; tiles without water have none."""
        one_body = [joined(one) if len(one) else _ANYTHING for one in asked]
        found = self._model.ask(embedded, one_body)[1][:, 0].tolist()
        self.expected += [
            (float(iou), float(pixels))
            for iou, pixels, one in zip(found, water, asked, strict=True)
            if len(one) and pixels and math.isfinite(iou)
        ]


_ANYTHING = Prompts(np.zeros((1, 1, 2), np.float32), np.ones((1, 1), np.int64))
"""Stands in for the prompts of a tile that has none: every tile of a batch is asked about."""

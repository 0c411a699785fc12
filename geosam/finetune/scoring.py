"""What a model scores on kept chips, asked as a run asks it: from the truth, from its first guess, and not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geosam.finetune.kept import embeddings_of
from geosam.finetune.memory import in_parts
from geosam.finetune.ranks import Ranks
from geosam.finetune.store import Store
from geosam.options import PromptOptions
from geosam.prompts import Prompts, no_prompts, sample_prompts

Bool = NDArray[np.bool_]
Progress = Callable[[int, int], None]
ROWS = ("coarse", "auto", "oracle", "none")


def score(
    model: Any, store: Store, numbers: Sequence[int], ranks: Ranks, *, batch: int = 8, progress: Progress | None = None
) -> dict[str, float]:
    """Mean IoU of each row over some chips; chips of which nothing is known are left out.

    ``oracle`` is asked by points from the truth, ``auto`` by the coarse mask and its points as in
    ``geosam segment``, ``none`` by nothing. The coarse mask is the colour rules', as ``--coarse auto`` has it of
    red, green and blue.

    Returns:
        By row; ``none`` only for a model that understands it.
    """
    mine = list(numbers[ranks.rank :: ranks.world])
    sums = torch.zeros(len(ROWS), 2, dtype=torch.float64, device=ranks.device)

    def look(some: Sequence[int]) -> None:
        found = masks(model, store, some)
        for place, row in enumerate(ROWS):
            for number, water in zip(some, found.get(row, []), strict=False):
                value = iou(water, store.labels[number])
                if value is not None:
                    sums[place] += torch.tensor([value, 1.0], dtype=torch.float64, device=sums.device)
        if progress is not None:
            progress(mine.index(some[-1]) + 1, len(mine))

    in_parts(mine, batch, look)
    sums = ranks.sum(sums)
    return {row: float(total / count) for row, (total, count) in zip(ROWS, sums.tolist(), strict=True) if count}


def masks(model: Any, store: Store, numbers: Sequence[int]) -> dict[str, list[Bool]]:
    """The water of each row in some chips, bool (S, S) each."""
    with torch.inference_mode():
        embeddings = embeddings_of(model, store.tensors(numbers, [0] * len(numbers)))
        found: dict[str, list[Bool]] = {}
        found["coarse"] = [store.guess(n) for n in numbers]
        if "none" in model.understands:
            found["none"] = _water(model, embeddings, [no_prompts()] * len(numbers))
        found["auto"] = _water(model, embeddings, [_as_in_a_run(model, store, n) for n in numbers])
        asked = [store.once(f"oracle {n}", partial(_from_truth, store, n)) for n in numbers]
        found["oracle"] = _water(model, embeddings, asked)
        return found


def _as_in_a_run(model: Any, store: Store, number: int) -> Prompts:
    """As the reader of :mod:`geosam.predict` asks: where a guess gives no prompt, nothing, if the model knows that."""
    prompts = store.once(f"auto {number}", lambda: _prompts(store.guess(number), number, dense=True))
    unasked = len(prompts) == 0 and "none" in model.understands and store.guess(number).any()
    return no_prompts() if unasked else prompts


def _from_truth(store: Store, number: int) -> Prompts:
    return _prompts(np.asarray(store.labels[number] == 255), number, dense=False)


def _prompts(water: Bool, number: int, dense: bool) -> Prompts:
    options = PromptOptions(dense=dense)
    return sample_prompts(water, np.ones_like(water), options, np.random.default_rng([7, number]))


def _water(model: Any, embeddings: Any, prompts: list[Prompts]) -> list[Bool]:
    cut = float(np.log(model.threshold / (1 - model.threshold)))
    logits: Tensor = model.decode(embeddings, prompts)
    return list((logits > cut).cpu().numpy())


def iou(water: Bool, label: NDArray[np.uint8]) -> float | None:
    """IoU over the known pixels; 1 where both are empty, None where nothing is known."""
    known, true = label != 128, label == 255
    if not known.any():
        return None
    union = int(((water | true) & known).sum())
    return int((water & true).sum()) / union if union else 1.0

"""How good predictions are: a seeded sample is corrected by a person and held against what was predicted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geosam.errors import OptionsError
from geosam.relabel.grids import open_scene, water_of
from geosam.relabel.queue import Queue, read_queue, update_scenes
from geosam.relabel.styles import ACCEPTED, CORRECTED, REJECTED, TO_CHECK

GOOD, FAIR = 0.9, 0.75
"""IoUs that shares are told of, as of SA-1B's masks (Kirillov et al. 2023, section 5)."""


@dataclass(frozen=True)
class Audit:
    """What is known of the sample."""

    sample: tuple[str, ...]
    """Scenes drawn, in the order of drawing."""
    ious: dict[str, float]
    """IoU of prediction and correction by scene, of those that are corrected."""
    rejected: int
    """Scenes of the sample that a person could not use."""

    @property
    def waiting(self) -> int:
        """Scenes of the sample that are to be corrected yet."""
        return len(self.sample) - len(self.ious) - self.rejected

    @property
    def good(self) -> float:
        """Share of the corrected with an IoU over 0.9; NaN where none is."""
        return self._over(GOOD)

    @property
    def fair(self) -> float:
        """Share with an IoU over 0.75."""
        return self._over(FAIR)

    def _over(self, least: float) -> float:
        return sum(iou > least for iou in self.ious.values()) / len(self.ious) if self.ious else math.nan


def audit(queue: str | Path, number: int | None = None, *, seed: int = 0) -> Audit:
    """Draw a sample of scenes for a person to correct, or report on one that was drawn.

    The sample is drawn from all scenes, accepted or not, and marked in the column ``audit``. What was accepted unseen
    is set to ``to_check``; a scene counts once it is set to ``corrected``, whether its polygons were moved or not.
    A larger number draws more to what was drawn before; the same seed draws the same.

    Args:
        queue: As :func:`~geosam.relabel.predict` wrote it.
        number: Scenes to draw; None: report only.
        seed: Of the drawing.

    Raises:
        DatasetError: The queue cannot be used.
        OptionsError: The number is not above 0, or nothing was drawn yet and none is given.
        OutputError: The queue cannot be written.
    """
    if number is not None and number < 1:
        raise OptionsError(f"--audit is a number of scenes above 0, got {number}.")
    read = read_queue(queue)
    drawn = read.scenes[read.scenes["audit"] == 1]
    if number is None and len(drawn) == 0:
        raise OptionsError(f"no sample of {queue} was drawn yet. Say how many scenes, for example --audit 50.")
    if number is not None and number > len(drawn):
        _draw(read, number - len(drawn), seed)
        read = read_queue(queue)
        drawn = read.scenes[read.scenes["audit"] == 1]
    ious = {row.scene: _iou(read, row) for row in drawn.itertuples() if row.status == CORRECTED}
    return Audit(tuple(drawn["scene"]), ious, int((drawn["status"] == REJECTED).sum()))


def _draw(queue: Queue, more: int, seed: int) -> None:
    """Mark scenes that are not in the sample yet: those that come first in one seeded order of all names."""
    names = sorted(queue.scenes["scene"])
    order = [names[at] for at in np.random.default_rng(seed).permutation(len(names))]
    status = dict(zip(queue.scenes["scene"], queue.scenes["status"], strict=True))
    drawn = set(queue.scenes["scene"][queue.scenes["audit"] == 1])
    chosen = [name for name in order if name not in drawn][:more]
    seen = {name: TO_CHECK if status[name] == ACCEPTED else status[name] for name in chosen}
    update_scenes(queue.path, {name: {"audit": 1, "status": seen[name]} for name in chosen})


def _iou(queue: Queue, row: Any) -> float:
    """IoU of what was predicted and what a person left, on the scene's own pixels; two empty ones are the same."""
    scene = open_scene(queue, row)
    before, after = (water_of(queue, layer, row, scene) for layer in ("predicted", "water"))
    union = int((before | after).sum())
    return int((before & after).sum()) / union if union else 1.0

"""What a training run is made of: data, schedule, model; read from one TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from geosam.errors import OptionsError
from geosam.options import first_fault, read_toml


class _Recipe(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSource(_Recipe):
    """One source of labelled tiles and how it is drawn."""

    folder: str
    """Folder under the data root, or ``synth`` for scenes made on the fly."""
    weight: float = Field(gt=0)
    """Share of the samples, relative to the other sources."""
    zoom: tuple[float, float] = (0.5, 2.0)
    """Least and greatest magnification of a crop."""
    images: str = "images"
    masks: str = "masks"
    splits: tuple[str, ...] | None = None
    except_groups: tuple[str, ...] = ()
    names: str = "*"
    columns: tuple[float, float] = (0.0, 1.0)
    negatives: bool = True
    negative_share: float = Field(default=0.3, ge=0, le=1)
    """Share of this source's samples drawn from its images without water."""
    tier_weights: dict[str, float] = {}
    """Relative weight of a tile by the ``tier`` column of the index."""
    scenes: int = 2000
    """Seeds of synthetic scenes, from ``first_seed`` on."""
    first_seed: int = 1_000_000


class Schedule(_Recipe):
    """How long and how fast to learn."""

    minutes: float = Field(default=60.0, gt=0)
    """Time budget; the learning rate falls to its end as the budget runs out."""
    steps: int = Field(default=1_000_000, gt=0)
    """Greatest number of steps, whatever the budget."""
    learning_rate: float = 1.0e-3
    weight_decay: float = 0.05
    warmup_steps: int = 200
    clip: float = 1.0
    ema: float = 0.998
    side: int = 256
    """Side of a training tile in pixels."""
    batch: int = 16
    large_every: int = 5
    """Every so many steps a batch of four-fold tiles (twice the side, a quarter of the batch)."""
    seed: int = 42


class Recipe(_Recipe):
    """A whole training run."""

    schedule: Schedule = Schedule()
    model: dict[str, Any] = {}
    data: tuple[DataSource, ...]

    @classmethod
    def from_toml(cls, path: str | Path) -> Recipe:
        """Read and check a recipe.

        Raises:
            OptionsError: The file is missing, or a key is unknown or ill-typed.
        """
        try:
            return cls.model_validate(read_toml(path))
        except ValidationError as error:
            raise OptionsError(f"{path}: {first_fault(error)}") from None

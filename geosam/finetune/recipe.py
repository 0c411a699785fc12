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


class Stage(_Recipe):
    """A part of a run: small tiles, soft weather and no prompts at first teach the most an hour."""

    until: float = Field(default=1.0, gt=0, le=1)
    """Share of the budget at which the next stage begins."""
    side: int = Field(default=256, gt=0, multiple_of=32)
    """Side of a training tile in pixels."""
    batch: int = Field(default=16, gt=0)
    """Tiles a step and process."""
    large_every: int = 0
    """Every so many steps a batch of four-fold tiles (twice the side, a quarter of the batch); 0: never."""
    prompts: bool = True
    """Whether the mask decoder learns too, or the encoder alone."""
    encoder: bool = True
    """Whether the encoder learns too, or prompts and mask decoder alone: three times as many steps an hour."""
    ways: tuple[float, float, float] = (0.2, 0.4, 0.4)
    """Odds of asking by nothing, by the coarse mask as a hint, and by points or a box in single bodies."""
    weather: float = Field(default=0.85, ge=0, le=1)
    """Share of the tiles whose light, colour or sharpness is changed."""
    mixed: float = Field(default=0.0, ge=0, le=1)
    """Share of the tiles with water that show a part of another one too (:mod:`geosam.finetune.mixing`)."""
    mixed_dry: float = Field(default=0.0, ge=0, le=1)
    """The same of those without water."""
    repainted: float = Field(default=0.0, ge=0, le=1)
    """Share of the tiles whose water or land gets another colour (:mod:`geosam.finetune.repainting`)."""
    repainted_light: tuple[float, float] = (0.6, 0.6)
    """Greatest lightness of repainted water, of 1: of a line, and of a whole tile, which may be as light as a beach."""
    shaded: float = Field(default=0.0, ge=0, le=1)
    """Share of the tiles over which shadows are laid."""


class Schedule(_Recipe):
    """How long and how fast to learn."""

    minutes: float = Field(default=60.0, gt=0)
    """Time budget; the learning rate falls to its end as the budget runs out."""
    steps: int = Field(default=1_000_000, gt=0)
    """Greatest number of steps, whatever the budget."""
    learning_rate: float = 1.0e-3
    backbone_rate: float = Field(default=1.0, gt=0)
    """The backbone's rate, as a share of the others': one that knows something already is not to be upset."""
    frozen: int = Field(default=0, ge=0)
    """So many parts of the backbone, from its stem on, do not learn; they are dear, and know edges and colours."""
    weight_decay: float = 0.05
    ends: float = Field(default=1.0, gt=0, le=1)
    """Share of the budget after which it ends, at the rate that it has by then: another part goes on."""
    warmup_steps: int = 200
    clip: float = 1.0
    ema: float = 0.998
    stages: tuple[Stage, ...] = (Stage(),)
    """In their order; the last one lasts to the end."""
    seed: int = 42

    def stage_at(self, done: float) -> int:
        """Number of the stage at a share of the budget that is done."""
        return next((n for n, stage in enumerate(self.stages) if done < stage.until), len(self.stages) - 1)


class Recipe(_Recipe):
    """A whole training run."""

    schedule: Schedule = Schedule()
    model: dict[str, Any] = {}
    published: str | None = None
    """Package that holds published weights of the backbone to begin with; None: random ones."""
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

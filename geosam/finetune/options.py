"""What a tuning run can be told: one frozen, strict model, read from TOML or from the command line."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from geosam.options import checked

Train = Literal["decoder", "decoder+prompt", "lora", "all"]
Loss = Literal["bce", "dice", "focal", "bce-dice", "sam", "boundary"]
Views = Literal[1, 2, 4, 8]


class TuneOptions(BaseModel):
    """Everything ``geosam finetune --dataset`` can be told besides data, model and folder."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    train: Train = "decoder"
    """What learns: the mask decoder; the prompt encoder too; adapters in the encoder (LoRA) too; or everything."""
    epochs: int = Field(default=40, ge=1)
    """Greatest number of passes over the training tiles."""
    batch: int = Field(default=16, ge=1)
    """Tiles a step, over all processes."""
    learning_rate: float | None = Field(default=None, gt=0)
    """At its height, after the warm-up; None: what suits the model, see :mod:`geosam.finetune.suited`."""
    weight_decay: float = Field(default=1e-2, ge=0)
    warmup: float = Field(default=0.05, ge=0, le=1)
    """Share of the steps in which the rate rises; then it falls along a cosine, unless ``constant``."""
    constant: bool = False
    """Keep the rate after the warm-up, as the ancestor did."""
    clip: float = Field(default=1.0, gt=0)
    """Greatest norm of the gradient."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the moving average of the weights that is scored and saved; 0: the weights themselves."""
    patience: int = Field(default=10, ge=1)
    """Stop after so many epochs without a better validation score."""
    seed: int = Field(default=42, ge=0)

    loss: Loss = "bce-dice"
    """``sam`` is SAM's 20 focal : 1 Dice; ``boundary`` adds Kervadec's boundary loss to bce-dice."""
    iou_weight: float = Field(default=0.1, ge=0)
    """Weight of the error of the predicted IoU."""
    multimask: bool = False
    """Learn SAM's three masks of an ambiguous prompt, the best of which counts, besides the single one."""

    coarse: float = Field(default=0.3, ge=0, le=1)
    """Share of the prompts sampled from the coarse mask, with its mistakes, instead of from the label."""
    none: float = Field(default=0.2, ge=0, le=1)
    """Share of the questions without any prompt, of a model that has learned or is to learn it; see ``learn_none``."""
    dense: float = Field(default=0.3, ge=0, le=1)
    """Share of the questions with the coarse mask as a dense prompt, of a model that knows it; see ``learn_dense``."""
    boxes: float = Field(default=0.2, ge=0, le=1)
    """Share of the remaining questions that give a box."""
    learn_none: bool = False
    """Teach a model that needs prompts, such as SAM, to find all water without one."""
    learn_dense: bool = False
    """Teach a model that was not trained for it to take the coarse mask as a hint."""
    points: int = Field(default=3, ge=1, le=64)
    """Water points of a body: from one to as many are drawn, or always as many; see ``vary_points``."""
    dry_points: int = Field(default=2, ge=0, le=64)
    """Dry points of a body, from none to as many."""
    vary_points: bool = True
    """Draw how many points a question has, so that the model bears few and many."""
    jitter_px: float = Field(default=1.5, ge=0)
    """Points are shaken by up to so many pixels."""

    views: Views | None = None
    """Views of a square that are learned from, of its eight turns and flips; each is encoded once. None: what suits
    the model, see :mod:`geosam.finetune.suited`."""
    lora_rank: int = Field(default=8, ge=1)

    @classmethod
    def of(cls, values: dict[str, Any], where: str = "finetune") -> TuneOptions:
        """Check a mapping and freeze it.

        Raises:
            OptionsError: Names the first key at fault and what was found.
        """
        return checked(cls, values, where)

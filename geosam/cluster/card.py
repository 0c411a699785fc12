"""A model as it is on the workers, for the process that asks: everything about it but its arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NoReturn, cast

from geosam import __version__
from geosam.errors import ModelError
from geosam.models import PromptableModel, load_model
from geosam.options import ModelOptions

_REQUIRED = ("name", "tile_px", "sha256", "device", "dtype", "threshold", "understands")
_OPTIONAL: dict[str, Any] = {"step_px": None, "input_px": None, "multimask": False}
"""What some models have, with what a run takes it for where they have not."""


@dataclass(frozen=True)
class ModelCard:
    """What a worker tells of its model; two workers with one card give the same strips."""

    name: str
    tile_px: int
    sha256: str
    device: Any
    """torch.device; without an index, since every worker counts from its own first."""
    dtype: Any
    """torch.dtype"""
    threshold: float
    understands: frozenset[str]
    step_px: int | None
    input_px: int
    multimask: bool
    version: str
    """Of geosam."""

    @classmethod
    def of(cls, model: PromptableModel) -> ModelCard:
        """The card of a loaded model."""
        required = {name: getattr(model, name) for name in _REQUIRED}
        optional = {name: getattr(model, name, default) for name, default in _OPTIONAL.items()}
        optional["input_px"] = optional["input_px"] or model.tile_px
        return cls(**required, **optional, version=__version__)

    def as_model(self) -> PromptableModel:
        """The card in a model's place, where nothing is computed."""
        return cast(PromptableModel, self)

    def embed(self, images: Any) -> NoReturn:
        """Not here."""
        raise ModelError(f"{self.name} is on the workers and does not compute here.")

    def decode(self, embeddings: Any, prompts: Any) -> NoReturn:
        """Not here."""
        raise ModelError(f"{self.name} is on the workers and does not compute here.")


_loaded: dict[ModelOptions, PromptableModel] = {}
"""The one model of this worker."""


def model_here(options: ModelOptions, wanted: ModelCard | None = None) -> PromptableModel:
    """The worker's model, loaded once and kept until another is asked for.

    Raises:
        ModelError: It cannot be loaded, or is not the one that the run began with.
    """
    if options not in _loaded:
        _loaded.clear()
        _loaded[options] = load_model(options)
    model = _loaded[options]
    found = ModelCard.of(model)
    if wanted is not None and found != wanted:
        other = next(f.name for f in fields(ModelCard) if getattr(found, f.name) != getattr(wanted, f.name))
        raise ModelError(
            f"this worker's {other} is {getattr(found, other)}, and the run began with {getattr(wanted, other)}. "
            "Give all workers the same geosam, weights and kind of device."
        )
    return model

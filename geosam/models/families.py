"""The families of promptable models that transformers has, and who runs them. Reading it needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """One architecture: its checkpoints are folders with ``config.json`` and safetensors.

    Attributes:
        title: As people call it.
        model_types: What ``config.json`` says; a checkpoint of the video model holds the image model's weights too.
        adapter: Class that runs it, as ``module:name`` inside :mod:`geosam.models`.
        config: Class of its configuration in transformers.
        network: Class of its network in transformers.
        since: First version of transformers that has both.
    """

    title: str
    model_types: tuple[str, ...]
    adapter: str
    config: str
    network: str
    since: str


FAMILIES: dict[str, Family] = {
    "sam": Family("SAM", ("sam",), "sam:SamAdapter", "SamConfig", "SamModel", "4.50"),
    "sam-hq": Family("SAM-HQ", ("sam_hq",), "sam_hq:SamHqAdapter", "SamHQConfig", "SamHQModel", "4.52"),
    "sam2": Family("SAM 2", ("sam2", "sam2_video"), "sam2:Sam2Adapter", "Sam2Config", "Sam2Model", "4.56"),
    "edgetam": Family(
        "EdgeTAM", ("edgetam", "edgetam_video"), "sam2:EdgeTamAdapter", "EdgeTamConfig", "EdgeTamModel", "4.57"
    ),
    "sam3": Family(
        "SAM 3",
        ("sam3_tracker", "sam3_video"),
        "sam3:Sam3Adapter",
        "Sam3TrackerConfig",
        "Sam3TrackerModel",
        "5.0",
    ),
}  # fmt: skip
"""By the name that the registry gives them."""


WORDS = Family("SAM 3", ("sam3", "sam3_video"), "concepts:ConceptModel", "Sam3Config", "Sam3Model", "5.0")
"""SAM 3 as words ask it: the detector, which its video checkpoint holds besides the tracker."""


def family_of(model_type: object) -> str | None:
    """The family whose checkpoints have this model type, or None."""
    return next((name for name, family in FAMILIES.items() if model_type in family.model_types), None)


def model_types() -> list[str]:
    """Every model type that is run."""
    return [kind for family in FAMILIES.values() for kind in family.model_types]

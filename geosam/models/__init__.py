"""Models that turn a tile and prompts into water: the protocol, the registry, one adapter a family.

Names are resolved on first use, so that listing the registry does not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geosam.models.loading import load_model
    from geosam.models.protocol import Embeddings, PromptableModel
    from geosam.models.registry import MODELS, ModelSpec

__all__ = ["MODELS", "Embeddings", "ModelSpec", "PromptableModel", "load_model"]

_HOME = {
    "Embeddings": "protocol",
    "PromptableModel": "protocol",
    "load_model": "loading",
    "MODELS": "registry",
    "ModelSpec": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)

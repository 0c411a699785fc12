"""geosam: river polygons from orthoimages.

>>> import geosam
>>> rivers = geosam.segment("ortho.tif", out="rivers.geojson")
>>> rivers.polygons.area_m2.sum()

Names are resolved on first use (PEP 562), so that the indices and ``geosam --help`` never wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geosam import indices, plot, synth
    from geosam.coarse import CoarseMask, coarse_mask
    from geosam.errors import GeosamError
    from geosam.estimate import Estimate, estimate_run
    from geosam.models import PromptableModel, load_model
    from geosam.options import SegmentOptions
    from geosam.pipeline import Rivers, segment
    from geosam.prompts import Prompts, sample_prompts
    from geosam.scene import Scene
    from geosam.vector import polygonize_raster, write_rivers

__version__ = "0.3.0"

__all__ = [
    "CoarseMask",
    "Estimate",
    "GeosamError",
    "PromptableModel",
    "Prompts",
    "Rivers",
    "Scene",
    "SegmentOptions",
    "coarse_mask",
    "estimate_run",
    "indices",
    "load_model",
    "plot",
    "polygonize_raster",
    "sample_prompts",
    "segment",
    "synth",
    "write_rivers",
]

_HOME = {
    "CoarseMask": "coarse",
    "coarse_mask": "coarse",
    "GeosamError": "errors",
    "Estimate": "estimate",
    "estimate_run": "estimate",
    "PromptableModel": "models",
    "load_model": "models",
    "SegmentOptions": "options",
    "Rivers": "pipeline",
    "segment": "pipeline",
    "Prompts": "prompts",
    "sample_prompts": "prompts",
    "Scene": "scene",
    "polygonize_raster": "vector",
    "write_rivers": "vector",
}
_ROOMS = ("indices", "plot", "synth")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"geosam.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'geosam' has no attribute {name!r}")
    return getattr(importlib.import_module(f"geosam.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

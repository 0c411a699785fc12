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
    from geosam import indices, plot, relabel, synth
    from geosam.changes import Change, change
    from geosam.coarse import CoarseMask, coarse_mask
    from geosam.errors import GeosamError
    from geosam.estimate import Estimate, estimate_run
    from geosam.models import PromptableModel, load_model
    from geosam.options import SegmentOptions
    from geosam.pipeline import Rivers, segment
    from geosam.prompts import Prompts, sample_prompts
    from geosam.scene import Scene
    from geosam.segments import Everything, Selected, everything, select
    from geosam.stats import RiverStats, river_stats
    from geosam.vector import polygonize_raster, write_rivers
    from geosam.viewer import view

__version__ = "0.8.0"

__all__ = [
    "Change",
    "CoarseMask",
    "Estimate",
    "Everything",
    "GeosamError",
    "PromptableModel",
    "Prompts",
    "RiverStats",
    "Rivers",
    "Scene",
    "SegmentOptions",
    "Selected",
    "change",
    "coarse_mask",
    "estimate_run",
    "everything",
    "indices",
    "load_model",
    "plot",
    "polygonize_raster",
    "relabel",
    "river_stats",
    "sample_prompts",
    "segment",
    "select",
    "synth",
    "view",
    "write_rivers",
]

_HOME = {
    "Change": "changes",
    "change": "changes",
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
    "RiverStats": "stats",
    "river_stats": "stats",
    "Everything": "segments",
    "Selected": "segments",
    "everything": "segments",
    "select": "segments",
    "polygonize_raster": "vector",
    "write_rivers": "vector",
    "view": "viewer",
}
_ROOMS = ("indices", "plot", "relabel", "synth")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"geosam.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'geosam' has no attribute {name!r}")
    return getattr(importlib.import_module(f"geosam.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

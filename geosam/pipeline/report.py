"""What is said of a run: seconds, counts, choices, warnings."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from geosam import __version__
from geosam.coarse import CoarseMask
from geosam.options import SegmentOptions
from geosam.pipeline.guess import NoGuess
from geosam.prompts.given import GivenPrompts, way_of
from geosam.scene import Scene

if TYPE_CHECKING:
    import geopandas as gpd

    from geosam.models import PromptableModel
    from geosam.predict import TileReport

Progress = Callable[[str, int, int], None]
"""Called with the name of the stage, work done and work in all."""


@dataclass
class Clock:
    """Seconds a stage, and progress to whoever listens."""

    listener: Progress | None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Time a stage; yields what it reports progress to."""
        begun = time.perf_counter()
        listener = self.listener
        yield (lambda done, total: listener(name, done, total)) if listener else (lambda done, total: None)
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - begun, 3)


def report_of(
    scene: Scene,
    model: PromptableModel,
    coarse: CoarseMask | NoGuess,
    given: GivenPrompts | None,
    tiles: TileReport,
    rivers: gpd.GeoDataFrame,
    options: SegmentOptions,
    threshold: float,
    clock: Clock,
) -> dict[str, Any]:
    """The report as plain JSON values."""
    area = float(rivers["area_m2"].sum())
    return {
        "geosam": __version__,
        "scene": scene.source,
        "size_px": [scene.shape[1], scene.shape[0]],
        "gsd_m": _finite(scene.gsd_m),
        "native_gsd_m": _finite(scene.native_gsd_m),
        "crs": str(scene.geobox.crs) if scene.has_crs else None,
        "transform": list(scene.geobox.affine)[:6],
        "bands": dict(scene.bands),
        "tiles": {name: getattr(tiles, name) for name in ("total", "nodata", "dry", "run", "failed")},
        "failures": list(tiles.failures[:20]),
        "seconds": dict(clock.seconds),
        "tile_seconds": dict(tiles.seconds),
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "batch_size": tiles.batch_size,
        "peak_memory_mb": peak_memory_mb(),
        "model": {"name": model.name, "sha256": model.sha256},
        "threshold": threshold,
        "coarse": {
            "method": coarse.method,
            "threshold": _finite(coarse.threshold),
            "water_fraction": _finite(coarse.water_fraction),
            "reason": coarse.reason,
            "trust": coarse.trust,
            "warnings": list(coarse.warnings),
        },
        "prompts": {"which": way_of(options), **(given.facts if given else {})},
        "polygons": len(rivers),
        "area_m2": area,
        "warnings": [*scene.warnings, *coarse.warnings, *(given.warnings if given else ())],
        "options": options.model_dump(mode="json"),
    }


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def peak_memory_mb() -> int:
    """Greatest resident memory of this process so far, in MB (2^20 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / (2**20 if sys.platform == "darwin" else 2**10))

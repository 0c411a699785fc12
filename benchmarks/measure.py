"""What the measurements share: the scene they run on, and one line of JSON as their result."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path("runs/benchmarks")
"""Scenes are kept here between runs; results are not."""


def scene(size: int, folder: Path = FOLDER) -> Path:
    """A river scene of four uint8 bands and ``size`` px a side, made once.

    In a child process, so that making it leaves no trace in what is measured. ``--plain`` repeats its textures:
    it is much faster to make, and costs geosam the same to read.
    """
    made = folder / f"river-{size}"
    if not (made / "scene.tif").exists():
        folder.mkdir(parents=True, exist_ok=True)
        look = ("--bands", "rgbn", "--dtype", "uint8", "--plain", "--seed", "3")
        geosam = (sys.executable, "-m", "geosam")
        subprocess.run(
            [*geosam, "synth", "--out", str(made), "--size", str(size), *look], check=True, stdout=sys.stderr
        )
    return made / "scene.tif"


def peak_mib() -> float:
    """Most memory this process has held at any time, in MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10


class Stages(dict[str, float]):
    """Seconds by stage."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self[name] = self.get(name, 0.0) + time.perf_counter() - started


def report(job: str, size: int, seconds: float, stages: dict[str, float], polygons: int) -> None:
    """Print the result for ``run.py``."""
    megapixels = size * size / 1e6
    found = {
        "job": job,
        "size": size,
        "seconds": round(seconds, 2),
        "mpx_s": round(megapixels / seconds, 2),
        "peak_mib": round(peak_mib()),
        "stages": {name: round(value, 2) for name, value in stages.items()},
        "polygons": polygons,
    }
    print(json.dumps(found))

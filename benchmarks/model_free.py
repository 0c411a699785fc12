"""Megapixels a second and peak memory from scene to polygons without a model: coarse mask, then vectors.

python benchmarks/model_free.py --size 2000
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import measure

from geosam.coarse import coarse_mask
from geosam.options import SceneOptions, VectorOptions
from geosam.scene import Scene
from geosam.vector import polygonize_raster, write_rivers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=20_000, help="side of the scene in pixels")
    size: int = parser.parse_args().size
    path = measure.scene(size)
    stages = measure.Stages()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=measure.FOLDER) as folder:
        with stages.stage("coarse"):
            # native: every pixel counts, not a smaller copy of the scene
            mask = coarse_mask(Scene.open(path, SceneOptions(gsd="native")), path=Path(folder) / "coarse.tif")
        with stages.stage("vector"):
            rivers = polygonize_raster(mask.path, VectorOptions())
        with stages.stage("write"):
            write_rivers(rivers, Path(folder) / "rivers.gpkg")
    measure.report("model-free", size, time.perf_counter() - started, stages, len(rivers))


if __name__ == "__main__":
    main()

"""Seconds, CPU seconds and peak memory from a water mask to centrelines, widths, reaches, islands and a mask.

The mask it starts from is the truth of a made-up scene: a braided river from edge to edge with streams, lakes and an
oxbow, cut by bridges, which are closed again. With ``--threads N`` other rivers are laid over it, so that there is more
to do. That mask is made before the clock starts, and kept.

python benchmarks/rivers.py --size 2000
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import measure
import numpy as np
import rasterio
import shapely
from affine import Affine
from rasterio.features import rasterize
from rasterio.windows import Window

from geosam.options import RiverOptions
from geosam.rivers import river_products
from geosam.synth.layout import lay_out
from geosam.synth.options import SynthOptions

ROWS = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=20_000, help="side of the mask in pixels")
    parser.add_argument("--threads", type=int, default=1, help="rivers laid over each other")
    asked = parser.parse_args()
    path = water_mask(asked.size, asked.threads)
    stages = measure.Stages()
    started, worked = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory(dir=measure.FOLDER) as folder:
        products = river_products(
            path, RiverOptions(bridge_m=10.0), out=Path(folder) / "network.gpkg", mask=Path(folder) / "mask.tif"
        )
    seconds = time.perf_counter() - started
    stages["cpu"] = time.process_time() - worked
    measure.report("rivers", asked.size, seconds, stages, len(products.layers.water))
    print({name: products.report[name] for name in ("bodies", "bridges", "centrelines", "sections", "islands")})


def water_mask(size: int, threads: int) -> Path:
    """A mask of so many rivers, written by strips, made once."""
    path = measure.FOLDER / f"water-{size}-{threads}.tif"
    if path.exists():
        return path
    measure.FOLDER.mkdir(parents=True, exist_ok=True)
    bodies = []
    for seed in range(threads):
        layout = lay_out(SynthOptions(width=size, height=size, gsd_m=0.5, seed=seed))
        bodies += [polygon for _, polygon in layout.truth]
    write(bodies, size, path)
    return path


def write(bodies: list[shapely.Polygon], size: int, path: Path) -> None:
    profile = {
        "driver": "GTiff", "count": 1, "dtype": "uint8", "width": size, "height": size, "compress": "deflate",
        "crs": "EPSG:32632", "transform": Affine(0.5, 0, 5e5, 0, -0.5, 5e6), "tiled": True,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as raster:
        for top in range(0, size, ROWS):
            rows = min(ROWS, size - top)
            near = pieces(bodies, top, rows, size)
            shape = (rows, size)
            strip = rasterize(near, shape, transform=Affine.translation(0, top)) if near else np.zeros(shape, np.uint8)
            raster.write(strip.astype(np.uint8), 1, window=Window(0, top, size, rows))


def pieces(bodies: list[shapely.Polygon], top: int, rows: int, size: int) -> list[shapely.Polygon]:
    """What of some bodies lies in a strip, and a little more: rasterio takes long over every vertex it is given."""
    near = np.array([body for body in bodies if body.bounds[1] < top + rows and body.bounds[3] > top], object)
    cut = shapely.get_parts(shapely.clip_by_rect(near, -size, top - 3, 2 * size, top + rows + 3))
    return list(cut[shapely.get_type_id(cut) == shapely.GeometryType.POLYGON])


if __name__ == "__main__":
    main()

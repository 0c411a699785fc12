"""Time and memory of ``geosam segment`` against the size of a scene and against the length of its river.

    python benchmarks/scaling.py                          sides of 5,000 to 50,000 px with one river of 5,000 px,
                                                          then 1 to 8 rivers of 10,000 px in a scene of that side
    python benchmarks/scaling.py --sizes 1000 2000 --reaches 1 2 --side 2000 --length 1000     a rehearsal
    python benchmarks/scaling.py --sizes 100000 --reaches            the largest alone

Scenes are made for this: plain ground in four bands, and rivers 60 px wide that wind from the left border. What a run
costs should follow the river, plus the reading of the scene, and its memory neither of the two.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin
from rasterio.windows import Window

FOLDER = Path("runs/benchmarks")
GROUND, WATER = (104, 112, 88, 170), (52, 74, 70, 24)
WIDTH_PX, SWING_PX, WAVE_PX = 60, 200, 3000
BLOCK_PX = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[5_000, 10_000, 20_000, 50_000], help="sides, px")
    parser.add_argument("--length", type=int, default=5_000, help="of the one river in them, px")
    parser.add_argument("--reaches", type=int, nargs="*", default=[1, 2, 4, 8], help="rivers side by side")
    parser.add_argument("--side", type=int, default=10_000, help="of the scene that they cross, px")
    asked = parser.parse_args()
    print("| scene, px | river, px | tiles run | of all | seconds | peak memory, MiB |\n|---|---|---|---|---|---|")
    for size in asked.sizes:
        row(size, 1, min(asked.length, size))
    for reaches in asked.reaches:
        row(asked.side, reaches, asked.side)


def row(size: int, reaches: int, length: int) -> None:
    """Run one scene in a process of its own and print its line."""
    scene = made(size, reaches, length)
    out, report = scene.with_suffix(".gpkg"), scene.with_suffix(".json")
    command = [sys.executable, "-m", "geosam", "segment", str(scene), "--out", str(out), "--report", str(report)]
    subprocess.run([*command, "--gsd", "native", "--overwrite"], check=True, stdout=subprocess.DEVNULL)
    told = json.loads(report.read_text(encoding="utf-8"))
    tiles, peak = told["tiles"], told["peak_memory_mb"]
    seconds = sum(spent for spent in told["seconds"].values() if isinstance(spent, int | float))
    river = f"{reaches * length:,}" if reaches == 1 else f"{reaches} x {length:,}"
    line = f"| {size:,} | {river} | {tiles['run']:,} | {tiles['total']:,} | {seconds:.1f} | {peak:,.0f} |"
    print(line, flush=True)


def made(size: int, reaches: int, length: int) -> Path:
    """The scene's path; written by blocks, once."""
    path = FOLDER / f"scaling-{size}-{reaches}-{length}.tif"
    if path.exists():
        return path
    FOLDER.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.tif")
    shape = {"width": size, "height": size, "count": 4, "dtype": "uint8", "crs": "EPSG:32610"}
    blocks = {"tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX, "compress": "deflate", "zlevel": 1}
    place = from_origin(400_000, 5_300_000, 0.3, 0.3)
    with rasterio.open(part, "w", **shape, **blocks, transform=place, photometric="rgb", bigtiff="if_safer") as raster:
        raster.descriptions = ("red", "green", "blue", "nir")
        for top in range(0, size, BLOCK_PX):
            height = min(BLOCK_PX, size - top)
            raster.write(strip(top, height, size, reaches, length), window=Window(0, top, size, height))
    part.rename(path)
    return path


def strip(top: int, height: int, size: int, reaches: int, length: int) -> NDArray[np.uint8]:
    """Rows of the scene, uint8 (4, height, size)."""
    y, x = np.arange(top, top + height)[:, None], np.arange(size)[None, :]
    shade = (((y // 64) + (x // 64)) % 3 * 6).astype(np.uint8)
    river = np.zeros((height, size), bool)
    for number in range(reaches):
        middle = (number + 0.5) * size / reaches + SWING_PX * np.sin(2 * np.pi * x / WAVE_PX)
        river |= (np.abs(y - middle) < WIDTH_PX / 2) & (x < length)
    return np.stack([np.where(river, wet, dry + shade) for wet, dry in zip(WATER, GROUND, strict=True)]).astype(
        np.uint8
    )


if __name__ == "__main__":
    main()

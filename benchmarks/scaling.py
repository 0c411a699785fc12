"""Time and memory against the size of a scene and against the length of its river, verb by verb.

    python benchmarks/scaling.py                          sides of 5,000 to 50,000 px with one river of 5,000 px,
                                                          then 1 to 8 rivers of 10,000 px in a scene of that side
    python benchmarks/scaling.py --ground corridor --sizes 5000 100000 --reaches     memory, up to 100,000 px
    python benchmarks/scaling.py --sizes 1000 2000 --reaches 1 2 --side 2000 --length 1000     a rehearsal

Scenes are made for this: plain ground in four bands, and rivers 60 px wide that wind from the left border. With
``--ground corridor`` there is ground near the rivers only, as where a drone followed one, and no data elsewhere. What a
run costs should follow the river, plus the reading of the scene, and its memory neither of the two.

``segment`` is the whole job with river-tiny; ``coarse`` the first guess alone; ``vectorize`` that guess to polygons;
``evaluate`` that guess scored against itself. Each runs in a process of its own, whose CPU seconds (of all threads, so
they hold on a busy machine) and peak memory the system tells.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin
from rasterio.windows import Window

FOLDER = Path("runs/benchmarks")
GROUND, WATER = (104, 112, 88, 170), (52, 74, 70, 24)
WIDTH_PX, SWING_PX, WAVE_PX = 60, 200, 3000
BLOCK_PX = 512
JOBS = ("segment", "coarse", "vectorize", "evaluate")
GROUNDS = ("all", "corridor")


@dataclass(frozen=True)
class Row:
    """What one verb took on one scene."""

    size: int
    river: str
    job: str
    tiles: str
    cpu_s: float
    seconds: float
    peak_mib: float

    def __str__(self) -> str:
        spent = f"{self.cpu_s:.1f} | {self.seconds:.1f} | {self.peak_mib:,.0f}"
        return f"| {self.size:,} | {self.river} | {self.job} | {self.tiles} | {spent} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[5_000, 10_000, 20_000, 50_000], help="sides, px")
    parser.add_argument("--length", type=int, default=5_000, help="of the one river in them, px")
    parser.add_argument("--reaches", type=int, nargs="*", default=[1, 2, 4, 8], help="rivers side by side")
    parser.add_argument("--side", type=int, default=10_000, help="of the scene that they cross, px")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--ground", choices=GROUNDS, default="all", help="where the scene has data")
    asked = parser.parse_args()
    print("| scene, px | river, px | job | tiles run, of all | CPU s | s | peak memory, MiB |\n" + "|---" * 7 + "|")
    rows = [row for size in asked.sizes for row in measured(size, 1, min(asked.length, size), asked)]
    print("\n".join(flatness(rows, asked.jobs)) + "\n")
    for reaches in asked.reaches:
        measured(asked.side, reaches, asked.side, asked)


def measured(size: int, reaches: int, length: int, asked: argparse.Namespace) -> list[Row]:
    """Run the verbs on one scene, and print a line for each as soon as it is done."""
    scene = made(size, reaches, length, asked.ground)
    river = f"{reaches * length:,}" if reaches == 1 else f"{reaches} x {length:,}"
    rows = []
    for job in JOBS:  # The last two need what the second one makes.
        if job in asked.jobs or (job == "coarse" and {"vectorize", "evaluate"} & set(asked.jobs)):
            words, report = command(job, scene)
            rows.append(Row(size, river, job, *ran(words, report)))
            print(rows[-1], flush=True)
    return rows


def command(job: str, scene: Path) -> tuple[list[str], Path | None]:
    """Words of a verb on a scene, and the report that it writes."""
    mask, out, report = (scene.with_suffix(suffix) for suffix in (".coarse.tif", ".gpkg", ".json"))
    words = {
        "segment": [scene, "--gsd", "native", "--out", out, "--report", report],
        "coarse": [scene, "--gsd", "native", "--out", mask],
        "vectorize": [mask, "--out", out],
        "evaluate": [mask, mask, "--json", report],
    }[job]
    return [job, *map(str, words), "--overwrite"], report if job == "segment" else None


def ran(words: list[str], report: Path | None) -> tuple[Any, ...]:
    """Tiles, CPU seconds, seconds and peak memory of a verb in a process of its own."""
    started = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "geosam", *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"geosam {' '.join(words)} ended with exit code {child.returncode}.")
    tiles = json.loads(report.read_text(encoding="utf-8"))["tiles"] if report else None
    peak = used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return f"{tiles['run']:,} of {tiles['total']:,}" if tiles else "", used.ru_utime + used.ru_stime, seconds, peak


def flatness(rows: list[Row], jobs: list[str]) -> list[str]:
    """For each verb the peak memory on the largest scene over that on the smallest."""
    lines = [""]
    for job in jobs:
        of_job = sorted((row for row in rows if row.job == job), key=lambda row: row.size)
        if len(of_job) > 1:
            ratio = of_job[-1].peak_mib / of_job[0].peak_mib
            sides = f"{of_job[-1].size:,} px is {ratio:.2f} times that at {of_job[0].size:,} px"
            lines.append(f"- {job}: peak memory at {sides}.")
    return lines


def made(size: int, reaches: int, length: int, ground: str) -> Path:
    """The scene's path; written by blocks, once."""
    path = FOLDER / f"scaling-{ground}-{size}-{reaches}-{length}.tif"
    if path.exists():
        return path
    FOLDER.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.tif")
    middles = [(number + 0.5) * size / reaches for number in range(reaches)]
    shape = {"width": size, "height": size, "count": 4, "dtype": "uint8", "crs": "EPSG:32610", "nodata": 0}
    blocks = {"tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX, "compress": "deflate", "zlevel": 1}
    how = {"transform": from_origin(400_000, 5_300_000, 0.3, 0.3), "photometric": "rgb", "bigtiff": "if_safer"}
    with rasterio.open(part, "w", **shape, **blocks, **how, sparse_ok=True) as raster:
        raster.descriptions = ("red", "green", "blue", "nir")
        for top in range(0, size, BLOCK_PX):
            height, width = min(BLOCK_PX, size - top), size
            if ground == "corridor":
                width = min(size, length + BLOCK_PX)
            if ground == "all" or any(near_river(top, height, middle) for middle in middles):
                raster.write(strip(top, height, width, middles, length), window=Window(0, top, width, height))
    part.rename(path)
    return path


def near_river(top: int, height: int, middle: float) -> bool:
    """Whether any of these rows is within a block of where a river around this row may be."""
    reach = SWING_PX + WIDTH_PX + BLOCK_PX
    return top - reach < middle < top + height + reach


def strip(top: int, height: int, width: int, middles: list[float], length: int) -> NDArray[np.uint8]:
    """The first ``width`` columns of some rows of the scene, uint8 (4, height, width)."""
    y, x = np.arange(top, top + height)[:, None], np.arange(width)[None, :]
    rows, cols = ((at // 64 % 3).astype(np.uint8) for at in (y, x))
    shade = (rows + cols) % 3 * np.uint8(6)
    river = np.zeros((height, width), bool)
    for middle in middles:
        if near_river(top, height, middle):
            bed = middle + SWING_PX * np.sin(2 * np.pi * x / WAVE_PX)
            river |= (y > bed - WIDTH_PX / 2) & (y < bed + WIDTH_PX / 2) & (x < length)
    return np.stack(
        [np.where(river, np.uint8(wet), shade + np.uint8(dry)) for wet, dry in zip(WATER, GROUND, strict=True)]
    )


if __name__ == "__main__":
    main()

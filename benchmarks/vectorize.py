"""Mask to polygons: megapixels a second and a CPU second, peak memory, polygons; each case in a process of its own.

    GEOSAM_DATA=DATA python benchmarks/vectorize.py                          all cases, 5,000 to 20,000 px a side
    GEOSAM_DATA=DATA python benchmarks/vectorize.py --cases colville --sizes 50000 --threads 1 2
    python benchmarks/vectorize.py --cases river --sizes 5000 --profile      CPU seconds by function

Cases: ``river``, a made-up river that leaves nearly all of the scene dry; ``ponds``, a polygon on every 100 px, which
would show a step that is quadratic in their number; ``colville`` and ``brahmaputra``, masks of a
delta and of a braided river, laid out in mirrored copies until the side is full. Those two are Colville_mask.tif and
Brahmaputra_mask_cropped.tif of the RivGraph examples, in a folder rivgraph under the environment variable GEOSAM_DATA.

CPU seconds are those of all threads, so they hold on a busy machine too; Mpx/s by the clock do not. A second on two
cores counts twice: Mpx a CPU second is the speed of one core.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import measure
import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window

DELTAS = {"colville": "Colville_mask.tif", "brahmaputra": "Brahmaputra_mask_cropped.tif"}
CASES = ("river", "ponds", *DELTAS)
BLOCK = 512
COLUMNS = (
    "case",
    "side, px",
    "threads",
    "polygons",
    "vertices",
    "CPU s",
    "Mpx/CPU s",
    "s",
    "Mpx/s",
    "peak MiB",
    "by step",
)

Bytes = npt.NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 10_000, 20_000], help="sides in pixels")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="threads that work side by side")
    parser.add_argument("--format", default=".fgb", help="suffix of the file written; none: do not write")
    parser.add_argument("--profile", action="store_true", help="CPU seconds of the main thread by function")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(vectorized(Path(asked.one), asked.threads[0], asked.format, asked.profile)))
        return
    for case in DELTAS.keys() & asked.cases:
        source(case)
    print(row(COLUMNS) + "\n" + row(["---"] * len(COLUMNS)), flush=True)
    with tempfile.TemporaryDirectory(prefix="geosam-vectorize-") as folder:
        for case in asked.cases:
            for size in asked.sizes:
                path = write_mask(Path(folder) / f"{case}-{size}.tif", case, size)
                for threads in asked.threads:
                    print(row(cells(case, size, threads, in_a_child(path, threads, asked))), flush=True)
                path.unlink()


def row(texts: Any) -> str:
    return "| " + " | ".join(map(str, texts)) + " |"


def in_a_child(path: Path, threads: int, asked: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", str(path), "--threads", str(threads), "--format", asked.format]
    done = subprocess.run(command + ["--profile"] * asked.profile, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def cells(case: str, size: int, threads: int, found: dict[str, Any]) -> list[str]:
    megapixels = size * size / 1e6
    cpu, seconds = found["cpu"], found["seconds"]
    steps = ", ".join(f"{name} {spent:.1f}" for name, spent in found["steps"].items())
    counts = f"{found['polygons']:,}", f"{found['vertices']:,}"
    speed = f"{cpu:.1f}", f"{megapixels / cpu:.1f}", f"{seconds:.1f}", f"{megapixels / seconds:.1f}"
    return [case, f"{size:,}", str(threads), *counts, *speed, f"{found['peak']:,}", steps]


# One case, in a process of its own ------------------------------------------------------------------------------------


@dataclass
class Meter:
    """CPU seconds by step, of this process and the children it has waited for."""

    steps: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = cpu_seconds()
        yield
        self.steps[name] = cpu_seconds() - started


def cpu_seconds() -> float:
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in spent)


def vectorized(path: Path, threads: int, suffix: str, profile: bool) -> dict[str, Any]:
    """Polygons of one mask; imports are not counted, reading the file is."""
    from geosam.vector import polygonize_raster, write_rivers

    meter, profiler = Meter(), cProfile.Profile(time.thread_time)
    started = time.perf_counter()
    with meter.step("polygons"):
        work = partial(polygonize_raster, path, threads=threads)
        rivers = profiler.runcall(work) if profile else work()
    if suffix != "none":
        with meter.step("write"):
            write_rivers(rivers, path.with_suffix(suffix), overwrite=True)
        path.with_suffix(suffix).unlink()
    seconds, cpu, peak = time.perf_counter() - started, sum(meter.steps.values()), round(measure.peak_mib())
    if profile:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(25)
    vertices = int(rivers.geometry.count_coordinates().sum())
    counts = {"polygons": len(rivers), "vertices": vertices}
    return {**counts, "seconds": seconds, "cpu": cpu, "peak": peak, "steps": meter.steps}


# Masks ----------------------------------------------------------------------------------------------------------------


def write_mask(path: Path, case: str, size: int) -> Path:
    """A uint8 GeoTIFF of 0 and 1, as geosam writes its own: blocks of 512 px, deflate; a block row at a time."""
    made = {"river": river, "ponds": ponds}
    rows = made[case](size) if case in made else mirrored(delta(case), size)
    grid = {"crs": "EPSG:32606", "transform": Affine(1.0, 0.0, 336_885.0, 0.0, -1.0, 7_826_415.0)}
    blocks = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "zlevel": 1}
    profile = {"driver": "GTiff", "height": size, "width": size, "count": 1, "dtype": "uint8", **grid, **blocks}
    with rasterio.open(path, "w", **profile) as out:
        for top, values in zip(range(0, size, BLOCK), rows, strict=True):
            out.write(values, 1, window=Window(0, top, size, len(values)))
    return path


def river(size: int) -> Iterator[Bytes]:
    """A meandering river of 1/100 of the side, from top to bottom, with banks that are rough by a few pixels."""
    rng = np.random.default_rng(3)
    rough = np.cumsum(rng.integers(-1, 2, (2, size)), axis=1) % 50
    columns = np.arange(size)
    for top in range(0, size, BLOCK):
        at = np.arange(top, min(top + BLOCK, size))
        middle = size / 2 + size / 5 * np.sin(at / size * 12) + size / 40 * np.sin(at / size * 150)
        left, right = middle - size / 200 - rough[0, at], middle + size / 200 + rough[1, at]
        yield ((columns > left[:, None]) & (columns < right[:, None])).astype(np.uint8)


def ponds(size: int) -> Iterator[Bytes]:
    """In every square of 10 px a pond of 1 to 8 px a side."""
    squares = -(-size // 10)
    side = np.random.default_rng(3).integers(1, 9, (squares, squares))
    at = np.arange(size)
    for top in range(0, size, BLOCK):
        rows = at[top : top + BLOCK]
        least = np.maximum(rows[:, None] % 10, at % 10)
        yield (least < side[rows // 10][:, at // 10]).astype(np.uint8)


def source(case: str) -> Path:
    """Where a mask of the data folder is; ends the program with a line that says what to do if it is nowhere."""
    root = os.environ.get("GEOSAM_DATA")
    if not root:
        sys.exit(f"GEOSAM_DATA is not set, and {case} needs it. Set it to the folder of data that holds rivgraph/.")
    found = [*Path(root).glob(f"rivgraph/{DELTAS[case]}"), *Path(root).glob(f"*/rivgraph/{DELTAS[case]}")]
    if not found:
        sys.exit(f"there is no rivgraph/{DELTAS[case]} under {root}. Set GEOSAM_DATA to the folder that holds it.")
    return found[0]


def delta(case: str) -> Bytes:
    """A mask of the data folder, 0 and 1."""
    with rasterio.open(source(case)) as raster:
        water: Bytes = (raster.read(1) > 0).astype(np.uint8)
    return water


def mirrored(tile: Bytes, size: int) -> Iterator[Bytes]:
    """Copies of a mask, every other one mirrored so that channels go on across the seams."""
    height, width = tile.shape
    across = np.concatenate([tile, tile[:, ::-1]], axis=1)
    wide = np.tile(across, (1, -(-size // (2 * width))))[:, :size]
    down = np.concatenate([np.arange(height), np.arange(height)[::-1]])
    for top in range(0, size, BLOCK):
        yield wide[down[np.arange(top, min(top + BLOCK, size)) % (2 * height)]]


if __name__ == "__main__":
    main()

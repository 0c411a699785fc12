"""How near ``geosam info`` comes: its time and memory beside those of the run, scene by scene.

    python benchmarks/estimate.py                        sides of 1,000, 2,000 and 4,000 px, with a river and without
    python benchmarks/estimate.py --cpu                  CPU seconds on both sides, where other work is going on
    python benchmarks/estimate.py --scenes a.tif b.tif   your own

Every call is a process of its own, and the machine is measured anew before the first.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure

RIVERLESS = ("river", "braided", "tributary", "lake", "oxbow")
CPU_CLOCK = "import time; time.perf_counter = time.process_time\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000, 4000], help="sides in pixels")
    parser.add_argument("--scenes", type=Path, nargs="+", help="these instead of made-up ones")
    parser.add_argument("--cpu", action="store_true", help="compare CPU seconds of all threads, not the clock's")
    asked = parser.parse_args()
    scenes = asked.scenes or [path for size in asked.sizes for path in (measure.scene(size), dry_scene(size))]
    print("| scene | wet tiles, run | seconds, run | ratio | range | MB, run | ratio |\n|---|---|---|---|---|---|---|")
    ratios = [compared(path, asked.cpu, first=path is scenes[0]) for path in scenes]
    worst = max(max(ratio, 1 / ratio) for pair in ratios for ratio in pair)
    print(f"\nFurthest off by a factor of {worst:.2f}.")


def dry_scene(size: int) -> Path:
    """A scene like :func:`measure.scene`, without water."""
    made = measure.FOLDER / f"dry-{size}"
    if not (made / "scene.tif").exists():
        measure.FOLDER.mkdir(parents=True, exist_ok=True)
        without = [word for name in RIVERLESS for word in ("--without", name)]
        look = ("--bands", "rgbn", "--dtype", "uint8", "--plain", "--seed", "4")
        done = [sys.executable, "-m", "geosam", "synth", "--out", str(made), "--size", str(size), *look, *without]
        subprocess.run(done, check=True, stdout=sys.stderr)
    return made / "scene.tif"


def compared(path: Path, cpu: bool, first: bool) -> tuple[float, float]:
    """Print a row; returns the ratios of estimate to run, of time and of memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        info = geosam(folder, cpu, "info", str(path), "--gsd", "native", "--json", *(["--calibrate"] if first else []))
        told = json.loads(info.stdout)
        begun = clock(cpu)
        report = folder / "report.json"
        outs = ("--out", str(folder / "rivers.gpkg"), "--report", str(report))
        geosam(folder, cpu, "segment", str(path), "--gsd", "native", *outs)
        seconds = clock(cpu) - begun
        run: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    ratios = told["seconds"] / seconds, told["memory_mb"] / run["peak_memory_mb"]
    print(
        f"| {path.parent.name}/{path.name} | {told['wet_tiles']}, {run['tiles']['run']} "
        f"| {told['seconds']:.1f}, {seconds:.1f} | {ratios[0]:.2f} "
        f"| {told['seconds_low']:.1f} to {told['seconds_high']:.1f} "
        f"| {told['memory_mb']:,}, {run['peak_memory_mb']:,} | {ratios[1]:.2f} |",
        flush=True,
    )
    return ratios


def clock(cpu: bool) -> float:
    if not cpu:
        return time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def geosam(folder: Path, cpu: bool, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a verb; with ``cpu`` its own clock counts the seconds of all its threads."""
    environment = dict(os.environ)
    if cpu:
        (folder / "sitecustomize.py").write_text(CPU_CLOCK, encoding="utf-8")
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), environment.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "geosam", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)


if __name__ == "__main__":
    main()

"""Megapixels a second and peak memory of the whole job, ``geosam segment`` with the bundled model.

python benchmarks/whole_job.py --size 2000
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import measure

from geosam.cli import main as geosam


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=20_000, help="side of the scene in pixels")
    parser.add_argument("--model", default="river-tiny", help="another model than the bundled one")
    asked = parser.parse_args()
    path = measure.scene(asked.size)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=measure.FOLDER) as folder:
        out, report = Path(folder) / "rivers.gpkg", Path(folder) / "report.json"
        try:
            options = ("--gsd", "native", "--model", asked.model)  # native: every pixel counts
            geosam(["segment", str(path), "--out", str(out), "--report", str(report), *options])
        except SystemExit as end:
            if end.code:
                raise
        seconds = time.perf_counter() - started
        told = json.loads(report.read_text(encoding="utf-8"))
    stages = {name: spent for name, spent in told["seconds"].items() if isinstance(spent, int | float)}
    measure.report("whole job", asked.size, seconds, stages, told["polygons"])


if __name__ == "__main__":
    main()

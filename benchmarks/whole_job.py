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
    size: int = parser.parse_args().size
    path = measure.scene(size)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=measure.FOLDER) as folder:
        out, report = Path(folder) / "rivers.gpkg", Path(folder) / "report.json"
        try:
            geosam(["segment", str(path), "--gsd", "native", "--out", str(out), "--report", str(report)])
        except SystemExit as end:
            if end.code:
                raise
        seconds = time.perf_counter() - started
        told = json.loads(report.read_text(encoding="utf-8"))
    measure.report("whole job", size, seconds, told["seconds"], told["polygons"])


if __name__ == "__main__":
    main()

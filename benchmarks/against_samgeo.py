"""Seconds a megapixel of segment-geospatial's automatic mask generator in batch mode, with given weights.

    python benchmarks/against_samgeo.py crop.tif --checkpoint vit_b.pth --venv runs/against/samgeo

It is installed into a virtual environment of its own, with the very PyTorch that geosam runs on; that takes 7 GB and a
network the first time. ``--borrow`` spares most of it: packages that are here already are found by way of a .pth file.
The checkpoint is in the layout of segment_anything (random_sam.py writes one), so nothing is downloaded. Only the call
that makes the masks is timed, not the start of the program, by the clock and in CPU seconds of all threads. The last
line printed is JSON.

A batch goes by windows of 768 px that begin 128 px outside and overlap by 256, so a small crop takes more of them a
megapixel than a large scene does: 512 px take four, as 1,024 px would take nine. ``s_mpx_large`` is the time of a
window for each 512 x 512 px, which is what a large scene comes to.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

PACKAGE = "segment-geospatial[samgeo]"
STEP_PX, BOUND_PX = 512, 128
"""Of its windows, by default: from one to the next, and what each reaches over that on every side."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crop", help="raster of three bands: red, green, blue; uint8")
    parser.add_argument("--checkpoint", required=True, help="SAM in the layout of segment_anything")
    parser.add_argument("--type", default="vit_b", choices=["vit_b", "vit_l", "vit_h"])
    parser.add_argument("--venv", default="runs/against/samgeo", help="where it is or will be installed")
    parser.add_argument("--borrow", action="store_true", help="take from this environment what it has")
    parser.add_argument("--points", type=int, default=32, help="points a side; 32 is its own default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        print(json.dumps(masks(asked)))
        return
    python = installed(Path(asked.venv), asked.borrow)
    subprocess.run([python, __file__, *sys.argv[1:], "--inside"], check=True)


def installed(venv: Path, borrow: bool) -> str:
    """The Python of the environment, made and filled the first time; half-made ones are made again."""
    python = venv / "bin" / "python"
    if not (venv / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        wanted = [PACKAGE]
        if borrow:
            version = f"python{sys.version_info.major}.{sys.version_info.minor}"
            found = venv / "lib" / version / "site-packages" / "borrowed.pth"
            found.write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        else:
            wanted += [f"{name}=={importlib.metadata.version(name)}" for name in ("torch", "torchvision")]
        subprocess.run([str(python), "-m", "pip", "install", "-q", *wanted], check=True, stdout=sys.stderr)
        (venv / "done").touch()
    return str(python)


def masks(asked: argparse.Namespace) -> dict[str, object]:
    """Make the masks of the crop, in the environment's own Python."""
    import rasterio
    from samgeo import SamGeo
    from samgeo.common import calculate_sample_grid

    sam = SamGeo(
        model_type=asked.type,
        checkpoint=asked.checkpoint,
        automatic=True,
        device=asked.device,
        sam_kwargs={"points_per_side": asked.points},
    )
    out = Path(asked.crop).with_name("samgeo.tif")
    started, cpu_started = time.perf_counter(), time.process_time()
    sam.generate(asked.crop, str(out), batch=True, foreground=True)
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    with rasterio.open(asked.crop) as crop:
        megapixels = crop.width * crop.height / 1e6
        windows = len(calculate_sample_grid(crop.height, crop.width, STEP_PX, STEP_PX, BOUND_PX))
    versions = {name: importlib.metadata.version(name) for name in ("segment-geospatial", "torch")}
    return {
        "seconds": seconds,
        "s_mpx": seconds / megapixels,
        "cpu_s_mpx": cpu_s / megapixels,
        "windows": windows,
        "s_mpx_large": seconds / windows / (STEP_PX**2 / 1e6),
        "points": asked.points,
        "versions": versions,
    }


if __name__ == "__main__":
    main()

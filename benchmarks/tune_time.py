"""The time to tune a SAM's decoder on 1,111 images for 50 epochs, from the files to the weights: as many as Elwha has.

    python benchmarks/tune_time.py                                                    on a GPU: base, then huge
    python benchmarks/tune_time.py --models sam-vit-huge --batch 32
    python benchmarks/tune_time.py --models tiny --tiles 12 --epochs 2 --device cpu   a rehearsal where there is none

The whole of ``geosam finetune`` with its own options is run: reading, encoding, scoring the untouched model, every
epoch with its scores and checkpoints, the contact sheet. Of the images the usual share is held out for validation.
Weights are random, pictures are few under many names; neither changes the time. Early stop is off.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from random_sam import SIZES, saved

from geosam import synth
from geosam.finetune import TuneOptions, finetune
from geosam.options import ModelOptions

_PICTURES = 6


def make_tiles(folder: Path, count: int, side: int) -> Path:
    """A folder of so many labelled tiles, of which only a few differ."""
    for kind in ("images", "masks"):
        (folder / "tiles" / kind).mkdir(parents=True)
    for n in range(count):
        paths = [folder / "tiles" / kind / f"{n:05}.png" for kind in ("images", "masks")]
        if n < _PICTURES:
            tile = synth.make_tile(n, size_px=side)
            for path, values in zip(paths, (tile.rgb, tile.water.astype(np.uint8) * 255), strict=True):
                Image.fromarray(values).save(path, compress_level=1)
            continue
        for path in paths:
            os.link(path.with_name(f"{n % _PICTURES:05}.png"), path)
    return folder / "tiles"


class Clock:
    """When each stage was first and last heard of."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.perf_counter()
        self.times.setdefault(stage, [now, now])[1] = now


def measure(name: str, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    weights = saved(name, folder / "weights")
    side = 256 if name == "tiny" else 1024
    tiles, clock = make_tiles(folder, given.tiles, side), Clock()
    options = TuneOptions(epochs=given.epochs, patience=given.epochs, batch=given.batch)
    begun = time.perf_counter()
    finetune(tiles, ModelOptions(name=str(weights), device=given.device), folder / "run", options, progress=clock)
    seconds = time.perf_counter() - begun
    rows = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    return {
        "model": name, "device": given.device, "images": given.tiles, "epochs": len(rows), "batch": given.batch,
        "seconds": round(seconds, 1), "minutes": round(seconds / 60, 2),
        "until_encoded_s": round(clock.times["tiles encoded"][1] - begun, 1),
        "epoch_s": round(median(row["seconds"] for row in rows), 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["sam-vit-base", "sam-vit-huge"], choices=SIZES)
    parser.add_argument("--tiles", type=int, default=1111)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    for name in given.models:
        with tempfile.TemporaryDirectory(prefix="geosam-tune-") as folder:
            print(json.dumps(measure(name, given, Path(folder))), flush=True)


if __name__ == "__main__":
    main()

"""Seconds an epoch of decoder tuning, with kept embeddings and with the encoder run again each time, in one run.

    .venv/bin/python benchmarks/finetune_cache.py --model sam-vit-base --tiles 8
    .venv/bin/python benchmarks/finetune_cache.py --model sam-vit-base --tiles 8 --epoch-tiles 64 --batch 64 --no-again
    .venv/bin/python benchmarks/finetune_cache.py --model river-tiny --tiles 32
    .venv/bin/python benchmarks/finetune_cache.py --model tiny --tiles 4          a rehearsal

A SAM by name gets random weights of that size, so that no download is needed: the time is the same. Every figure is
given twice, by the clock and in CPU seconds of all threads; the second counts no other work of the machine.
``--epoch-tiles 64`` makes an epoch of 64 tiles out of the few that are encoded, which costs the same.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from random_sam import SIZES, saved
from tune_time import make_tiles

from geosam.datasets import open_labelled
from geosam.finetune import TuneOptions
from geosam.finetune.kept import encoded
from geosam.finetune.ranks import Ranks
from geosam.finetune.store import cut
from geosam.finetune.tune import Tuner
from geosam.models import load_model
from geosam.options import ModelOptions

EPOCHS = 3
"""Measured, after one that warms up; the median is told."""


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    name = str(saved(given.model, folder / given.model)) if given.model in SIZES else given.model
    model: Any = load_model(ModelOptions(name=name, device=given.device))
    data = open_labelled(make_tiles(folder, given.tiles, model.tile_px))
    options = TuneOptions(batch=given.batch, views=1)
    tuner = Tuner(data, model, name, options, folder, Ranks.join(given.device), folder / "kept")
    encoding = seconds(lambda: tuner._open(lambda stage, done, total: None))
    fill(tuner, given.epoch_tiles)
    kept = [seconds(lambda: epoch(tuner)) for _ in range(EPOCHS + 1)][1:]
    wall, cpu = (median(one[which] for one in kept) for which in (0, 1))
    told = {
        "model": given.model, "device": given.device, "tiles": len(tuner.train_numbers), "batch": given.batch,
        "encoding": told_of(*encoding), "epoch_kept": told_of(wall, cpu),
        "epochs_an_hour": {"wall": round(3600 / wall, 1), "cpu": round(3600 / cpu, 1)},
    }  # fmt: skip
    if given.again:
        again = encoder_again(tuner, data)
        told |= {"epoch_encoding_again": told_of(*again)}
        told |= {"ratio": {"wall": round(again[0] / wall, 1), "cpu": round(again[1] / cpu, 1)}}
    return told


def seconds(work: Any) -> tuple[float, float]:
    """By the clock, and of the CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def told_of(wall: float, cpu: float) -> dict[str, float]:
    return {"wall": round(wall, 2), "cpu": round(cpu, 2)}


def fill(tuner: Tuner, count: int | None) -> None:
    """The training tiles, over and over until there are so many."""
    numbers = tuner.store.of_split("train")
    tuner.train_numbers = numbers if count is None else [numbers[n % len(numbers)] for n in range(count)]
    tuner.weights = [1.0] * len(tuner.train_numbers)


def encoder_again(tuner: Tuner, data: Any) -> tuple[float, float]:
    """An epoch that encodes every tile when it is learned from."""
    images = {n: torch.from_numpy(pixels(data, tuner, n)) for n in set(tuner.train_numbers)}
    tuner.store.tensors = lambda numbers, views: encoded(  # type: ignore[method-assign]
        tuner.model, torch.stack([images[n] for n in numbers])
    )
    return seconds(lambda: epoch(tuner))


def pixels(data: Any, tuner: Tuner, n: int) -> Any:
    chip = tuner.store.chips[n]
    return cut(*data.splits[chip.split][chip.tile].read(), chip.row, chip.col, tuner.model.tile_px)[0]


def epoch(tuner: Tuner) -> None:
    for step in range(tuner.steps_an_epoch):
        tuner._step(step)
    tuner.epoch += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sam-vit-base", help=f"{', '.join(SIZES)}, or any other that --model takes")
    parser.add_argument("--tiles", type=int, default=8, help="that are made and encoded; a sixth is for validation")
    parser.add_argument("--epoch-tiles", type=int, help="tiles of an epoch, if not those")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--again", action=argparse.BooleanOptionalAction, default=True, help="also run the encoder again"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="geosam-finetune-") as folder:
        print(json.dumps(measure(given, Path(folder)), indent=1))


if __name__ == "__main__":
    main()

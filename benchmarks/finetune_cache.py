"""Seconds an epoch of decoder tuning, with kept embeddings and with the encoder run again each time, in one run.

    .venv/bin/python benchmarks/finetune_cache.py --model sam-vit-base --tiles 8
    .venv/bin/python benchmarks/finetune_cache.py --model river-tiny --tiles 32

A SAM by name gets random weights of that size, so that no download is needed: the time is the same. With a GPU,
``--tiles 1111 --batch 64`` gives the time of the Elwha set; multiply the epoch by fifty.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from geosam import synth
from geosam.datasets import open_labelled
from geosam.finetune import TuneOptions
from geosam.finetune.ranks import Ranks
from geosam.finetune.tune import Tuner
from geosam.models import load_model
from geosam.options import ModelOptions

SIZES = {
    "sam-vit-base": {},
    "sam-vit-large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
                      "global_attn_indexes": [5, 11, 17, 23]},
    "sam-vit-huge": {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16,
                     "global_attn_indexes": [7, 15, 23, 31]},
}  # fmt: skip
"""After the published configurations of facebook/sam-vit-*."""


def random_sam(name: str, folder: Path) -> Path:
    """A SAM of a published size with random weights."""
    from transformers import SamConfig, SamModel, SamVisionConfig

    vision = SamVisionConfig(**SIZES[name], initializer_range=0.02).to_dict()
    SamModel(SamConfig(vision_config=vision)).save_pretrained(folder / name)
    return folder / name


def make_tiles(folder: Path, count: int, side: int) -> Path:
    for kind in ("images", "masks"):
        (folder / "tiles" / kind).mkdir(parents=True)
    for n in range(count):  # Few pictures, many names: only time is measured.
        tile = synth.make_tile(n % 6, size_px=side)
        Image.fromarray(tile.rgb).save(folder / "tiles" / "images" / f"{n:05}.png", compress_level=1)
        Image.fromarray(tile.water.astype(np.uint8) * 255).save(folder / "tiles" / "masks" / f"{n:05}.png")
    return folder / "tiles"


def measure(name: str, tiles: int, batch: int, folder: Path, device: str) -> dict[str, Any]:
    model: Any = load_model(ModelOptions(name=str(random_sam(name, folder)) if name in SIZES else name, device=device))
    data = open_labelled(make_tiles(folder, tiles, model.tile_px))
    tuner = Tuner(data, model, name, TuneOptions(batch=batch), folder, Ranks.join(device), folder / "kept")
    begun = time.perf_counter()
    tuner._open(lambda stage, done, total: None)
    encoding = time.perf_counter() - begun
    tuner.train_numbers = tuner.store.of_split("train")
    kept = [epoch(tuner) for _ in range(4)][1:]  # The first warms up.
    images = {n: torch.from_numpy(pixels(data, tuner, n)) for n in tuner.train_numbers}
    tuner.store.tensors = lambda numbers, views: model.pack(  # type: ignore[method-assign]
        model.embed(torch.stack([images[n] for n in numbers]))
    )
    again = epoch(tuner)
    count = len(tuner.train_numbers)
    return {
        "model": name, "device": device, "tiles": count, "batch": batch, "encoding_s": round(encoding, 1),
        "epoch_kept_s": round(float(np.median(kept)), 2), "epoch_encoding_again_s": round(again, 2),
        "ratio": round(again / float(np.median(kept)), 1),
        "epochs_an_hour": round(3600 / float(np.median(kept)), 1),
        "fifty_epochs_s": round(encoding + 50 * float(np.median(kept)), 1),
    }  # fmt: skip


def pixels(data: Any, tuner: Tuner, n: int) -> Any:
    from geosam.finetune.store import cut

    chip = tuner.store.chips[n]
    return cut(*data.splits[chip.split][chip.tile].read(), chip.row, chip.col, tuner.model.tile_px)[0]


def epoch(tuner: Tuner) -> float:
    begun = time.perf_counter()
    for step in range(tuner.steps_an_epoch):
        tuner._step(step)
    tuner.epoch += 1
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="sam-vit-base")
    parser.add_argument("--tiles", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="geosam-finetune-") as folder:
        print(json.dumps(measure(given.model, given.tiles, given.batch, Path(folder), given.device)))


if __name__ == "__main__":
    main()

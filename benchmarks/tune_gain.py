"""What decoder tuning brings on images of a place that the model was not tuned on: scores before and after.

    .venv/bin/python benchmarks/tune_gain.py --sets configs/evaluate/dev.toml --set "naip east, RGB" --columns 0 0.5
    .venv/bin/python benchmarks/tune_gain.py --set ucayali --hold-out 4

The first learns from the left halves of the scenes that are scored on their right halves; the second learns from all
but the last four images of a set and is scored on those. The data lie under the environment variable GEOSAM_DATA.
Scores are those of ``geosam evaluate``: end to end with automatic prompts, oracle prompts and none.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from geosam.evaluate import DataSet, evaluate_model, load_list
from geosam.finetune import TuneOptions, finetune
from geosam.models import load_model
from geosam.options import ModelOptions, SegmentOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="river-tiny")
    parser.add_argument("--sets", default="configs/evaluate/dev.toml")
    parser.add_argument("--set", required=True, help="name of the set that is scored")
    parser.add_argument("--columns", type=float, nargs=2, help="part of each image's width to learn from")
    parser.add_argument("--hold-out", type=int, help="learn from all images but the last so many")
    parser.add_argument("--data-root", default=os.environ.get("GEOSAM_DATA", "."))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="geosam-gain-") as folder:
        print(json.dumps(gain(asked, Path(folder)), indent=1))


def gain(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    scored = next(dataset for dataset in load_list(asked.sets) if dataset.title == asked.set)
    learned, scored = parts(scored, asked)
    write_tiles(learned, asked, folder / "tiles")
    options = TuneOptions.of(
        {"epochs": asked.epochs, "views": asked.views, "batch": 8, "learning_rate": asked.learning_rate}
    )
    tuned = finetune(folder / "tiles", asked.model, folder / "run", options)
    rows: dict[str, Any] = {"tiles": options.model_dump(mode="json"), "report": tuned.report()}
    for when, name in (("before", asked.model), ("after", str(tuned.folder))):
        settings = SegmentOptions(model=ModelOptions(name=name))
        result = evaluate_model(scored, load_model(settings.model), settings, root=asked.data_root)
        rows[when] = {row: round(numbers["iou_mean"], 3) for row, numbers in result.rows.items()}
    return rows


class Part:
    """Some images of a set, by their numbers."""

    def __init__(self, whole: DataSet, numbers: range) -> None:
        self.whole, self.numbers, self.title, self.read = whole, numbers, whole.title, whole.read

    def open(self, root: Any = None, warn: Any = None) -> list[Any]:
        items = self.whole.open(root)
        return [items[n] for n in self.numbers]


def parts(dataset: DataSet, asked: argparse.Namespace) -> tuple[Any, Any]:
    """What is learned from and what is scored; they share no pixel."""
    if asked.columns:
        return dataset.model_copy(update={"columns": tuple(asked.columns)}), dataset
    count = len(dataset.open(asked.data_root))
    return Part(dataset, range(count - asked.hold_out)), Part(dataset, range(count - asked.hold_out, count))


def write_tiles(dataset: Any, asked: argparse.Namespace, folder: Path) -> None:
    """The set's images as paired files, so that tuning reads them like any user's."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for item in dataset.open(asked.data_root):
        sample = dataset.read(item)
        Image.fromarray(sample.rgb).save(folder / "images" / f"{sample.name}.png")
        Image.fromarray(np.asarray(sample.label)).save(folder / "masks" / f"{sample.name}.png")


if __name__ == "__main__":
    main()

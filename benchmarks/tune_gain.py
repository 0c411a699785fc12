"""What decoder tuning brings on images of a place that the model was not tuned on: scores before and after.

    GEOSAM_DATA=DATA .venv/bin/python benchmarks/tune_gain.py                          both domains, one after the other
    GEOSAM_DATA=DATA .venv/bin/python benchmarks/tune_gain.py --domains ucayali --bands 3 4 4
    GEOSAM_DATA=DATA .venv/bin/python benchmarks/tune_gain.py --domains naip --learning-rate 2e-4 --views 2

- **naip**: learned from the west halves of seven scenes, scored on the east halves, red, green and blue alone.
  River-tiny has seen the west halves before, in its own training.
- **ucayali**: learned from the first four of eight Landsat scenes of one reach, scored on the last four, later years of
  the same place. River-tiny has seen none. There is no blue: near infrared, red and green stand for the three
  colours, or what ``--bands`` says (of SWIR, near infrared, red and green, from 1).

Options that are left out are those that suit the model. Scores are those of ``geosam evaluate``: end to end with
automatic prompts, oracle prompts and none. Seconds are CPU seconds of all threads, so that other work does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from geosam.evaluate import DataSet, evaluate_model, load_list
from geosam.finetune import TuneOptions, finetune
from geosam.models import load_model
from geosam.options import ModelOptions, SegmentOptions

SETS = Path(__file__).parent.parent / "configs" / "evaluate" / "dev.toml"


@dataclass(frozen=True)
class Domain:
    """A set of the list, and the part of it that is learned from."""

    title: str
    columns: tuple[float, float] | None = None
    """Of every image; the set's own columns are scored."""
    hold_out: int = 0
    """How many of the last images are scored; the others are learned from."""
    bands: tuple[int, int, int] | None = None


DOMAINS = {
    "naip": Domain("naip east, RGB", columns=(0.0, 0.5)),
    "ucayali": Domain("ucayali", hold_out=4, bands=(2, 3, 4)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domains", nargs="+", choices=DOMAINS, default=list(DOMAINS))
    parser.add_argument("--model", default="river-tiny")
    parser.add_argument("--bands", type=int, nargs=3, help="of ucayali: what stands for red, green and blue")
    parser.add_argument("--data-root", default=os.environ.get("GEOSAM_DATA"), help="default: GEOSAM_DATA")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--views", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--train")
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    if not asked.data_root:
        parser.error("the data are not in the project: set GEOSAM_DATA to their folder, or give --data-root.")
    for name in asked.domains:
        with tempfile.TemporaryDirectory(prefix="geosam-gain-") as folder:
            print(json.dumps({"domain": name, **gain(name, asked, Path(folder))}, indent=1), flush=True)


def gain(name: str, asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    learned, scored = parts(DOMAINS[name], asked)
    write_tiles(learned, asked.data_root, folder / "tiles")
    given = {key: getattr(asked, key) for key in ("epochs", "views", "learning_rate", "train")}
    options = TuneOptions.of({key: value for key, value in given.items() if value is not None})
    before = scores(scored, asked.model, asked)
    begun = time.process_time()
    tuned = finetune(folder / "tiles", ModelOptions(name=asked.model, device=asked.device), folder / "run", options)
    spent = round(time.process_time() - begun)
    after = scores(scored, str(tuned.folder), asked)
    return {"report": tuned.report(), "cpu_seconds": spent, "before": before, "after": after}


def scores(scored: Any, model: str, asked: argparse.Namespace) -> dict[str, float]:
    """Mean IoU of every row, on images that the tuning never saw."""
    settings = SegmentOptions(model=ModelOptions(name=model, device=asked.device))
    result = evaluate_model(scored, load_model(settings.model), settings, root=asked.data_root)
    return {row: round(numbers["iou_mean"], 3) for row, numbers in result.rows.items()}


class Part:
    """Some images of a set, by their numbers."""

    def __init__(self, whole: DataSet, numbers: range) -> None:
        self.whole, self.numbers, self.title, self.read = whole, numbers, whole.title, whole.read

    def open(self, root: Any = None, warn: Any = None) -> list[Any]:
        items = self.whole.open(root)
        return [items[n] for n in self.numbers]


def parts(domain: Domain, asked: argparse.Namespace) -> tuple[Any, Any]:
    """What is learned from and what is scored; they share no pixel."""
    dataset = next(dataset for dataset in load_list(SETS) if dataset.title == domain.title)
    bands = tuple(asked.bands) if asked.bands and domain.bands else domain.bands
    dataset = dataset.model_copy(update={"bands": bands}) if bands else dataset
    if domain.columns:
        return dataset.model_copy(update={"columns": domain.columns}), dataset
    count = len(dataset.open(asked.data_root))
    return Part(dataset, range(count - domain.hold_out)), Part(dataset, range(count - domain.hold_out, count))


def write_tiles(dataset: Any, root: str, folder: Path) -> None:
    """The set's images as paired files, so that tuning reads them like any user's."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for item in dataset.open(root):
        sample = dataset.read(item)
        Image.fromarray(sample.rgb).save(folder / "images" / f"{sample.name}.png")
        Image.fromarray(np.asarray(sample.label)).save(folder / "masks" / f"{sample.name}.png")


if __name__ == "__main__":
    main()

"""Which first guess suits scenes that are larger than a tile: the colour rule, the model's own look, or none.

    python benchmarks/first_guess.py --limit 25 --thresholds 0.2
    python benchmarks/first_guess.py --only obx --guesses rgb learned

The images of a data set lie side by side in one scene, so that a rule is fitted to many places at once and whole tiles
are left out where it sees no water. RGB only. IoU is that of the whole scene where the label is known.
The data lie under GEOSAM_DATA; none of them was trained on.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from geosam.errors import DatasetError
from geosam.evaluate import DataSet, load_list
from geosam.evaluate.samples import DRY, IGNORE, WATER, Sample
from geosam.models import load_model
from geosam.options import SegmentOptions
from geosam.pipeline import segment

GUESSES: dict[str, dict[str, Any]] = {
    "rgb": {"coarse": {"method": "rgb"}},
    "learned": {"coarse": {"method": "learned"}},
    "none": {"prompts": {"which": "none"}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="river-tiny", help="name, folder or weights file")
    parser.add_argument("--sets", default="configs/evaluate/dev.toml", help="list of data sets")
    parser.add_argument("--only", help="only sets whose name holds this")
    parser.add_argument("--guesses", nargs="+", choices=GUESSES, default=list(GUESSES))
    parser.add_argument("--limit", type=int, default=36, help="at most so many images a set")
    parser.add_argument("--thresholds", type=float, nargs="*", default=[], help="of the learned guess, besides its own")
    asked = parser.parse_args()
    model = load_model(SegmentOptions.from_mapping({"model": {"name": asked.model}}).model)
    print("| scene | size, px | guess | IoU | false water | tiles run, of all | CPU s |\n" + "|---" * 7 + "|")
    for dataset in load_list(asked.sets):
        if asked.only and asked.only not in dataset.title:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                scene, label = laid_out(dataset, asked.limit, Path(folder))
            except DatasetError as error:
                print(f"left out: {error}")
                continue
            ways = [(name, GUESSES[name]) for name in asked.guesses]
            ways += [(f"learned {at:g}", {"coarse": {"method": "learned", "threshold": at}}) for at in asked.thresholds]
            for name, table in ways:
                print(line(dataset.title, scene, label, name, table, model), flush=True)


def laid_out(dataset: DataSet, limit: int, folder: Path) -> tuple[Path, NDArray[np.uint8]]:
    """A scene of a set's images in rows, and its label; what lies between images of other sizes is not known."""
    items = dataset.open(os.environ.get("GEOSAM_DATA", "."))
    items = items[:: -(-len(items) // limit)]
    samples = [dataset.read(item) for item in items]
    across = int(np.ceil(np.sqrt(len(samples))))
    rows = [in_a_row(samples[at : at + across]) for at in range(0, len(samples), across)]
    width = max(row[1].shape[1] for row in rows)
    rgb, label = (np.concatenate([widened(row[n], width, fill) for row in rows]) for n, fill in ((0, 0), (1, IGNORE)))
    path, side = folder / "scene.tif", samples[0].gsd_m or 1.0
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=label.shape[0], width=width, dtype="uint8", crs="EPSG:32633",
        transform=from_origin(5e5, 5e6, side, side), tiled=True, photometric="rgb", nodata=0,
    ) as raster:  # fmt: skip
        raster.write(np.moveaxis(rgb, -1, 0))
    return path, label


def in_a_row(samples: list[Sample]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images side by side, and their labels; 0 is no data, so black is made 1."""
    height = max(sample.label.shape[0] for sample in samples)
    rgb = [tall(np.maximum(sample.rgb, 1), height, 0) for sample in samples]
    return np.concatenate(rgb, 1), np.concatenate([tall(sample.label, height, IGNORE) for sample in samples], 1)


def tall(image: NDArray[np.uint8], height: int, fill: int) -> NDArray[np.uint8]:
    over = [(0, height - image.shape[0]), *[(0, 0)] * (image.ndim - 1)]
    return np.pad(image, over, constant_values=fill)


def widened(image: NDArray[np.uint8], width: int, fill: int) -> NDArray[np.uint8]:
    over = [(0, 0), (0, width - image.shape[1]), *[(0, 0)] * (image.ndim - 2)]
    return np.pad(image, over, constant_values=fill)


def line(title: str, scene: Path, label: NDArray[np.uint8], name: str, table: dict[str, Any], model: Any) -> str:
    """One run as a row of the table."""
    options = SegmentOptions.from_mapping({"scene": {"gsd": "native"}, **table})
    mask = scene.with_name("mask.tif")
    started = time.process_time()
    report = segment(scene, options, mask=mask, model=model, overwrite=True).report
    spent = time.process_time() - started
    with rasterio.open(mask) as raster:
        found = raster.read(1) == 1
    wet, dry = label == WATER, label == DRY
    iou = (found & wet).sum() / max((found & (wet | dry) | wet).sum(), 1)
    tiles, shape = report["tiles"], f"{label.shape[1]} x {label.shape[0]}"
    false = (found & dry).sum() / max(dry.sum(), 1)
    ran = f"{tiles['run']} of {tiles['total'] - tiles['nodata']}"
    return f"| {title} | {shape} | {name} | {iou:.3f} | {false:.3f} | {ran} | {spent:.1f} |"


if __name__ == "__main__":
    main()

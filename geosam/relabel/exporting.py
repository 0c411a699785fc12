"""From a corrected queue to a data set that a model is tuned on, and who made each mask."""

from __future__ import annotations

import csv
import datetime
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rasterio.windows import Window

from geosam.datasets import DRY, IGNORE, WATER
from geosam.errors import DatasetError, OptionsError, OutputError
from geosam.relabel.grids import open_scene, water_of
from geosam.relabel.queue import Queue, is_by_a_person, read_queue
from geosam.relabel.styles import ACCEPTED, CORRECTED
from geosam.scene import Scene

Progress = Callable[[str, int, int], None]

CHIP_PX = 1024
COLUMNS = ("file", "group", "split", "weight", "source", "date", "scene", "confidence")


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    tiles: int
    by: dict[str, int] = field(default_factory=dict)
    """Scenes by who made their masks: ``person`` and ``model``."""
    left: dict[str, int] = field(default_factory=dict)
    """Scenes that were left out, by status."""


def export(
    queue: str | Path,
    out: str | Path,
    *,
    person: str = "person",
    split: str = "",
    chip_px: int = CHIP_PX,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Write the accepted and the corrected scenes of a queue as a data set for ``geosam finetune``.

    Masks are 255 water, 0 dry, 128 where the scene has no data. ``index.csv`` has a row a tile: group is the scene,
    weight is 1 for a person's masks and the confidence for the model's, source says who made the mask, date when.

    Args:
        queue: As :func:`~geosam.relabel.predict` wrote it and a person left it.
        out: Folder to make: ``images/``, ``masks/`` and ``index.csv``.
        person: Who corrected, where the queue does not say in ``person``.
        split: Of all tiles; empty: finetune splits them by scene.
        chip_px: Scenes are cut into tiles of at most this side.
        overwrite: Replace the folder if it is such a data set.
        progress: Told the scenes done and all scenes.

    Raises:
        DatasetError: The queue cannot be used, or nothing in it is accepted or corrected.
        OptionsError: The chips are too small.
        OutputError: The folder exists or cannot be written; nothing existing was touched.
    """
    out = Path(out)
    if chip_px < 32:
        raise OptionsError(f"--chip is a side of at least 32 pixels, got {chip_px}.")
    _check_folder(out, overwrite)
    read = read_queue(queue)
    tell = progress or (lambda stage, done, total: None)
    wanted = read.scenes[read.scenes["status"].isin([ACCEPTED, CORRECTED])]
    if len(wanted) == 0:
        raise DatasetError(
            f"{queue} has nothing to learn from: no scene of {len(read.scenes)} is accepted or corrected. "
            "Correct some in QGIS and set their status, or predict with a lower --accept-above."
        )
    rows: list[dict[str, Any]] = []
    by: Counter[str] = Counter()
    with _whole_folder(out) as folder:
        for name in ("images", "masks"):
            (folder / name).mkdir()
        for done, row in enumerate(wanted.itertuples()):
            tell("scenes", done, len(wanted))
            facts = _written(read, row, folder, person, split, chip_px)
            rows += facts
            by["person" if facts[0]["by_person"] else "model"] += 1
        _write_index(folder / "index.csv", rows)
    tell("scenes", len(wanted), len(wanted))
    left = read.scenes["status"][~read.scenes["status"].isin([ACCEPTED, CORRECTED])].value_counts()
    return Exported(out, len(rows), dict(by), {str(status): int(count) for status, count in left.items()})


def _written(queue: Queue, row: Any, folder: Path, person: str, split: str, chip_px: int) -> list[dict[str, Any]]:
    """Write the tiles of a scene; their rows of the index."""
    scene = open_scene(queue, row)
    water = water_of(queue, "water", row, scene)
    # Polygons that a person moved and forgot to say so are a person's.
    edited = is_by_a_person(row.status) or bool((water != water_of(queue, "predicted", row, scene)).any())
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    common = {
        "group": row.scene,
        "split": split,
        "weight": 1.0 if edited else round(float(row.confidence), 4),
        "source": (row.person or person) if edited else f"{row.model} {row.model_sha256}",
        "date": (row.edited or today) if edited else row.predicted,
        "scene": row.scene,
        "confidence": round(float(row.confidence), 4),
        "by_person": edited,
    }
    rows = []
    for name, image, mask in _tiles(scene, water, row.scene, chip_px):
        Image.fromarray(image).save(folder / "images" / name)
        Image.fromarray(mask).save(folder / "masks" / name)
        rows.append({"file": name, **common})
    if not rows:
        raise DatasetError(f"{queue.path}: the scene {row.scene} has no valid pixel. Set its status to rejected.")
    return rows


def _tiles(
    scene: Scene, water: NDArray[np.bool_], name: str, chip_px: int
) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
    """Tiles with data: file name, image uint8 (h, w, 3) and mask uint8 (h, w)."""
    height, width = scene.shape
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
    many = height > chip_px or width > chip_px
    for row in range(0, height, chip_px):
        for col in range(0, width, chip_px):
            window = Window(col, row, min(chip_px, width - col), min(chip_px, height - row))
            image, valid = scene.read_rgb(window)
            wet = water[row : row + chip_px, col : col + chip_px]
            mask = np.where(valid, np.where(wet, WATER, DRY), IGNORE).astype(np.uint8)
            if valid.any():
                yield f"{safe}_{row}_{col}.png" if many else f"{safe}.png", image, mask


def _write_index(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


# The folder -----------------------------------------------------------------------------------------------------------


def _check_folder(out: Path, overwrite: bool) -> None:
    if not out.parent.is_dir():
        raise OutputError(f"the folder {out.parent} does not exist. Make it, or choose another --out.")
    if out.is_file():
        raise OutputError(f"{out} is a file. Give --out a folder.")
    if out.exists() and any(out.iterdir()):
        if not overwrite:
            raise OutputError(f"{out} exists already. Give --overwrite to replace it, or choose another --out.")
        if not (out / "index.csv").is_file() or not (out / "images").is_dir():
            raise OutputError(f"{out} holds something else than a data set. Choose another --out.")


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which appears under its own name when it is whole and not at all otherwise."""
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    old = part / "old"
    try:
        new = part / "new"
        new.mkdir()
        yield new
        if out.exists():
            out.rename(old)
        new.rename(out)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}. Nothing was left behind.") from error
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        shutil.rmtree(part, ignore_errors=True)

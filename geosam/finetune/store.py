"""Tiles as training reads them: cut, encoded once and kept on disk in half precision.

The frozen encoder is nine tenths of the work. It runs once a tile (and once a view, where views
are turned and mirrored), so that an epoch costs the decoder alone. Where the encoder learns too,
the pixels are kept instead.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geosam.coarse import guess_water
from geosam.datasets import LabelledData, Tile, UnreadableError
from geosam.errors import DatasetError, OutputError
from geosam.finetune.kept import encoded
from geosam.finetune.memory import in_parts
from geosam.finetune.ranks import Ranks
from geosam.predict.views import turned
from geosam.prompts import Prompts

UInt8 = NDArray[np.uint8]
Progress = Callable[[int, int], None]

VERSION = 3
"""Of the layout on disk and of the way tiles are cut: a new one makes old caches be built again."""
_SPARE_BYTES = 200 * 2**20
_MOST_BAD = 0.05
_WHAT = "signature.json"
"""Says what lies in the folder; while a cache is made, only which files."""
_AHEAD = 5
"""Batches whose images are cut while one is encoded: the first guess of a tile of 1024 px takes longer than that."""


@dataclass(frozen=True)
class Chip:
    """One tile of the model's size, cut from a labelled image.

    Attributes:
        tile: Number of the image in its split.
        split: "train", "validation" or "test".
        row, col: Its upper left corner in the image, pixels.
    """

    tile: int
    split: str
    row: int
    col: int


def corners(length: int, side: int) -> list[int]:
    """Where tiles of a side begin along an axis: end to end, the last one flush with the end."""
    count = max(-(-length // side), 1)
    return [min(n * side, max(length - side, 0)) for n in range(count)]


def cut(image: UInt8, label: UInt8, row: int, col: int, side: int) -> tuple[UInt8, UInt8]:
    """One chip, image (3, side, side) and label (side, side); beyond the image it is mirrored and not known."""
    picture, truth = image[row : row + side, col : col + side], label[row : row + side, col : col + side]
    missing = ((0, side - truth.shape[0]), (0, side - truth.shape[1]))
    if missing != ((0, 0), (0, 0)):  # As prediction fills up a scene smaller than a tile.
        picture = np.pad(picture, (*missing, (0, 0)), mode="symmetric")
        truth = np.pad(truth, missing, constant_values=128)
    return np.ascontiguousarray(picture.transpose(2, 0, 1)), np.ascontiguousarray(truth)


class Store:
    """Chips on disk: what the model makes of them, their labels, their coarse masks.

    Attributes:
        chips: What is kept, in the order of the arrays.
        arrays: Named arrays (chips, views, ...), memory-mapped: float16 embeddings, or uint8 ``pixels``.
        labels: uint8 (chips, S, S).
        reused: Whether it was there already.
        notes: Why it had to be made again, and the images that were left out.
    """

    def __init__(self, folder: Path, kept: dict[str, Any], views: int, reused: bool, notes: Sequence[str]) -> None:
        self.folder, self.views, self.reused, self.notes = folder, views, reused, list(notes)
        self.chips = tuple(Chip(**chip) for chip in kept["chips"])
        loaded = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in kept["arrays"]}
        self.labels: NDArray[np.uint8] = loaded.pop("labels")
        self._guesses: NDArray[np.uint8] = loaded.pop("guesses")
        self.arrays: dict[str, NDArray[Any]] = loaded
        self._made: dict[str, Prompts] = {}

    def of_split(self, split: str) -> list[int]:
        """Numbers of the chips of a split."""
        return [n for n, chip in enumerate(self.chips) if chip.split == split]

    def guess(self, n: int) -> NDArray[np.bool_]:
        """The coarse mask of a chip, bool (S, S)."""
        side = self.labels.shape[1]
        return np.unpackbits(self._guesses[n], count=side * side).reshape(side, side).astype(bool)

    def once(self, key: str, make: Callable[[], Prompts]) -> Prompts:
        """Prompts that are the same in every epoch; on a tile of 1024 px they take 60 ms."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def tensors(self, numbers: Sequence[int], views: Sequence[int]) -> dict[str, Tensor]:
        """The arrays of some chips, each seen in its own view, (len(numbers), ...)."""
        if "pixels" in self.arrays:
            pixels = [turned(self.arrays["pixels"][n, 0], view) for n, view in zip(numbers, views, strict=True)]
            return {"pixels": torch.from_numpy(np.stack(pixels))}
        picked = {
            name: np.stack([kept[n, view] for n, view in zip(numbers, views, strict=True)])
            for name, kept in self.arrays.items()
        }
        return {name: torch.from_numpy(values) for name, values in picked.items()}


def drawn(numbers: Sequence[int], weights: Sequence[float], rng: np.random.Generator) -> NDArray[np.int64]:
    """The chips of an epoch in random order, as many as there are, each as often as its weight wants.

    Evenly spread over the weights rather than drawn one by one: equal weights give every chip once, and a weight of
    two gives it twice.

    Args:
        numbers: Of the chips.
        weights: Of each, above or equal to 0, not all 0.
        rng: Draws the order, and which of the chips that are due a half are taken.

    Returns:
        int64 (len(numbers),).
    """
    order = rng.permutation(numbers)
    if len(set(weights)) == 1:
        return order
    of = dict(zip(numbers, weights, strict=True))
    ends = np.cumsum([of[int(number)] for number in order])
    at = (np.arange(len(order)) + rng.random()) * (ends[-1] / len(order))
    return np.asarray(rng.permutation(order[np.searchsorted(ends, at, side="right")]))


def open_store(
    data: LabelledData,
    model: Any,
    folder: Path,
    *,
    views: int,
    pixels: bool,
    ranks: Ranks,
    batch: int = 4,
    progress: Progress | None = None,
) -> Store:
    """Find the chips of a data set on disk, or make them.

    Args:
        data: Labelled tiles.
        model: An adapter that embeds, packs and unpacks.
        folder: Where they are kept; made if missing.
        views: 1, 2, 4 or 8 views of each chip.
        pixels: Keep the pixels, for an encoder that learns, instead of embeddings.
        ranks: The processes that share the work.
        batch: Tiles encoded at once.
        progress: Called with chips done and chips in all.

    Raises:
        DatasetError: More than one image in twenty cannot be read, or there is nothing to learn from.
        OutputError: The disk has no room for it.
    """
    signature = _signature(data, model, views, pixels)
    kept = _kept(folder / _WHAT)
    other = "signature" in kept  # Without one it is what a run left that was killed while it made it.
    note = f"the cache in {folder} is of other data, another model or other views: made again" if other else ""
    if kept.get("signature") == signature:
        try:
            return Store(folder, kept, views, True, kept["bad"])
        except (OSError, ValueError):  # A file is gone, or shorter than its header says.
            note = f"the cache in {folder} is damaged: made again"
    builder = _Builder(data, model, folder, 1 if pixels else views, pixels, ranks)
    ranks.wait()  # Nobody writes before everybody has looked.
    builder.build(batch, progress or (lambda done, total: None))
    made = {"arrays": builder.names, "chips": [vars(chip) for chip in builder.chips], "bad": builder.bad}
    if ranks.rank == 0:
        _write_json(folder / _WHAT, {"signature": signature, **made})
    ranks.wait()
    return Store(folder, made, views, False, [*([note] if note else []), *builder.bad])


class _Builder:
    """Cuts and encodes, each process its share."""

    def __init__(self, data: LabelledData, model: Any, folder: Path, views: int, pixels: bool, ranks: Ranks) -> None:
        self.data, self.model, self.folder, self.views, self.pixels, self.ranks = (
            data, model, folder, views, pixels, ranks)  # fmt: skip
        self.side = int(model.tile_px)
        self.chips = self._chips()

    def _chips(self) -> list[Chip]:
        """Every chip of every image that can be read."""
        listed = [
            (split, number, tile) for split, tiles in self.data.splits.items() for number, tile in enumerate(tiles)
        ]
        chips, bad = [], []
        with ThreadPoolExecutor(self.ranks.threads) as pool:
            for (split, number, _), found in zip(listed, pool.map(_shape, [tile for *_, tile in listed]), strict=True):
                if isinstance(found, str):
                    bad.append(found)
                    continue
                starts = [(r, c) for r in corners(found[0], self.side) for c in corners(found[1], self.side)]
                chips += [Chip(number, split, row, col) for row, col in starts]
        if len(bad) > _MOST_BAD * len(listed):
            raise DatasetError(f"{len(bad)} of {len(listed)} images cannot be used, more than 5 %. The first: {bad[0]}")
        count = f"{len(bad)} of {len(listed)} images are skipped"
        self.bad = [count, *(f"skipped: {fault}" for fault in bad)] if bad else []
        if not any(chip.split == "train" for chip in chips):
            raise DatasetError("the data have no image to train on. Give a data set with a split named train.")
        return chips

    def build(self, batch: int, progress: Progress) -> None:
        """Write all arrays."""
        if self.ranks.rank == 0:
            self._make_room()
        self.ranks.wait()
        self.names = list(_kept(self.folder / _WHAT)["arrays"])
        files = {name: np.load(self.folder / f"{name}.npy", mmap_mode="r+") for name in self.names}
        mine = range(self.ranks.rank, len(self.chips), self.ranks.world)
        done = 0
        with ThreadPoolExecutor(self.ranks.threads) as pool:
            for images in self._batches(pool, files, mine, batch):
                in_parts(list(images), batch, partial(self._encode, files, images))
                done += len(images)
                progress(done, len(mine))
        for array in files.values():
            array.flush()

    def _batches(
        self, pool: ThreadPoolExecutor, files: dict[str, NDArray[Any]], numbers: Sequence[int], batch: int
    ) -> Iterator[dict[int, UInt8]]:
        """Images by number, batch by batch; some more are cut ahead on other threads."""
        waiting: deque[dict[int, Future[UInt8]]] = deque()
        for start in range(0, len(numbers), batch):
            waiting.append({n: pool.submit(self._cut, files, n) for n in numbers[start : start + batch]})
            if len(waiting) > _AHEAD:
                yield {n: image.result() for n, image in waiting.popleft().items()}
        while waiting:
            yield {n: image.result() for n, image in waiting.popleft().items()}

    def _make_room(self) -> None:
        """Make the empty files, after asking the disk."""
        shapes = self._shapes()
        need = sum(int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in shapes.values())
        with _told_of(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._clear(shapes)
            free = shutil.disk_usage(self.folder).free
            if need + _SPARE_BYTES > free:
                raise OutputError(
                    f"the cache in {self.folder} needs {need / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free. "
                    "Give --cache a folder on a larger disk, or fewer --views."
                )
            _write_json(self.folder / _WHAT, {"arrays": list(shapes)})  # So that a run that is killed knows its own.
            for name, (shape, kind) in shapes.items():
                np.lib.format.open_memmap(self.folder / f"{name}.npy", mode="w+", dtype=kind, shape=shape)

    def _clear(self, names: Collection[str]) -> None:
        """Take out what an earlier cache left, and nothing else that lies there."""
        kept, old = _kept(self.folder / _WHAT), _files(self.folder)
        foreign = [path for name in names if (path := self.folder / f"{name}.npy") not in old and path.exists()]
        if foreign and (not kept or "arrays" in kept):  # An older version did not write the names down.
            raise OutputError(
                f"{foreign[0]} is there already, of no cache of geosam. Give --cache another or an empty folder."
            )
        for path in (*old, *foreign):
            path.unlink(missing_ok=True)

    def _shapes(self) -> dict[str, tuple[tuple[int, ...], str]]:
        count, side = len(self.chips), self.side
        shapes: dict[str, tuple[tuple[int, ...], str]] = {
            "labels": ((count, side, side), "uint8"),
            "guesses": ((count, -(-side * side // 8)), "uint8"),
        }
        if self.pixels:
            return {**shapes, "pixels": ((count, 1, 3, side, side), "uint8")}
        one = encoded(self.model, torch.zeros((1, 3, side, side), dtype=torch.uint8))
        return {**shapes, **{k: ((count, self.views, *v.shape[1:]), "float16") for k, v in one.items()}}

    def _cut(self, files: dict[str, NDArray[Any]], n: int) -> UInt8:
        """The image of a chip, uint8 (3, S, S); its label and its coarse mask are written."""
        chip = self.chips[n]
        image, label = cut(*self._tile(chip).read(), chip.row, chip.col, self.side)
        files["labels"][n] = label
        files["guesses"][n] = np.packbits(guess_water(image.transpose(1, 2, 0), np.ones(label.shape, bool)))
        return image

    def _encode(self, files: dict[str, NDArray[Any]], images: dict[int, UInt8], numbers: Sequence[int]) -> None:
        stack, places = np.stack([images[n] for n in numbers]), list(numbers)
        if self.pixels:
            files["pixels"][places, 0] = stack
            return
        for view in range(self.views):
            for name, values in encoded(self.model, torch.from_numpy(turned(stack, view))).items():
                files[name][places, view] = values.to(torch.float16).cpu().numpy()

    def _tile(self, chip: Chip) -> Tile:
        return self.data.splits[chip.split][chip.tile]


def _shape(tile: Tile) -> tuple[int, int] | str:
    """Height and width of an image, or what is wrong with its file; a wrong label is no accident, and raises."""
    try:
        image, _ = tile.read()
    except UnreadableError as error:
        return str(error)
    return image.shape[0], image.shape[1]


def _signature(data: LabelledData, model: Any, views: int, pixels: bool) -> str:
    encoder = [model.sha256, model.tile_px, str(model.dtype), getattr(model, "magnify", None)]
    parts = [VERSION, data.signature, *encoder, 1 if pixels else views, pixels]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _kept(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _files(folder: Path) -> list[Path]:
    """The files of the cache in a folder."""
    return [folder / _WHAT, *(folder / f"{name}.npy" for name in _kept(folder / _WHAT).get("arrays", ()))]


@contextmanager
def _told_of(folder: Path) -> Iterator[None]:
    """Whatever the system says against a cache in a folder, as one line; nothing half-made stays."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        for path in _files(folder):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()  # Only if it is empty.
        raise OutputError(
            f"the cache in {folder} cannot be written ({error.strerror or error}). Give --cache another folder."
        ) from None


def _write_json(path: Path, values: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(values), encoding="utf-8")
    part.replace(path)

"""Images and labels in files that belong together by their names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from geosam.datasets.folder import (
    Pair,
    check_all_labelled,
    dry_pairs,
    load_folder,
    pictures,
    read_index,
    shortened,
    split_and_group,
)
from geosam.datasets.listing import Listing, depth_warning, stamps, weight_of
from geosam.datasets.options import DataOptions
from geosam.datasets.pictures import IMAGE_SUFFIXES, Picture
from geosam.datasets.splits import split_folders, split_of
from geosam.datasets.tile import Tile
from geosam.errors import DatasetError

MASK_FOLDERS = ("masks", "labels")
_CITYSCAPES = ("leftImg8bit", "gtFine", "_leftImg8bit.png", "_gtFine_labelIds.png")


def masks_folder(folder: Path, options: DataOptions) -> Path | None:
    """The subfolder with the labels, or None if there is none."""
    names = MASK_FOLDERS if options.masks is None else (options.masks,)
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def list_paired(folder: Path, options: DataOptions) -> Listing:
    """Tiles of ``images/`` and ``masks/``, as they are or in a subfolder a split.

    Raises:
        DatasetError: Labels are missing.
    """
    inside = {split: path for split, path in split_folders(folder).items() if (path / options.images).is_dir()}
    if inside:
        listings = [_one_folder(path, folder, options, split) for split, path in inside.items()]
        return sum(listings[1:], listings[0])
    masks = _masks(folder, options)
    below = split_folders(folder / options.images)
    if not below or pictures(folder / options.images):
        return _one_folder(folder, folder, options, "")
    deeper = [
        options.model_copy(update={"images": f"{options.images}/{path.name}", "masks": f"{masks.name}/{path.name}"})
        for path in below.values()
    ]
    listings = [_one_folder(folder, folder, one, split) for one, split in zip(deeper, below, strict=True)]
    return sum(listings[1:], listings[0])


def list_suffixed(folder: Path, options: DataOptions) -> Listing:
    """Tiles whose images and labels have the same beginning of the name and ends of their own.

    They may lie in one folder or in any subfolders; a subfolder that is called as a split is one.

    Raises:
        DatasetError: None is found, two have one name, or an image has no label.
    """
    ends = [_end(options.image_suffix), _end(options.label_suffix)]
    if ends[0] == ends[1] == "":
        raise DatasetError("--image-suffix and --label-suffix are both empty; give ends that tell images from labels.")
    # An end may be the end of the other: "_rgb.png" beside ".png"
    images = _by_beginning(folder, ends[0], except_end=ends[1] if ends[1].endswith(ends[0]) else None)
    labels = _by_beginning(folder, ends[1], except_end=ends[0] if ends[0].endswith(ends[1]) else None)
    if not images:
        raise DatasetError(f"{folder} has no image whose name ends in {ends[0]}. Give another --image-suffix.")
    missing = [path.name for name, path in images.items() if name not in labels]
    check_all_labelled(missing, len(images), f"whose name ends in {ends[1]} under {folder}")
    index = read_index(folder / "index.csv")
    tiles = []
    for name, path in images.items():
        row = index.get(path.stem, index.get(name, {}))
        split, group = split_and_group(row)
        pair = Pair(path, labels[name], name, group, split or _split_in(path, folder), facts=row)
        tiles.append(_tile(pair, options))
    return _listing(tiles, folder)


def list_cityscapes(folder: Path, options: DataOptions) -> Listing:
    """Tiles laid out as Cityscapes: ``leftImg8bit/SPLIT/CITY/*`` and ``gtFine/SPLIT/CITY/*``; a city is a group.

    Raises:
        DatasetError: The folders are not there, or an image has no label.
    """
    images, labels, image_end, label_end = _CITYSCAPES
    if not (folder / images).is_dir() or not (folder / labels).is_dir():
        raise DatasetError(f"{folder} is not laid out as Cityscapes: {images}/ and {labels}/ are not both there.")
    if not options.water_ids:
        raise DatasetError("Labels of the Cityscapes layout are class ids. Say which are water with --water-ids.")
    found = sorted((folder / images).glob(f"*/*/*{image_end}"))
    pairs = []
    for path in found:
        split, city = path.parts[-3:-1]
        name = path.name.removesuffix(image_end)
        pairs.append(Pair(path, folder / labels / split / city / f"{name}{label_end}", name, city, split))
    # Cityscapes ships its test images with labels that ignore everything, or with none.
    kept = [pair for pair in pairs if pair.split != "test" or (pair.mask is not None and pair.mask.exists())]
    missing = [pair.image.name for pair in kept if pair.mask is None or not pair.mask.exists()]
    check_all_labelled(missing, len(kept), f"in {folder / labels}")
    if not kept:
        raise DatasetError(f"{folder / images} has no image SPLIT/CITY/*{image_end}.")
    return _listing([_tile(pair, options) for pair in kept], folder)


def _masks(folder: Path, options: DataOptions) -> Path:
    masks = masks_folder(folder, options)
    if masks is None:
        looked = options.masks or " or ".join(f"{name}/" for name in MASK_FOLDERS)
        raise DatasetError(f"{folder} has {options.images}/ and no labels: no {looked}. Name the folder with --masks.")
    return masks


def _one_folder(folder: Path, root: Path, options: DataOptions, split: str) -> Listing:
    masks = _masks(folder, options)
    relative = str(masks.relative_to(folder))
    pairs = load_folder(folder, images=options.images, masks=relative, negatives=False)
    stems = {pair.name for pair in pairs}
    stray = [path.name for path in pictures(masks) if path.stem not in stems]
    said = [f"labels without an image are left out: {shortened(stray)}"] if stray else []
    pairs = [*pairs, *dry_pairs(folder / "negatives")]
    tiles = [_tile(replace(pair, split=split) if split else pair, options) for pair in pairs]
    listing = _listing(tiles, root, [folder / "index.csv"])
    return replace(listing, warnings=[*listing.warnings, *said])


def _tile(pair: Pair, options: DataOptions) -> Tile:
    source = replace(
        pair, water_ids=options.water_ids, ignore_value=options.ignore_value, bands=options.bands,
        columns=options.columns,
    )  # fmt: skip
    weight = weight_of(pair.facts, f"index.csv, {pair.name}")
    return Tile(pair.name, source, pair.group, pair.split, weight, pair.facts)


def _listing(tiles: list[Tile], root: Path, others: Iterable[Path] = ()) -> Listing:
    pairs = [tile.source for tile in tiles if isinstance(tile.source, Pair)]
    files = [path for pair in pairs for path in (pair.image, pair.mask) if path is not None]
    return Listing(tiles, stamps([*files, *others], root), depth_warning(Picture(pairs[0].image)))


def _end(pattern: str | None) -> str:
    """The end of a name that a pattern such as ``*_rgb.png`` or ``_rgb.png`` asks for."""
    return (pattern or "").lstrip("*")


def _by_beginning(folder: Path, end: str, except_end: str | None) -> dict[str, Path]:
    """Pictures whose name, or stem where the end has no suffix, has an end; by what stands before it."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        name = path.name if "." in end else path.stem
        other = except_end is not None and (path.name if "." in except_end else path.stem).endswith(except_end)
        if path.suffix.lower() not in IMAGE_SUFFIXES or not name.endswith(end) or other:
            continue
        beginning = name.removesuffix(end)
        if beginning in found:
            raise DatasetError(f"{found[beginning]} and {path} both begin with {beginning!r}. Give one folder of them.")
        found[beginning] = path
    return found


def _split_in(path: Path, root: Path) -> str:
    """The split that a folder on the way to a file is called after; empty if none is."""
    return next((part for part in path.relative_to(root).parts[:-1] if split_of(part)), "")

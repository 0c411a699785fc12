"""Mean colour and mean index of segments, each pixel counted once, read block by block for many segments together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geosam import indices
from geosam.segments.runs import Runs, meet, union

if TYPE_CHECKING:
    from geosam.scene import Scene

BLOCK_PX = 1024
"""Side of what is read at once."""

Floats = NDArray[np.float64]
Bands = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class MeanIndex:
    """An index whose mean is kept of every segment."""

    roles: tuple[str, ...]
    index: Callable[[Bands], Any]


INDICES: dict[str, MeanIndex] = {
    "ndwi": MeanIndex(("green", "nir"), lambda b: indices.ndwi(b["green"], b["nir"])),
    "mndwi": MeanIndex(("green", "swir1"), lambda b: indices.mndwi(b["green"], b["swir1"])),
    "ndvi": MeanIndex(("red", "nir"), lambda b: indices.ndvi(b["red"], b["nir"])),
    "exg": MeanIndex(("red", "green", "blue"), lambda b: indices.excess_green(b["red"], b["green"], b["blue"])),
}
"""By the name of their column. Excess green is kept where there is no infrared."""


def indices_of(bands: Mapping[str, int]) -> list[str]:
    """Which indices a scene's segments have: those of infrared, else that of colour."""
    infrared = [name for name in ("ndwi", "mndwi", "ndvi") if all(role in bands for role in INDICES[name].roles)]
    return infrared or [name for name in ("exg",) if all(role in bands for role in INDICES[name].roles)]


def columns_of(scene: Scene) -> list[str]:
    """Columns of :func:`means`: one a band role, ``mean_red`` and so on, then the indices."""
    return [*(f"mean_{role}" for role in scene.bands), *indices_of(scene.bands)]


def means(scene: Scene, masks: Sequence[Runs]) -> dict[str, Floats]:
    """Means over the valid pixels of each mask, NaN where it has none; shape (n,) each.

    Args:
        scene: Gives the bands, in their own unit.
        masks: In pixels of the scene; they may overlap.
    """
    names = columns_of(scene)
    total, count = np.zeros((len(names), len(masks))), np.zeros((len(names), len(masks)))
    if masks:
        for window in _blocks(masks):
            _add(scene, window, masks, total, count)
    with np.errstate(invalid="ignore", divide="ignore"):
        return dict(zip(names, total / count, strict=True))


def _blocks(masks: Sequence[Runs]) -> list[Window]:
    """Squares of a fixed grid that hold something of the masks."""
    everything = union(list(masks))
    # A run may be wider than a block: every block from its first to its last is wanted.
    row, first, last = everything.row // BLOCK_PX, everything.start // BLOCK_PX, (everything.stop - 1) // BLOCK_PX
    wanted = {(int(r), c) for r, a, b in np.unique(np.stack([row, first, last]), axis=1).T for c in range(a, b + 1)}
    return [Window(c * BLOCK_PX, r * BLOCK_PX, BLOCK_PX, BLOCK_PX) for r, c in sorted(wanted)]


def _add(scene: Scene, window: Window, masks: Sequence[Runs], total: Floats, count: Floats) -> None:
    """Add what lies in a block to the sums, by sums along its rows: a run is the difference of two of them."""
    left, top = int(window.col_off), int(window.row_off)
    block = (left, top, left + BLOCK_PX, top + BLOCK_PX)
    near = [number for number, mask in enumerate(masks) if meet(mask.box, block)]
    inside = [masks[number].cut(block) for number in near]
    owner = np.repeat(np.array(near), [len(mask.begin) for mask in inside])
    row = np.concatenate([mask.row for mask in inside]) - top
    start = np.concatenate([mask.start for mask in inside]) - left
    stop = np.concatenate([mask.stop for mask in inside]) - left
    for number, plane in enumerate(_planes(scene, window)):
        known = np.isfinite(plane)
        for sums, values in ((total, np.where(known, plane, 0)), (count, known)):
            along = np.zeros((BLOCK_PX, BLOCK_PX + 1))
            np.cumsum(values, axis=1, out=along[:, 1:], dtype=np.float64)
            sums[number] += np.bincount(owner, along[row, stop] - along[row, start], len(masks))


def _planes(scene: Scene, window: Window) -> list[NDArray[np.floating]]:
    """Bands, then indices, NaN where not valid; (BLOCK_PX, BLOCK_PX) each."""
    roles = tuple(scene.bands)
    block = scene.read(window, roles)
    bands = dict(zip(roles, np.where(block.valid, block.values, np.float32(np.nan)), strict=True))
    return [*bands.values(), *(np.asarray(INDICES[name].index(bands)) for name in indices_of(scene.bands))]

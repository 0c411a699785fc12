"""A person's own prompts: points, boxes and a mask from files, had tile by tile.

They replace the automatic ones or join them. A tile runs where such a prompt lies in it, and a prompt
reaches no farther than the tiles that it lies in.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy import ndimage

from geosam.errors import OptionsError
from geosam.options import SegmentOptions
from geosam.prompts import DRY, PAD, WATER, Prompts
from geosam.prompts.bodies import Bodies

if TYPE_CHECKING:
    from geosam.prompts.mask import GivenMask

Bool = NDArray[np.bool_]
Way = Literal["auto", "given", "both", "none"]

NOBODY = -1
"""Body of a prompt that names none, and tile of a point that names none."""

THINNEST_PX = 2.0
"""A tile that a box overlaps by less is not asked about it, unless the whole box is as thin."""


def way_of(options: SegmentOptions) -> Way:
    """Whose prompts a run gives its model: ``auto``, ``given``, ``both`` or ``none``.

    Raises:
        OptionsError: The options contradict each other.
    """
    prompts = options.prompts
    files = [path for path in (prompts.points_file, prompts.boxes_file, prompts.mask_file) if path is not None]
    way: Way = prompts.which or ("given" if files else "auto")
    if files and way in ("auto", "none"):
        raise OptionsError(
            f"--prompts {way} would leave {files[0]} unused. Say --prompts given or both, or leave it out."
        )
    if not files and way in ("given", "both"):
        raise OptionsError(f"--prompts {way} needs prompts: give --points, --boxes or --prompt-mask a file.")
    if way == "given" and options.tiles.which == "all":
        raise OptionsError("--tiles all runs tiles without a prompt of yours. Leave it out, or say --prompts both.")
    return way


def runs_everywhere(options: SegmentOptions) -> bool:
    """Whether every tile is run, whatever a coarse mask says."""
    return options.tiles.which == "all" or (options.tiles.which == "auto" and way_of(options) == "none")


@dataclass(frozen=True, eq=False)
class GivenPrompts:
    """Prompts that lie in one scene, in pixels of its working grid; (0, 0) is the outer corner of the first pixel."""

    points: NDArray[np.float64]
    """Shape (n, 2) as (x, y)."""
    labels: NDArray[np.int64]
    """Shape (n,): 1 water, 0 dry."""
    bodies: NDArray[np.int64]
    """Shape (n,): which points are one joint prompt; :data:`NOBODY` where the file does not say."""
    tiles: NDArray[np.int64]
    """Shape (n,): the one tile that a point is for, or :data:`NOBODY`: every tile that it lies in."""
    boxes: NDArray[np.float64]
    """Shape (m, 4) as x0, y0, x1, y1, cut at the scene's edges."""
    box_bodies: NDArray[np.int64]
    """Shape (m,): as ``bodies``, with which they share their numbers."""
    mask: GivenMask | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    """For the report, by kind: file, prompts in it, prompts outside the scene."""
    warnings: tuple[str, ...] = ()
    """Which prompts lie outside the scene, a sentence a file."""

    def kinds(self) -> tuple[str, ...]:
        """Which of ``points``, ``boxes`` and ``mask`` there are."""
        there = {"points": len(self.points), "boxes": len(self.boxes), "mask": self.mask is not None}
        return tuple(kind for kind, some in there.items() if some)

    def pinned(self, lefts: Sequence[int], tops: Sequence[int], tile_px: int) -> GivenPrompts:
        """The prompts on a tile grid: a point keeps the tile it names only if it lies in it.

        Args:
            lefts: First column of each tile column; tiles are numbered row by row.
            tops: First row of each tile row.
            tile_px: Side of a tile.
        """
        row, col = np.divmod(self.tiles, len(lefts))
        there = (self.tiles >= 0) & (row < len(tops))
        corner = np.stack([np.array(lefts)[np.where(there, col, 0)], np.array(tops)[np.where(there, row, 0)]], axis=1)
        inside = ((self.points >= corner) & (self.points < corner + tile_px)).all(axis=1)
        return replace(self, tiles=np.where(there & inside, self.tiles, NOBODY))

    def asks(self, window: Window, tile: int) -> bool:
        """Whether there is water to be asked for in a tile: a water point, a box, or water of the mask."""
        if (self.labels[self._points_in(window, tile)] == WATER).any() or next(
            self._boxes_in(window), None
        ) is not None:
            return True
        return self.mask is not None and bool(self.mask.read(window).any())

    def water(self, window: Window) -> Bool:
        """Water of the given mask in a window, bool (h, w); none where no mask is given."""
        if self.mask is None:
            return np.zeros((int(window.height), int(window.width)), bool)
        return self.mask.read(window)

    def prompts(self, window: Window, tile: int, water: Bool, automatic: Prompts | None = None) -> Prompts:
        """Prompts of one tile.

        Points and boxes of one ``body`` are one joint prompt. A water point without body joins those that lie in the
        same component of ``water``, else it stands alone. A dry point without body goes to every body of the tile.

        Args:
            window: The tile, in pixels of the scene.
            tile: Its index.
            water: Water as far as it is known before the model runs, bool (h, w): of the given mask, and with
                ``automatic`` of the coarse mask too.
            automatic: Prompts sampled in ``water``, which the given ones join. Points that it has already are left out.

        Returns:
            One row a body; none where nothing is given in the tile and nothing is automatic.
        """
        here, boxes = self._points_in(window, tile), list(self._boxes_in(window))
        if automatic is not None and self.mask is None and not len(here) and not boxes:
            return automatic
        dense = None if automatic is None else automatic.mask
        if dense is None and self.mask is not None:
            dense = water if automatic is None else self.mask.read(window)
        found, loose = Bodies(water, dense, automatic), []
        for i in here:
            xy = (self.points[i] - (window.col_off, window.row_off)).astype(np.float32)
            if found.has(xy, int(self.labels[i])):
                continue
            if self.bodies[i] == NOBODY and self.labels[i] == DRY:
                loose.append(xy)
            else:
                found.add_point(xy, int(self.labels[i]), None if self.bodies[i] == NOBODY else int(self.bodies[i]))
        for box, body in boxes:
            found.add_box(box, None if body == NOBODY else body)
        return found.stacked(loose)

    def overruled(self, window: Window, tile: int, coarse: Bool, prompts: Prompts) -> Bool:
        """Where a person says otherwise than the coarse mask, so that its word does not count there.

        That is the dry ground of boxes and of the given mask; and of the dry ground around a water point that lies on
        it, and of the water around a dry point that lies in it, what is nearer to that point than to any other of the
        tile. Not all of the water body: a dry point on an island must not cost the river.

        Args:
            window: The tile.
            tile: Its index.
            coarse: Water of the coarse mask, bool (h, w).
            prompts: All of the tile.
        """
        released = self.water(window) & ~coarse
        for (x0, y0, x1, y1), _ in self._boxes_in(window):
            inside = (slice(int(y0), int(np.ceil(y1))), slice(int(x0), int(np.ceil(x1))))
            released[inside] |= ~coarse[inside]
        here = self._points_in(window, tile)
        col, row = np.floor(self.points[here] - (window.col_off, window.row_off)).astype(int).T
        for label, denied in ((WATER, ~coarse), (DRY, coarse)):
            sites = np.zeros(coarse.shape, bool)
            sites[row[self.labels[here] == label], col[self.labels[here] == label]] = True
            released |= _nearest_to(sites & denied, prompts) & denied
        return released

    def digest(self) -> str:
        """SHA-256 of what is given, so that a run is not resumed with other prompts."""
        file = self.facts.get("mask", {}).get("file")
        stat = os.stat(file) if file is not None and os.path.exists(file) else None
        hasher = hashlib.sha256(repr((file, stat and (stat.st_size, stat.st_mtime_ns))).encode())
        for part in (self.points, self.labels, self.bodies, self.tiles, self.boxes, self.box_bodies):
            hasher.update(np.ascontiguousarray(part).tobytes())
        return hasher.hexdigest()

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(shapely.points(self.points))

    @cached_property
    def _box_tree(self) -> shapely.STRtree:
        return shapely.STRtree(shapely.box(*self.boxes.T))

    def _points_in(self, window: Window, tile: int) -> NDArray[np.int64]:
        """Indices of the points of a tile, in the order of the file."""
        near = np.sort(self._tree.query(_square(window)))
        xy = self.points[near] - (window.col_off, window.row_off)
        inside = ((xy >= 0) & (xy < (window.width, window.height))).all(axis=1)
        mine: NDArray[np.int64] = near[inside & np.isin(self.tiles[near], (NOBODY, tile))]
        return mine

    def _boxes_in(self, window: Window) -> Iterator[tuple[NDArray[np.float32], int]]:
        """Boxes of a tile in its own pixels, cut at its edges, with their bodies."""
        low = np.array([window.col_off, window.row_off] * 2, np.float64)
        high = np.array([window.width, window.height] * 2, np.float64)
        for i in np.sort(self._box_tree.query(_square(window))):
            cut = (self.boxes[i] - low).clip(0, high)
            whole = self.boxes[i][2:] - self.boxes[i][:2]
            if (cut[2:] - cut[:2] >= np.minimum(THINNEST_PX, whole)).all():
                yield cut.astype(np.float32), int(self.box_bodies[i])


def _nearest_to(sites: Bool, prompts: Prompts) -> Bool:
    """Pixels nearer to one of the sites than to any other point of the tile, bool (h, w)."""
    if not sites.any():
        return sites
    others = np.zeros_like(sites)
    col, row = prompts.points[prompts.labels != PAD].astype(int).T
    others[row, col] = True
    others &= ~sites
    to_sites = ndimage.distance_transform_edt(~sites)
    nearer: Bool = to_sites < ndimage.distance_transform_edt(~others) if others.any() else np.isfinite(to_sites)
    return nearer


def _square(window: Window) -> Any:
    left, top = window.col_off, window.row_off
    return shapely.box(left, top, left + window.width, top + window.height)

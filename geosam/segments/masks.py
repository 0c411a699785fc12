"""From the logits of many points to the masks of a tile: filtered, rid of doubles, and only then enlarged.

Predicted IoU and stability sort most of them out at the network's own low resolution. What stays is enlarged inside
the window that holds it, so that the work goes with the size of the things, not with the number of points.

Source: Kirillov et al. (2023), Segment Anything, appendix B, for the filters; the same masks as theirs where the
settings are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import nms

from geosam.options import EverythingOptions
from geosam.segments.cells import Extent, extent
from geosam.segments.grid import View
from geosam.segments.runs import Bools, Runs

SLACK = 0.1
"""Stability at low resolution may be so much below the limit before a mask is given up without being enlarged."""
SMALL_PX = 400
"""Masks of fewer low-resolution pixels are enlarged in any case: theirs says little."""
EDGE_SHARE = 20 / 1024
"""A mask of a crop that comes as near to its edge, as a share of the tile, is cut off there, and another crop's."""


@dataclass(frozen=True)
class Candidate:
    """A mask that passed the filters."""

    low: Tensor
    """Logits at low resolution around it, float32 (h, w)."""
    place: tuple[int, int]
    """Row and column of their first one in the whole mask's."""
    view: View
    grid: tuple[int, int, int, int]
    """Height and width of the whole low resolution, and of the picture that the network saw, pixels."""
    box: tuple[int, int, int, int]
    """Its first and last columns and rows as left, top, right, bottom in the tile, pixels, ends included."""
    predicted_iou: float
    stability: float


@dataclass(frozen=True)
class Found:
    """A mask of a tile."""

    runs: Runs
    """In pixels of the tile."""
    predicted_iou: float
    stability: float
    probability: float
    """Mean over its pixels."""


def candidates(
    low: Tensor, predicted: Tensor, view: View, tile: tuple[int, int], options: EverythingOptions
) -> Iterator[Candidate]:
    """The masks that are stable, and not cut off by the edge of a crop.

    Args:
        low: Logits, float32 (k, h, w) at low resolution, of what the network saw as large as the tile.
        predicted: IoUs that the model expects, float32 (k,).
        view: What the network looked at.
        tile: Height and width of the tile, pixels.
        options: The limits.
    """
    offset, least = options.stability_offset, options.stability or 0.0
    inner, outer = ((low > sign * offset).sum(dim=(1, 2)) for sign in (1, -1))
    hopeful = (inner > (least - SLACK) * outer) | (outer < SMALL_PX)
    low, scores = low[hopeful].cpu(), predicted[hopeful].cpu()
    grid = (low.shape[1], low.shape[2], *tile)
    for one, place, score in zip(low, _windows(low > -offset), scores.tolist(), strict=True):
        if place is None:
            continue
        window = one[place[0] : place[1], place[2] : place[3]].clone()
        found = _measured(Candidate(window, (place[0], place[2]), view, grid, (0, 0, 0, 0), score, 0.0), options)
        if found is not None and not _cut_off(found, view, tile):
            yield found


def _windows(inside: Tensor) -> Iterator[tuple[int, int, int, int] | None]:
    """First and last rows and columns, with a margin of three, of masks, bool (n, h, w); None of an empty one."""
    rows, cols = (inside.any(dim=axis).numpy() for axis in (2, 1))
    for row, col in zip(rows, cols, strict=True):
        r, c = np.flatnonzero(row), np.flatnonzero(col)
        yield None if not len(r) else (max(r[0] - 3, 0), r[-1] + 4, max(c[0] - 3, 0), c[-1] + 4)


def _measured(candidate: Candidate, options: EverythingOptions) -> Candidate | None:
    """The candidate with its stability and box at full resolution; None if it does not pass."""
    found = _extent(candidate, options.stability_offset, options.stability or 0.0)
    if found.box is None or not _stable(found, options.stability or 0.0):
        return None
    left, top, right, bottom = found.box
    x, y = candidate.view.left, candidate.view.top
    return replace(candidate, box=(x + left, y + top, x + right, y + bottom), stability=found.stability)


def _stable(found: Extent, least: float) -> bool:
    """Whether the stability is greater than a limit; 0: none."""
    return not least or found.stability > least


def _extent(candidate: Candidate, level: float, least: float) -> Extent:
    """What the mask covers of its view; a ragged one that is not stable may go without its box."""
    height, width, *seen = candidate.grid
    times = seen[0] // height
    view = [candidate.view.height, candidate.view.width]
    if times % 2 == 0 and view == seen == [times * height, times * width]:
        found = extent(candidate.low.numpy(), candidate.place, times, level)
        if found is not None:
            return found
    larger, (row, col) = enlarged(candidate)
    full = larger.numpy()
    found = Extent(int(np.count_nonzero(full > level)), int(np.count_nonzero(full > -level)), None)
    if not _stable(found, least):
        return found
    inside = full > 0
    rows, cols = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    box = (col + int(cols[0]), row + int(rows[0]), col + int(cols[-1]), row + int(rows[-1])) if len(rows) else None
    return replace(found, box=box)


def _cut_off(found: Candidate, view: View, tile: tuple[int, int]) -> bool:
    """Whether a mask reaches the edge of its crop where that is not the edge of the tile."""
    near = EDGE_SHARE * max(tile)
    crop = (view.left, view.top, view.left + view.width, view.top + view.height)
    whole = (0, 0, tile[1], tile[0])
    return any(
        abs(side - own) <= near and abs(side - last) > near
        for side, own, last in zip(found.box, crop, whole, strict=True)
    )


def enlarged(candidate: Candidate) -> tuple[Tensor, tuple[int, int]]:
    """A candidate's logits in pixels of the tile, float32 (h, w), and the row and column of the first in its view.

    The very numbers that enlarging the whole mask gives there: first to what the network saw, then to the view.
    """
    full, corner = candidate.low, candidate.place
    height, width, seen_rows, seen_cols = candidate.grid
    if (seen_rows, seen_cols) != (height, width):
        full, corner = _resized(full, corner, (height, width), (seen_rows, seen_cols))
    size = (candidate.view.height, candidate.view.width)
    if size != (seen_rows, seen_cols):
        full, corner = _resized(full, corner, (seen_rows, seen_cols), size)
    return full, corner


def _resized(
    values: Tensor, corner: tuple[int, int], old: tuple[int, int], new: tuple[int, int]
) -> tuple[Tensor, tuple[int, int]]:
    """A window of a picture of ``old`` size as a window of one of ``new`` size, bilinear."""
    if all(after % before == 0 for after, before in zip(new, old, strict=True)):
        return _times(values, corner, old, (new[0] // old[0], new[1] // old[1]))
    for axis in (0, 1):
        low, high, weight, first = _taps(values.shape[axis], corner[axis], old[axis], new[axis])
        shape = (-1, 1) if axis == 0 else (1, -1)
        share = weight.view(shape)
        values = values.index_select(axis, low) * (1 - share) + values.index_select(axis, high) * share
        corner = (first, corner[1]) if axis == 0 else (corner[0], first)
    return values, corner


def _times(
    values: Tensor, corner: tuple[int, int], old: tuple[int, int], times: tuple[int, int]
) -> tuple[Tensor, tuple[int, int]]:
    """The same where every pixel becomes so many: torch's own, without the pixels at the rim that lack neighbours."""
    full = F.interpolate(values[None, None], scale_factor=times, mode="bilinear", align_corners=False)[0, 0]
    trim = []
    for axis in (0, 1):
        end = corner[axis] + values.shape[axis]
        trim.append(slice(times[axis] * (corner[axis] > 0), full.shape[axis] - times[axis] * (end < old[axis])))
    first = tuple(times[axis] * corner[axis] + trim[axis].start for axis in (0, 1))
    return full[trim[0], trim[1]], (first[0], first[1])


def _taps(count: int, corner: int, old: int, new: int) -> tuple[Tensor, Tensor, Tensor, int]:
    """For the pixels of an axis that a window reaches: places of both neighbours in it, weight of the second."""
    scale = old / new
    at = ((torch.arange(new, dtype=torch.float64) + 0.5) * scale - 0.5).clamp_(min=0)
    low = at.floor().long()
    high = (low + 1).clamp_(max=old - 1)
    reached = torch.nonzero((low >= corner) & (high < corner + count))[:, 0]
    first, last = int(reached[0]), int(reached[-1]) + 1
    weight = (at - low).float()[first:last]
    return low[first:last] - corner, high[first:last] - corner, weight, first


def distinct(found: list[Candidate], nms_iou: float) -> list[Candidate]:
    """Without those whose box is nearly that of a better one, the best first."""
    if not found:
        return []
    boxes = torch.tensor([one.box for one in found], dtype=torch.float32)
    scores = torch.tensor([one.predicted_iou for one in found])
    return [found[i] for i in nms(boxes, scores, nms_iou).tolist()]


def as_runs(candidate: Candidate, valid: Bools | None = None) -> Found:
    """The mask of a candidate in pixels of its tile, with its mean probability.

    Args:
        candidate: Passed all filters.
        valid: Pixels of the tile that it may have, bool (h, w); None: all.
    """
    full, (row, col) = enlarged(candidate)
    top, left = candidate.view.top + row, candidate.view.left + col
    inside: NDArray[np.bool_] = (full > 0).numpy()
    if valid is not None:
        inside = inside & valid[top : top + inside.shape[0], left : left + inside.shape[1]]
    probability = float(torch.sigmoid(full[torch.from_numpy(inside)]).mean()) if inside.any() else 0.0
    return Found(Runs.of(inside, top, left), candidate.predicted_iou, candidate.stability, probability)

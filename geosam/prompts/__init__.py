"""Control points from a coarse mask: where a person would click.

The rule is that of the Elwha notebooks (geo-smart/water-surf) made deterministic and safe: the
mask is eroded in proportion to a power of its area so that points keep off the banks, but the
erosion backs off before it eats a channel, and points are spread by farthest-first choice
instead of by drawing and blanking.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geosam.options import PromptOptions

WATER, DRY, PAD = 1, 0, -10
"""Labels of points; PAD fills the rows of bodies that have fewer points than the largest."""

_CONNECT_8 = np.ones((3, 3), dtype=bool)
_MAX_CANDIDATES = 1500  # Farthest-first is O(points x candidates); more candidates move a point by a pixel or two.
_KEEP_DEPTH = 0.5  # The eroded core keeps at least this share of a body's greatest depth.


@dataclass(frozen=True)
class Prompts:
    """Prompts of one tile: B water bodies, each one joint prompt of up to N points.

    Attributes:
        points: float32 (B, N, 2) as (x, y) pixels; (0, 0) is the outer corner of the first pixel.
        labels: int64 (B, N): 1 water, 0 dry, -10 padding.
        boxes: float32 (B, 4) as x0, y0, x1, y1 (outer edges), NaN for a body without one; or None.
        mask: bool (h, w), coarse water of the whole tile as a dense prompt, or None.
        masked: bool (B,), bodies that are asked for with the mask; None: all of them.
        multimask: Keep of each body's whole, part and sub-part the one of highest predicted IoU.
    """

    points: NDArray[np.float32]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float32] | None = None
    mask: NDArray[np.bool_] | None = None
    masked: NDArray[np.bool_] | None = None
    multimask: bool = False

    def __len__(self) -> int:
        return len(self.points)

    def box(self, body: int) -> NDArray[np.float32] | None:
        """The box of a body, float32 (4,), or None."""
        return None if self.boxes is None or np.isnan(self.boxes[body]).any() else self.boxes[body]

    def with_mask(self) -> NDArray[np.bool_]:
        """Which bodies are asked for with the dense mask, bool (B,)."""
        if self.mask is None or self.masked is None:
            return np.full(len(self), self.mask is not None)
        return self.masked

    def rows(self, which: NDArray[np.bool_]) -> Prompts:
        """Some of the bodies, bool (B,)."""
        boxes = None if self.boxes is None else self.boxes[which]
        masked = None if self.masked is None else self.masked[which]
        return Prompts(self.points[which], self.labels[which], boxes, self.mask, masked, self.multimask)


def no_prompts() -> Prompts:
    """One body without any point, box or mask: the model is asked for all water it sees."""
    return Prompts(np.zeros((1, 0, 2), np.float32), np.zeros((1, 0), np.int64))


def sample_prompts(
    water: NDArray[np.bool_],
    valid: NDArray[np.bool_],
    options: PromptOptions | None = None,
    rng: np.random.Generator | None = None,
) -> Prompts:
    """Choose control points in the coarse water of one tile.

    Args:
        water: Coarse mask, bool (h, w), True = water.
        valid: bool (h, w), True = data; unknown pixels get no point of either kind.
        options: How many points, and whether boxes and the dense mask are given as well.
        rng: Breaks ties between equally good pixels; seed it by the tile so that runs repeat.

    Returns:
        One row a water body, the largest first. Bodies beyond ``options.max_bodies`` share the
        last row. No water gives ``len(prompts) == 0``.
    """
    options = PromptOptions() if options is None else options
    rng = np.random.default_rng(0) if rng is None else rng
    water = water & valid
    groups, labels = _bodies(water, options.max_bodies)
    dense = water if options.dense else None
    if not groups:
        return Prompts(np.zeros((0, 0, 2), np.float32), np.zeros((0, 0), np.int64), None, dense)
    depth = _depth(water)
    gap = _depth(~water & valid, border=False) if options.dry_points else None
    chosen = [_points_of(labels, group, depth, gap, options, rng) for group in groups]
    boxes = np.array([_box(labels, group) for group in groups], np.float32) if options.boxes else None
    return _padded(chosen, boxes, dense)


def joined(prompts: Prompts) -> Prompts:
    """All bodies of a tile as one joint prompt, for models that find all hinted water at once."""
    keep = prompts.labels.reshape(-1) != PAD
    points, labels = prompts.points.reshape(-1, 2)[keep], prompts.labels.reshape(-1)[keep]
    return Prompts(points[None], labels[None], None, prompts.mask, multimask=prompts.multimask)


def _bodies(water: NDArray[np.bool_], most: int) -> tuple[list[NDArray[np.intp]], NDArray[np.int32]]:
    """Group component numbers into bodies, the largest first; the last group takes the rest."""
    labels, count = ndimage.label(water, structure=_CONNECT_8, output=np.int32)
    if count == 0:
        return [], labels
    area = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    order = np.lexsort((np.arange(count), -area)) + 1
    groups = [order[i : i + 1] for i in range(min(most - 1, count))]
    if count >= most:
        groups.append(order[most - 1 :])
    return groups, labels


def _depth(mask: NDArray[np.bool_], border: bool = True) -> NDArray[np.int32]:
    """How many erosions with a 3x3 square each pixel survives, plus one; 0 outside the mask.

    With ``border`` the tile's edge erodes too: water may go on beyond it, but a point there
    tells the model little, since half of what surrounds it is out of sight.
    """
    padded = np.pad(mask, 1, constant_values=not border)
    return np.asarray(ndimage.distance_transform_cdt(padded, metric="chessboard")[1:-1, 1:-1], np.int32)


def _points_of(
    labels: NDArray[np.int32],
    group: NDArray[np.intp],
    depth: NDArray[np.int32],
    gap: NDArray[np.int32] | None,
    options: PromptOptions,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Water and dry points of one body, each float32 (n, 2) as (x, y)."""
    window = _window(labels, group, margin=32)
    body = labels[window] == group[0] if len(group) == 1 else np.isin(labels[window], group)
    core = _core(body, depth[window])
    wet = _spread(core, depth[window], options.points, rng)
    dry = np.zeros((0, 2), np.float32)
    if gap is not None:
        dry = _spread(_bank(body, gap[window]), None, options.dry_points, rng)
    offset = np.array([window[1].start, window[0].start], np.float32)
    return wet + offset, dry + offset


def _window(labels: NDArray[np.int32], group: NDArray[np.intp], margin: int) -> tuple[slice, slice]:
    """Bounding window of a group of components, grown by a margin and cut at the tile's edge."""
    if len(group) > 1:
        return slice(0, labels.shape[0]), slice(0, labels.shape[1])
    rows, cols = ndimage.find_objects((labels == group[0]).astype(np.uint8))[0]
    return (
        slice(max(rows.start - margin, 0), min(rows.stop + margin, labels.shape[0])),
        slice(max(cols.start - margin, 0), min(cols.stop + margin, labels.shape[1])),
    )


def _core(body: NDArray[np.bool_], depth: NDArray[np.int32]) -> NDArray[np.bool_]:
    """The body eroded k = A^0.6 / 35 times (A its area), or as often as its width bears."""
    deepest = int(depth[body].max())
    erosions = int(body.sum() ** 0.6 / 35)
    return body & (depth > min(erosions, int(deepest * _KEEP_DEPTH)))


def _bank(body: NDArray[np.bool_], gap: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Dry pixels near a body, but clear of its bank: the other side of the line that matters.

    The distance grows with the body's width, since a wide river's coarse bank is the less sure.
    """
    far = int(np.clip(2 + body.sum() ** 0.5 / 8, 4, 24))
    near = (_depth(~body, border=False) <= far + 4) & ~body
    for clearance in (far, far // 2, 2, 1):
        band = near & (gap >= clearance)
        if band.any():
            return band
    return near & (gap > 0)


def _spread(
    where: NDArray[np.bool_], depth: NDArray[np.int32] | None, count: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Up to ``count`` pixel centres of ``where``: the deepest first, then always the farthest from those chosen."""
    rows, cols = np.nonzero(where)
    if len(rows) == 0 or count == 0:
        return np.zeros((0, 2), np.float32)
    if len(rows) > _MAX_CANDIDATES:
        keep = np.sort(rng.choice(len(rows), _MAX_CANDIDATES, replace=False))
        if depth is not None:  # The deepest pixel is the safest point: never lose it to the draw.
            keep[0] = int(depth[rows, cols].argmax())
        rows, cols = rows[keep], cols[keep]
    xy = np.stack([cols, rows], axis=1).astype(np.float32) + 0.5
    first = int(depth[rows, cols].argmax()) if depth is not None else int(rng.integers(len(xy)))
    chosen = [first]
    distance = np.square(xy - xy[first]).sum(axis=1)
    for _ in range(min(count, len(xy)) - 1):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.square(xy - xy[chosen[-1]]).sum(axis=1))
    return xy[chosen]


def _box(labels: NDArray[np.int32], group: NDArray[np.intp]) -> tuple[int, int, int, int]:
    rows, cols = np.nonzero(np.isin(labels, group))
    return int(cols.min()), int(rows.min()), int(cols.max()) + 1, int(rows.max()) + 1


def _padded(
    chosen: list[tuple[NDArray[np.float32], NDArray[np.float32]]],
    boxes: NDArray[np.float32] | None,
    dense: NDArray[np.bool_] | None,
) -> Prompts:
    """Stack bodies of unequal point counts, filling up with (0, 0) labelled PAD."""
    widest = max(len(wet) + len(dry) for wet, dry in chosen)
    points = np.zeros((len(chosen), widest, 2), np.float32)
    labels = np.full((len(chosen), widest), PAD, np.int64)
    for row, (wet, dry) in enumerate(chosen):
        both = np.concatenate([wet, dry])
        points[row, : len(both)] = both
        labels[row, : len(both)] = [WATER] * len(wet) + [DRY] * len(dry)
    return Prompts(points, labels, boxes, dense)

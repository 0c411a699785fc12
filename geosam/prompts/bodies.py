"""The water bodies of one tile while a person's prompts are put to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geosam.prompts import DRY, PAD, WATER, Prompts

Bool = NDArray[np.bool_]
XY = NDArray[np.float32]
Key = tuple[str, int]


@dataclass
class _Body:
    points: list[XY] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    box: NDArray[np.float32] | None = None


class Bodies:
    """Gathers the prompts of one tile by body.

    Args:
        water: Water as far as it is known, bool (h, w).
        dense: The dense prompt, bool (h, w), or None.
        automatic: Prompts to begin with.
    """

    def __init__(self, water: Bool, dense: Bool | None, automatic: Prompts | None) -> None:
        self._water, self._dense = water, dense
        self._bodies: dict[Key, _Body] = {}
        for row in range(0 if automatic is None else len(automatic)):
            assert automatic is not None
            keep = automatic.labels[row] != PAD
            points, labels = list(automatic.points[row][keep]), automatic.labels[row][keep].tolist()
            self._bodies["automatic", row] = _Body(points, labels, automatic.box(row))
        begun = [
            (xy, label, key)
            for key, body in self._bodies.items()
            for xy, label in zip(body.points, body.labels, strict=True)
        ]
        self._had = {_token(xy, label) for xy, label, _ in begun}
        self._owners = {self._component(xy): key for xy, label, key in reversed(begun) if label == WATER}

    def has(self, xy: XY, label: int) -> bool:
        """Whether the very same point is among the automatic ones."""
        return _token(xy, label) in self._had

    def add_point(self, xy: XY, label: int, body: int | None) -> None:
        """Put a point to the body it names, else to that of its component of water, else to one of its own."""
        key = ("named", body) if body is not None else self._key_at(xy)
        one = self._bodies.setdefault(key, _Body())
        one.points.append(xy)
        one.labels.append(label)

    def add_box(self, box: NDArray[np.float32], body: int | None) -> None:
        """Put a box to the body it names if that has none yet, else to one of its own."""
        key = ("named", body) if body is not None else ("box", len(self._bodies))
        if key in self._bodies and self._bodies[key].box is not None:
            key = ("box", len(self._bodies))
        self._bodies.setdefault(key, _Body()).box = box

    def stacked(self, dry: list[XY]) -> Prompts:
        """All bodies as prompts, dry points that name none put to each of them.

        A body that has a water point in the dense prompt is asked for with it, unless a box of a person's says what is
        meant; where there is none, the dense prompt is asked about alone. A body of dry points alone is none.
        """
        asked = {key: body for key, body in self._bodies.items() if WATER in body.labels or body.box is not None}
        bodies, masked = list(asked.values()), [self._is_masked(*pair) for pair in asked.items()]
        if self._dense is not None and self._dense.any() and not any(masked):
            bodies, masked = [*bodies, _Body()], [*masked, True]
        widest = max((len(body.points) for body in bodies), default=0) + len(dry)
        points = np.zeros((len(bodies), widest, 2), np.float32)
        labels = np.full((len(bodies), widest), PAD, np.int64)
        boxes = np.full((len(bodies), 4), np.nan, np.float32)
        for row, body in enumerate(bodies):
            own = [*body.points, *dry]
            points[row, : len(own)] = np.reshape(own, (-1, 2))
            labels[row, : len(own)] = [*body.labels, *[DRY] * len(dry)]
            boxes[row] = np.nan if body.box is None else body.box
        some = boxes if not np.isnan(boxes).all() else None
        return Prompts(points, labels, some, self._dense, np.array(masked, bool))

    def _is_masked(self, key: Key, body: _Body) -> bool:
        if body.box is not None and key[0] != "automatic":
            return False
        wet = [xy for xy, label in zip(body.points, body.labels, strict=True) if label == WATER]
        return self._dense is not None and any(bool(self._dense[_pixel(xy)]) for xy in wet)

    def _key_at(self, xy: XY) -> Key:
        component = self._component(xy)
        if component == 0:
            return "alone", len(self._bodies)
        return self._owners.get(component, ("component", component))

    def _component(self, xy: XY) -> int:
        """Number of the component of water that a point lies in; 0: none."""
        return int(self._components[_pixel(xy)])

    @cached_property
    def _components(self) -> NDArray[np.int32]:
        return np.asarray(ndimage.label(self._water, structure=np.ones((3, 3), bool), output=np.int32)[0])


def _pixel(xy: XY) -> tuple[int, int]:
    return int(xy[1]), int(xy[0])


def _token(xy: XY, label: int) -> tuple[float, float, int]:
    return float(xy[0]), float(xy[1]), label

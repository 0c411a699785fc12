"""Water bodies to ask about, one joint prompt each, in groups that can be decoded together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geosam.errors import ModelError
from geosam.models.registry import that_understand
from geosam.prompts import Prompts


@dataclass(frozen=True)
class Body:
    """One joint prompt: what one water body of one tile is known by."""

    tile: int
    points: NDArray[np.float32]
    labels: NDArray[np.int64]
    box: NDArray[np.float32] | None
    mask: NDArray[np.bool_] | None
    many: bool

    @property
    def kind(self) -> tuple[int, bool, bool, bool]:
        """What bodies that are decoded together have in common."""
        return len(self.labels), self.box is not None, self.mask is not None, self.many


def bodies_of(prompts: Sequence[Prompts], understands: frozenset[str], name: str) -> list[Body]:
    """All bodies of some tiles, with the prompts that a model understands.

    Args:
        prompts: One a tile.
        understands: Kinds of prompt that mean something to the model.
        name: The model's, for the error.

    Raises:
        ModelError: A body has no prompt that the model understands.
    """
    return [_body(tile, one, row, understands, name) for tile, one in enumerate(prompts) for row in range(len(one))]


def _body(tile: int, prompt: Prompts, row: int, known: frozenset[str], name: str) -> Body:
    """Take from one row of a tile's prompts what the model understands."""
    keep = (prompt.labels[row] >= 0) & ("points" in known)
    box = prompt.box(row) if "boxes" in known else None
    mask = prompt.mask if "mask" in known and prompt.with_mask()[row] else None
    if not keep.any() and box is None and mask is None and "none" not in known:
        raise ModelError(
            f"{name} cannot find water without a prompt, and was given a body without one; it understands "
            f"{', '.join(sorted(known))}. Choose a --coarse method other than learned, or --model "
            f"{that_understand('none')}."
        )
    return Body(tile, prompt.points[row][keep], prompt.labels[row][keep], box, mask, prompt.multimask)


def in_groups(bodies: Sequence[Body], most: int) -> Iterator[list[Body]]:
    """Cut bodies into groups of one kind and at most ``most``, in a fixed order.

    Bodies of unequal point counts are not padded to one: SAM's transformer attends to padding as well, so that a
    body's mask would depend on how many points its neighbours have.
    """
    for kind in sorted({body.kind for body in bodies}):
        same = [body for body in bodies if body.kind == kind]
        for start in range(0, len(same), most):
            yield same[start : start + most]


def to_sam_xy(xy: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pixel coordinates as SAM wants them: pixel indices, to which it adds 0.5 itself.

    Args:
        xy: float (..., 2k), x and y in turn, pixels; (0, 0) is the outer corner of the first pixel.

    Returns:
        The same, where (0, 0) is the centre of the first pixel.
    """
    return np.asarray(xy, np.float32) - np.float32(0.5)
